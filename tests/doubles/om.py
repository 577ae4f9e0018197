"""Stand-ins for compiled models: a file with the documented ``IMOD`` header whose body is the ONNX twin."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.doubles.aipp import Aipp, parse

MAGIC = b"IMOD"
HEADER = 256
VERSION = 0x10000000
OUTPUT_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "FP16": np.dtype(np.float16)}
HIDDEN_INPUT = "ascend_mbatch_shape_data"


class NotAnOm(ValueError):
    """The file is not what :func:`write_om` writes."""


@dataclass(frozen=True)
class Compiled:
    """What was compiled, as the double keeps it in the file. ``gears`` is empty where ``batch`` is fixed."""

    input_name: str
    output_name: str
    input_shape: tuple[int, int, int]  # channels, height, width, as the twin reads them
    output_shape: tuple[int, int]  # steps, classes
    batch: int
    gears: tuple[int, ...] = ()
    aipp: str = ""
    soc: str = "Ascend310"
    output_type: str = "FP32"
    precision: str = "force_fp16"
    dynamic: bool = False  # a free batch without gears: the double writes such files but does not run them

    @property
    def largest(self) -> int:
        """The batch that all sizes are for."""
        return max(self.gears, default=self.batch)

    @cached_property
    def stage(self) -> Aipp | None:
        """The AIPP stage, if there is one."""
        channels, height, width = self.input_shape
        return parse(self.aipp, width, height, channels) if self.aipp else None

    @property
    def input_dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(np.float32) if self.stage is None else np.dtype(np.uint8)
        return dtype

    def input_dims(self, batch: int) -> list[int]:
        """Of the first input; NHWC with AIPP, NCHW without."""
        if self.stage is None:
            return [batch, *self.input_shape]
        return [batch, self.stage.height, self.stage.width, self.stage.channels]

    def output_dims(self, batch: int) -> list[int]:
        return [self.output_shape[0], batch, self.output_shape[1]]

    @property
    def output_dtype(self) -> np.dtype[Any]:
        return OUTPUT_TYPES[self.output_type]

    def input_bytes(self, batch: int) -> int:
        return int(np.prod(self.input_dims(batch))) * self.input_dtype.itemsize

    def output_bytes(self, batch: int) -> int:
        return int(np.prod(self.output_dims(batch))) * self.output_dtype.itemsize


class Twin:
    """The ONNX twin of a compiled model, ready to run."""

    def __init__(self, compiled: Compiled, onnx: bytes) -> None:
        import onnxruntime

        self.compiled = compiled
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def run(self, data: bytes, batch: int) -> bytes:
        """The input's bytes for ``batch`` pictures -> the output's bytes."""
        compiled = self.compiled
        pixels: NDArray[Any] = np.frombuffer(data, compiled.input_dtype).reshape(compiled.input_dims(batch))
        if compiled.stage is not None:
            pixels = compiled.stage.apply(pixels, compiled.input_shape[0])
        [output] = self._session.run([compiled.output_name], {compiled.input_name: pixels})
        return np.ascontiguousarray(output, compiled.output_dtype).tobytes()


def write_om(
    path: Path,
    onnx: Path,
    *,
    batch: int | None = None,
    gears: Sequence[int] = (),
    aipp: str = "",
    soc: str = "Ascend310",
    output_type: str = "FP32",
) -> Path:
    """Compile ``onnx`` by hand: a fixed ``batch`` (default 1) or ``gears``; ``aipp`` is a configuration file's text."""
    if batch is not None and gears:
        raise ValueError("either batch or gears")
    names, shapes = signature(onnx)
    compiled = Compiled(
        *names, *shapes, 0 if gears else batch or 1, tuple(sorted(gears)), aipp, soc=soc, output_type=output_type
    )
    if aipp:
        parse(aipp, *shapes[0][::-1])  # a wrong one is refused here, not when the model is loaded
    path.write_bytes(pack(compiled, onnx.read_bytes()))
    return path


def signature(path: Path) -> tuple[tuple[str, str], tuple[tuple[int, int, int], tuple[int, int]]]:
    """Names of input and output, input shape (C, H, W), output shape (T, classes) of a network like the CRNN.

    Raises ValueError if it has not one input and one output, or is not such a network.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [data], [result] = session.get_inputs(), session.get_outputs()
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in data.shape]
    [output] = session.run([result.name], {data.name: np.zeros(shape, np.float32)})  # its declared shape may be open
    _, channels, height, width = shape
    steps, _, classes = output.shape
    return (data.name, result.name), ((channels, height, width), (steps, classes))


def pack(compiled: Compiled, onnx: bytes) -> bytes:
    """The file's bytes."""
    facts = json.dumps(asdict(compiled)).encode()
    body = struct.pack("<I", len(facts)) + facts + onnx
    header = struct.pack("<4sII64sI", MAGIC, HEADER, VERSION, b"", len(body))
    return header.ljust(HEADER, b"\0") + body


def unpack(data: bytes) -> tuple[Compiled, bytes]:
    """What was compiled, and the twin. Raises NotAnOm."""
    if len(data) < HEADER + 4 or data[:4] != MAGIC or struct.unpack_from("<I", data, 76)[0] != len(data) - HEADER:
        raise NotAnOm("no IMOD header, or not whole")
    (length,) = struct.unpack_from("<I", data, HEADER)
    facts: dict[str, Any] = json.loads(data[HEADER + 4 : HEADER + 4 + length])
    facts |= {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
    return Compiled(**facts), data[HEADER + 4 + length :]
