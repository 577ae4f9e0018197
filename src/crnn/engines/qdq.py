"""int8 for ONNX Runtime: QuantizeLinear and DequantizeLinear nodes put into an ONNX file by its ranges.

Written with protobuf alone, which ONNX Runtime brings along, so that reading needs no ``onnx``. Only the fields that
are looked at are declared here (numbers from onnx.proto, the ONNX project); protobuf keeps all others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from crnn.errors import ModelError
from crnn.quantization import channel_tops

_FIELDS = {  # message: {field: (number, type, repeated)}
    "Model": {"ir_version": (1, "int64", False), "graph": (7, "Graph", False), "opset_import": (8, "Opset", True)},
    "Opset": {"domain": (1, "string", False), "version": (2, "int64", False)},
    "Graph": {"node": (1, "Node", True), "initializer": (5, "Tensor", True), "output": (12, "Value", True)},
    "Value": {"name": (1, "string", False)},
    "Node": {
        "input": (1, "string", True),
        "output": (2, "string", True),
        "name": (3, "string", False),
        "op_type": (4, "string", False),
        "attribute": (5, "Attribute", True),
        "domain": (7, "string", False),
    },
    "Attribute": {
        "name": (1, "string", False),
        "i": (3, "int64", False),
        "ints": (8, "int64", True),
        "type": (20, "int32", False),
    },
    "Tensor": {
        "dims": (1, "int64", True),
        "data_type": (2, "int32", False),
        "name": (8, "string", False),
        "raw_data": (9, "bytes", False),
    },
}
_DTYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 1,
    np.dtype(np.uint8): 2,
    np.dtype(np.int8): 3,
    np.dtype(np.int64): 7,
}
_DTYPES |= {np.dtype(np.float16): 10}
_INT = 2  # AttributeProto.INT
_OPSET = 13  # the first whose DequantizeLinear has a scale for each output channel
_UNCHANGED = frozenset(
    ("Add", "Cast", "Concat", "Conv", "LSTM", "LogSoftmax", "MatMul", "MaxPool", "Relu", "Slice", "Transpose")
)
"""What means the same in opset 11 and 13 as `crnn export` uses it; of Squeeze, the axes have become an input."""


def quantise(data: bytes, tops: Mapping[str, float], path: Path) -> bytes:
    """The ONNX file ``data`` with the convolutions that read the tensors ``tops`` in int8 (:mod:`crnn.quantization`).

    Raises ModelError if it is not a file such as ``crnn export`` writes, or if no convolution reads one of the tensors.
    """
    model = _parse(data, path)
    graph = model.graph
    _raise_opset(model, path)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    nodes: list[Any] = []
    found = set()
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in tops:
            name, weight = node.input[0], node.input[1]
            kernels = _array(stored.get(casts.get(weight, weight)), f"{path}: the kernels of {node.name}")
            node.input[0] = _around(graph, nodes, name, np.float32(tops[name] / 255), f"{node.name}.x")
            node.input[1] = _weights(graph, nodes, kernels, f"{node.name}.w")
            found.add(name)
        nodes.append(node)
    if missing := sorted(tops.keys() - found):
        raise ModelError(f"{path}: no convolution reads {', '.join(missing)}, which its ranges name")
    used = {name for node in nodes for name in node.input}
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]  # clearing the list empties its nodes
    del graph.node[:]
    graph.node.extend(node for node in kept if node.op_type != "Cast" or node.output[0] in used)
    left = {name for node in graph.node for name in node.input}
    constants = [type(each).FromString(each.SerializeToString()) for each in graph.initializer if each.name in left]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    result: bytes = model.SerializeToString()
    return result


def observed(data: bytes, path: Path) -> tuple[bytes, list[str]]:
    """The ONNX file ``data`` with what each convolution but the first reads as further outputs, and their names.

    Raises ModelError if it is not an ONNX file, or has no such convolutions.
    """
    model = _parse(data, path)
    made = {name for node in model.graph.node for name in node.output}
    names = [node.input[0] for node in model.graph.node if node.op_type == "Conv" and node.input[0] in made]
    if not names:
        raise ModelError(f"{path}: holds no convolutions that could be made int8")
    for name in names:
        model.graph.output.add(name=name)
    result: bytes = model.SerializeToString()
    return result, names


def _parse(data: bytes, path: Path) -> Any:
    try:
        return _message("Model").FromString(data)
    except Exception as error:  # protobuf's DecodeError, whose place has moved between its releases
        raise ModelError(f"{path}: not an ONNX file ({error})") from None


def _around(graph: Any, nodes: list[Any], name: str, scale: np.float32, prefix: str) -> str:
    """A tensor of values from 0 on, rounded to 256 levels and back."""
    zero = np.array(0, np.uint8)
    scales = [_constant(graph, np.array(scale), f"{prefix}.scale"), _constant(graph, zero, f"{prefix}.zero")]
    nodes.append(_node("QuantizeLinear", [name, *scales], f"{prefix}.quantised"))
    nodes.append(_node("DequantizeLinear", [f"{prefix}.quantised", *scales], f"{prefix}.rounded"))
    return f"{prefix}.rounded"


def _weights(graph: Any, nodes: list[Any], kernels: NDArray[np.float32], prefix: str) -> str:
    """Kernels kept as int8, with a scale for each output channel."""
    scale = channel_tops(kernels) / np.float32(127)
    levels = np.rint(kernels / scale[:, None, None, None]).astype(np.int8)
    inputs = [
        _constant(graph, levels, f"{prefix}.levels"),
        _constant(graph, scale, f"{prefix}.scale"),
        _constant(graph, np.zeros(len(scale), np.int8), f"{prefix}.zero"),
    ]
    node = _node("DequantizeLinear", inputs, f"{prefix}.rounded")
    node.attribute.add(name="axis", type=_INT, i=0)
    nodes.append(node)
    return f"{prefix}.rounded"


def _raise_opset(model: Any, path: Path) -> None:
    opset = next((each for each in model.opset_import if each.domain in ("", "ai.onnx")), None)
    version = 0 if opset is None else opset.version
    if opset is None or version < _OPSET:
        kinds = {node.op_type for node in model.graph.node}
        if opset is None or version < 11 or (foreign := kinds - _UNCHANGED - {"Squeeze"}):
            what = f"opset {version}" if version < 11 else f"it has {', '.join(sorted(foreign))} nodes"
            raise ModelError(f"{path}: cannot be made int8 for ONNX Runtime ({what}); take a file of `crnn export`")
        for node in model.graph.node:
            if node.op_type == "Squeeze" and node.attribute:
                axes = np.array(node.attribute[0].ints, np.int64)
                node.input.append(_constant(model.graph, axes, f"{node.output[0]}.axes"))
                del node.attribute[:]
        opset.version = _OPSET
        model.ir_version = max(model.ir_version, 7)


def _node(kind: str, inputs: list[str], output: str) -> Any:
    return _message("Node")(op_type=kind, input=inputs, output=[output], name=output)


def _constant(graph: Any, array: NDArray[Any], name: str) -> str:
    little = array.astype(array.dtype.newbyteorder("<"))
    graph.initializer.add(name=name, dims=array.shape, data_type=_DTYPES[array.dtype], raw_data=little.tobytes())
    return name


def _array(tensor: Any, what: str) -> NDArray[np.float32]:
    kinds = {number: dtype for dtype, number in _DTYPES.items() if dtype.kind == "f"}
    if tensor is None or tensor.data_type not in kinds or not tensor.raw_data:
        raise ModelError(f"{what} are no constants that can be made int8; take a file of `crnn export`")
    dtype = kinds[tensor.data_type].newbyteorder("<")
    return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims)).astype(np.float32)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"crnn.onnx.{name}"))


def _pool() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="crnn/onnx.proto", package="crnn.onnx", syntax="proto2")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _FIELDS:
                described.field.add(
                    name=name, number=number, label=label, type=field.TYPE_MESSAGE, type_name=f".crnn.onnx.{kind}"
                )
            else:
                described.field.add(name=name, number=number, label=label, type=getattr(field, f"TYPE_{kind.upper()}"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _pool()
