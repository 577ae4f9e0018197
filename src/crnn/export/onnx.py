"""The network as an ONNX graph, and back.

The graph is put together node by node from the weights and from ``training.network.layers``, the one description of
the layers, instead of being traced by ``torch.onnx.export``. A tracer's graph depends on its release: it adds initial
states that Ascend's LSTM fusion refuses unless they fold to constants, computes shapes at run time, and newer ones do
not write opset 11 at all. The contract with the devices names every node, so the nodes are written down here, and that
they compute what the trained module computes is not argued but measured, on real words, for every file
(:mod:`crnn.export.parity`).

Two things about the form matter to the devices. Each LSTM layer is a forward LSTM and, for the other direction,
Slice(step -1), forward LSTM, Slice(step -1): Ascend's fusion takes forward LSTMs only, and OpenVINO (2026.4, CPU)
computes two LSTM nodes that read the same tensor wrongly, in silence, at batch sizes over 1. Everything is opset 11
and IR version 6, the oldest that all Ascend toolkits in use read.

Gates: PyTorch stacks them input, forget, cell, output; ONNX input, output, forget, cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from crnn import __version__
from crnn.errors import ModelError
from crnn.spec import SPEC_KEY, ModelSpec
from crnn.training.folding import fold, network_of
from crnn.training.network import layers

OPSET = 11
IR_VERSION = 6
PRODUCER = "crnn"
_TO_ONNX = (0, 3, 1, 2)  # gate order i,f,g,o -> i,o,f,g
_TO_TORCH = (0, 2, 3, 1)
_TO_THE_START = -(2**63) + 1  # Slice's end when it runs backwards: "all of the axis", as ONNX recommends


def round_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Folded float32 weights as ``--fp16`` stores them: matrices and kernels rounded to float16, biases kept.

    The 10,725 biases of the standard network are 0.1 % of the file; rounding them would save nothing.
    Raises ModelError if a weight is too large for float16 (65,504).
    """
    rounded = {}
    for key, value in fold(state_dict).items():
        half = value.half() if value.ndim > 1 else value
        if half.isinf().any() and value.isfinite().all():
            raise ModelError(f"{key} holds values that float16 cannot: export without --fp16")
        rounded[key] = half.float()
    return rounded


def build(
    state_dict: Mapping[str, Tensor], spec: ModelSpec, *, fp16: bool = False, batch: int | None = None
) -> onnx.ModelProto:
    """Weights, folded or with batch normalisation, and their spec -> the model.

    Input ``spec.input_name``: float32[batch, channels, height, width]; output ``spec.output_name``: float32[steps,
    batch, classes], log-probabilities; the batch is free, or of the size ``batch``. The spec is kept under the metadata
    key ``crnn.spec``. ``fp16`` stores kernels and matrices as float16, each behind a Cast to float32: half the size,
    the same float32 arithmetic (engines fold the Casts when they load the file).

    Raises CheckpointError if the weights are not a CRNN's, ModelError if they do not fit the spec (number of classes
    or channels, or an output that is not ``steps`` long) or float16, or are not finite.
    """
    state = round_weights(state_dict) if fp16 else fold(state_dict)
    network_of(state, spec.trunk)  # every tensor there, none unknown, shapes right
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{key} holds values that are not finite: the training of these weights has failed")
    channels, classes = state["cnn.conv0.weight"].shape[1], state["rnn.1.embedding.weight"].shape[0]
    if classes != spec.charset.classes:
        raise ModelError(f"the weights score {classes} classes, their spec has {spec.charset.classes}")
    if channels != spec.channels:
        raise ModelError(f"the weights read {channels} channels, their spec has {spec.channels}")
    if spec.aipp:
        raise ModelError(f"the spec has the AIPP stage {spec.aipp}, which only a file compiled for Ascend can have")

    size = "batch" if batch is None else batch
    graph = _Graph({key: value.numpy() for key, value in state.items()}, fp16)
    columns = _convolutions(graph, spec)
    for layer in range(2):
        columns = _bidirectional(graph, f"rnn.{layer}", columns)
    graph.add("LogSoftmax", [columns], spec.output_name, axis=2)

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "crnn",
            [_value(spec.input_name, [size, spec.channels, spec.height, spec.width])],
            [_value(spec.output_name, [spec.steps, size, classes])],
            graph.initializers,
        ),
        producer_name=PRODUCER,
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    check(model)
    return model


def check(model: onnx.ModelProto | Path) -> None:
    """Onnx's own full check, which infers every shape: a network that does not fit its spec's sizes is found here.

    Raises ModelError with its reason.
    """
    try:
        onnx.checker.check_model(str(model) if isinstance(model, Path) else model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"not a valid ONNX model of the sizes its spec gives: {reason[:300]}") from error


def weights_from_onnx(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """Read a file :func:`build` made back into folded float32 weights and the spec, for training to go on from.

    Exact for a float32 file; a float16 one gives its rounded weights. Raises ModelError if the file is not a crnn
    export (any other ONNX file: its tensors have no names we could trust).
    """
    try:
        model = onnx.load(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError, a class that has moved between its releases
        raise ModelError(f"{path} is not an ONNX file") from error
    text = {entry.key: entry.value for entry in model.metadata_props}.get(SPEC_KEY)
    if model.producer_name != PRODUCER or text is None:
        raise ModelError(f"{path} was not exported by crnn: its weights cannot be read back")
    arrays = {each.name.removesuffix(".f16"): numpy_helper.to_array(each) for each in model.graph.initializer}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"}

    state: dict[str, NDArray[np.float32]] = {}
    for name, array in arrays.items():
        owner, _, kind = name.rpartition(".")
        match kind:
            case "W" | "R":
                state[f"{owner}.weight_{'ih' if kind == 'W' else 'hh'}_l0"] = _regate(array[0], _TO_TORCH)
            case "B":
                state[f"{owner}.bias_ih_l0"], state[f"{owner}.bias_hh_l0"] = (
                    _regate(half, _TO_TORCH) for half in np.split(array[0], 2)
                )
            case "matrix":
                state[f"{owner}.weight"] = array.T
            case _:
                state[name] = array
    tensors = {key: torch.from_numpy(np.array(value, order="C")) for key, value in state.items()}
    spec = ModelSpec.from_json(text)
    network_of(tensors, spec.trunk)
    return tensors, spec


@dataclass
class _Graph:
    """Nodes and initializers as they are added. Every value is named after the tensor or the place it comes from."""

    weights: Mapping[str, NDArray[np.float32]]
    fp16: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, array: NDArray[np.float32], name: str) -> str:
        """A kernel or matrix; with fp16, stored as float16 and cast back."""
        if not self.fp16:
            return self.constant(array, name)
        stored = self.constant(array.astype(np.float16), f"{name}.f16")
        return self.add("Cast", [stored], name, to=TensorProto.FLOAT)

    def constant(self, array: NDArray[Any], name: str) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _convolutions(graph: _Graph, spec: ModelSpec) -> str:
    """float32[batch, channels, height, width] -> the columns, float32[steps, batch, 512]."""
    x = spec.input_name
    for i, (_, kernel, padding, pool) in enumerate(layers(spec.trunk)):
        name = f"cnn.conv{i}"
        inputs = [
            x,
            graph.weight(graph.weights[f"{name}.weight"], f"{name}.weight"),
            graph.constant(graph.weights[f"{name}.bias"], f"{name}.bias"),
        ]
        x = graph.add("Conv", inputs, name, kernel_shape=[kernel] * 2, pads=[padding] * 4, strides=[1, 1])
        x = graph.add("Relu", [x], f"cnn.relu{i}")
        if pool:
            shape, strides, pads = (_pair(each) for each in pool)
            x = graph.add("MaxPool", [x], f"cnn.pool{i}", kernel_shape=shape, strides=strides, pads=pads * 2)
    x = graph.add("Squeeze", [x], "cnn.row", axes=[2])
    return graph.add("Transpose", [x], "cnn.columns", perm=[2, 0, 1])


def _bidirectional(graph: _Graph, name: str, columns: str) -> str:
    """float32[steps, batch, inputs] -> float32[steps, batch, outputs]: both directions and the linear layer."""
    forward = _lstm(graph, f"{name}.fw_rnn", columns)
    flipped = _lstm(graph, f"{name}.bw_rnn", _flip(graph, columns, f"{name}.bw_rnn.columns"))
    backward = _flip(graph, flipped, f"{name}.bw_rnn.flipped_back")
    joined = graph.add("Concat", [forward, backward], f"{name}.joined", axis=2)
    matrix = graph.weight(graph.weights[f"{name}.embedding.weight"].T, f"{name}.embedding.matrix")
    bias = graph.constant(graph.weights[f"{name}.embedding.bias"], f"{name}.embedding.bias")
    scores = graph.add("MatMul", [joined, matrix], f"{name}.embedding.product")
    return graph.add("Add", [scores, bias], f"{name}.embedding")


def _lstm(graph: _Graph, name: str, columns: str) -> str:
    """float32[steps, batch, inputs] -> float32[steps, batch, hidden]. No initial states: ONNX then starts at zero."""
    tensors = {key: _regate(graph.weights[f"{name}.{key}_l0"], _TO_ONNX) for key in _LSTM_TENSORS}
    biases = np.concatenate([tensors["bias_ih"], tensors["bias_hh"]])
    inputs = [
        columns,
        graph.weight(tensors["weight_ih"][None], f"{name}.W"),
        graph.weight(tensors["weight_hh"][None], f"{name}.R"),
        graph.constant(biases[None], f"{name}.B"),
    ]
    out = graph.add("LSTM", inputs, name, direction="forward", hidden_size=tensors["weight_hh"].shape[1])
    return graph.add("Squeeze", [out], f"{name}.out", axes=[1])  # ONNX gives [steps, directions, batch, hidden]


_LSTM_TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _flip(graph: _Graph, columns: str, name: str) -> str:
    """The same columns, last first."""
    bounds = (("starts", -1), ("ends", _TO_THE_START), ("axes", 0), ("steps", -1))
    inputs = [graph.constant(np.array([value]), f"{name}.{key}") for key, value in bounds]
    return graph.add("Slice", [columns, *inputs], name)


def _regate(stacked: NDArray[np.float32], order: Sequence[int]) -> NDArray[np.float32]:
    """The four gates, stacked along axis 0, in another order."""
    gates = np.split(stacked, 4)
    return np.concatenate([gates[i] for i in order])


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
