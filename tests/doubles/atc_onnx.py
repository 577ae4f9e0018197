"""What ATC finds in the ONNX file it is given: operators, opset, LSTM weights, shapes."""

from __future__ import annotations

from pathlib import Path

import onnx
from tests.doubles.aipp import AippError, parse
from tests.doubles.atc_flags import AtcError, Flags, invalid
from tests.doubles.om import OUTPUT_TYPES, Compiled, signature

NEWEST_OPSET = 18
OLDEST_IR = 6  # the deliverable of 2021 pins ONNX 1.6.0, which knows none above; that ATC refuses more is inferred
_OPERATORS = """Add Concat Constant ConstantOfShape Conv Flatten Gather Gemm Identity LSTM LogSoftmax MatMul MaxPool
Relu Reshape Shape Slice Softmax Squeeze Sub Mul Div Transpose Unsqueeze BatchNormalization"""
OPERATORS = frozenset(_OPERATORS.split())
"""What a CRNN is made of. A Cast is not on the list: ATC knows it, but a file for devices is to have none."""


def inspect(flags: Flags, version: str) -> tuple[Compiled, bytes]:
    """Flags that passed their own check and the file -> what is compiled, and the file's bytes. Raises AtcError."""
    path = Path(flags["model"])
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception:
        raise AtcError("E16004", f"Model [{path}] has no graph, or is no ONNX file.") from None
    if version.split(".")[0] in ("3", "20") and model.ir_version > OLDEST_IR:
        raise AtcError("E16004", f"Model [{path}] is of IR version {model.ir_version}.")
    _operators(model, version)
    _lstms(model)
    shape, batch = _input(model, flags)
    names, (input_shape, output_shape) = signature(path)
    compiled = Compiled(
        *names,
        input_shape,
        output_shape,
        0 if flags.gears else max(batch, 0),
        flags.gears,
        Path(flags["insert_op_conf"]).read_text() if "insert_op_conf" in flags else "",
        flags["soc_version"],
        flags.get("output_type", "FP32"),
        flags.get("precision_mode") or flags.get("precision_mode_v2") or "force_fp16",
        dynamic=batch == -1 and not flags.gears,
    )
    if compiled.output_type not in OUTPUT_TYPES:
        raise NotImplementedError(f"the double gives no {compiled.output_type}")
    if compiled.aipp:
        channels, height, width = shape
        try:
            parse(compiled.aipp, width, height, channels)
        except AippError as error:
            raise invalid("insert_op_conf", flags["insert_op_conf"], str(error)) from None
    return compiled, data


def _operators(model: onnx.ModelProto, version: str) -> None:
    domains = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(domains) != 1:
        raise AtcError("E16005", f"The model has [{len(domains)}] domain versions of ai.onnx; there must be one.")
    [opset] = domains
    major = version.split(".")[0]
    newest = 11 if major in ("3", "20") else 13 if major in ("5", "21") else NEWEST_OPSET
    code = "E19010" if newest < NEWEST_OPSET else "E16002"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS or not 11 <= opset <= newest:
            kind = f"ai.onnx::{opset}::{node.op_type}"
            raise AtcError(code, f"No parser is registered for Op [{node.name}, optype [{kind}]].")


def _lstms(model: onnx.ModelProto) -> None:
    """The fusion that turns an LSTM into what the device computes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if node.op_type != "LSTM":
            continue
        inputs = [*node.input, *[""] * 8]
        for what, name in zip(("W", "R", "B"), inputs[1:4], strict=True):
            if name not in constants:
                raise AtcError("E20001", f"CommonLSTMFusionPass: {what} of LSTM [{node.name}] must be a constant.")
        direction = {each.name: each.s for each in node.attribute}.get("direction", b"forward")
        if direction == b"bidirectional" and not {inputs[5], inputs[6]} <= constants:
            raise AtcError("E20001", f"LSTM [{node.name}]: LSTM initH is null, fusion failed.")


def _input(model: onnx.ModelProto, flags: Flags) -> tuple[tuple[int, int, int], int]:
    """(channels, height, width) and batch, -1 if it stays free, of the only input."""
    constants = {tensor.name for tensor in model.graph.initializer}
    [value] = [each for each in model.graph.input if each.name not in constants]
    own = [each.dim_value if each.dim_value > 0 else -1 for each in value.type.tensor_type.shape.dim]
    given = flags.shape
    if given is None:
        if -1 in own:
            reason = "the model has dynamic dimensions: give --input_shape"
            raise AtcError("E10001", f"Value [-1] for parameter [Inputs] is invalid. Reason: {reason}.")
        given = own
    elif flags.shape_name != value.name:
        raise invalid("input_shape", flags["input_shape"], f"the model's input is {value.name}.")
    if len(given) != len(own) or any(mine not in (-1, theirs) for mine, theirs in zip(own, given, strict=True)):
        raise invalid("input_shape", flags.get("input_shape", ""), f"the model's own shape is {own}.")
    batch, *rest = given
    channels, height, width = rest
    return (channels, height, width), batch
