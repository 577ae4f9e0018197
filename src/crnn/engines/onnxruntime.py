"""ONNX Runtime on the CPU: the engine of the bundled weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.engines import check_batch, check_output, require_float32
from crnn.engines.processors import usable_processors
from crnn.errors import EngineError, ModelError
from crnn.spec import DELIVERABLE, SPEC_KEY, ModelSpec


class OnnxRuntimeEngine:
    """An ONNX file in ONNX Runtime.

    The spec comes from the file's metadata. A file without one, made by somebody else's exporter, is taken to follow
    the deliverable's contract, and ``notes`` says so; a single input and output may have names of their own.

    Its threads sleep while they wait for each other. Left to its defaults ONNX Runtime makes them spin, which takes the
    processors from whatever else has work, such as decoding the next pictures: on two busy ones a single word took 45
    ms instead of 18.

    Raises EngineError if ONNX Runtime is missing, ModelError if the file is no ONNX network of the spec's shapes.
    """

    name = "onnxruntime"
    precision = "float32"  # weights may be stored as float16, but a Cast behind each makes the arithmetic float32
    device = "CPU"

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        require_float32(self.name, precision)
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"the engine onnxruntime cannot be used ({error}): pip install onnxruntime") from None
        self.path = path
        self.version: str = onnxruntime.__version__
        self.threads = usable_processors() if threads is None else threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads  # its default counts the host's processors, not a container's
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised; nothing is printed behind the caller's back
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class of their own
            hint = "; open it with --engine torch or `crnn export` it first" if path.suffix == ".safetensors" else ""
            raise ModelError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)}){hint}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        text = self._session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        self.notes: tuple[str, ...] = ()
        if text is not None:
            try:
                self.spec = ModelSpec.from_json(text)
            except ModelError as error:
                raise ModelError(f"{path}: {error}") from None
        else:
            self.spec = DELIVERABLE
            if len(inputs) == len(outputs) == 1:
                self.spec = dataclasses.replace(DELIVERABLE, input_name=inputs[0].name, output_name=outputs[0].name)
            self.notes = (f"{path.name} carries no {SPEC_KEY}: read as 1 x 32 x 100 gray, 26 steps, blank and 0-9a-z",)
        spec = self.spec
        shape = (None, spec.channels, spec.height, spec.width)
        self._fixed_batch = _check(path, "input", inputs, spec.input_name, shape, 0)
        _check(path, "output", outputs, spec.output_name, (spec.steps, None, spec.charset.classes), 1)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`. A file of a fixed batch size gets its batches in pieces of that size."""
        check_batch(batch, self.spec)
        size = self._fixed_batch
        if size is None or size == len(batch):
            output = self._call(batch)
        else:
            missing = -len(batch) % size
            padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
            pieces = [self._call(padded[i : i + size]) for i in range(0, len(padded), size)]
            output = np.concatenate(pieces, axis=1)[:, : len(batch)]
        check_output(output, len(batch), self.spec, self.path)
        return output

    def _call(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            output: NDArray[np.float32] = self._session.run([self.spec.output_name], {self.spec.input_name: batch})[0]
        except Exception as error:
            raise ModelError(f"{self.path}: failed on a batch of {len(batch)} ({_first_line(error)})") from None
        return output


def _check(
    path: Path, what: str, nodes: Sequence[Any], name: str, expected: tuple[int | None, ...], batch_axis: int
) -> int | None:
    """Compare the model's declared input or output with the spec; the batch size if the file fixes it, else None."""
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        names = ", ".join(node.name for node in nodes)
        raise ModelError(f"{path}: has no {what} called {name!r} (it has: {names})")
    if node.type != "tensor(float)":
        raise ModelError(f"{path}: {what} {name} is {node.type} instead of tensor(float)")
    shape = list(node.shape)
    fits = len(shape) == len(expected) and all(
        want is None or not isinstance(have, int) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ["N" if size is None else size for size in expected]
        raise ModelError(f"{path}: {what} {name} has the shape {shape} instead of {wanted}")
    batch = shape[batch_axis]
    return batch if isinstance(batch, int) and batch > 0 else None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
