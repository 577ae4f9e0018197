"""ONNX Runtime on the CPU: the engine of the bundled weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn import quantization
from crnn.engines import cache
from crnn.engines.artefact import Port, first_line, read_spec, run_in_pieces
from crnn.engines.processors import usable_processors
from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import SPEC_KEY


class OnnxRuntimeEngine:
    """An ONNX file in ONNX Runtime.

    The spec comes from the file's metadata (:func:`crnn.engines.artefact.read_spec`).

    Its threads sleep while they wait for each other. Left to its defaults ONNX Runtime makes them spin, which takes the
    processors from whatever else has work, such as decoding the next pictures: on two busy ones a single word took 45
    ms instead of 18.

    ``int8`` is for files with ranges beside them (:mod:`crnn.quantization`); what is built from the two is kept in the
    user's cache folder.

    Raises EngineError if ONNX Runtime is missing, ModelError if the file is no ONNX network of the spec's shapes or has
    no ranges for int8.
    """

    name = "onnxruntime"
    device = "CPU"

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        if precision not in (None, "float32", "int8"):
            raise OptionError(f"the engine onnxruntime does not compute in {precision}: choose float32 or int8")
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
        # Weights may be stored as float16, but a Cast behind each makes the arithmetic float32.
        self.precision = precision or "float32"
        model = str(path) if self.precision == "float32" else _in_int8(path)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class of their own
            hint = "; open it with --engine torch or `crnn export` it first" if path.suffix == ".safetensors" else ""
            raise ModelError(f"{path}: ONNX Runtime cannot load it ({first_line(error)}){hint}") from None
        ports = [
            [Port(node.name, node.type, node.shape) for node in nodes]
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        ]
        text = self._session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        self.spec, self.notes, self._fixed_batch = read_spec(path, text, *ports)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`. A file of a fixed batch size gets its batches in pieces of that size."""
        return run_in_pieces(self._call, batch, self._fixed_batch, self.spec, self.path)

    def _call(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            output: NDArray[np.float32] = self._session.run([self.spec.output_name], {self.spec.input_name: batch})[0]
        except Exception as error:
            raise ModelError(f"{self.path}: failed on a batch of {len(batch)} ({first_line(error)})") from None
        return output


def _in_int8(path: Path) -> bytes:
    """The file with its ranges put in, from the cache if it was built before."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(data).hexdigest()
    ranges = quantization.require(path, digest, quantization.load(path))
    name = cache.key("qdq 1", digest, json.dumps(ranges.tops, sort_keys=True))
    built = cache.load(name)
    if built is None:
        from crnn.engines.qdq import quantise

        built = quantise(data, ranges.tops, path)
        cache.store(name, built)
    return built
