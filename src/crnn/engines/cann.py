"""ONNX Runtime on Ascend devices, through its CANN execution provider. Not yet run on hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.engines import pyacl
from crnn.engines.artefact import Port, first_line, read_spec, run_in_pieces
from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import SPEC_KEY

PROVIDER = "CANNExecutionProvider"
_NOTE = "the engine cann has not yet been run on hardware; please report what you see"

# The provider's option has had two names (ONNX Runtime's "CANN Execution Provider"); an unknown one is refused
_FLOAT32 = ({"precision_mode": "must_keep_origin_dtype"}, {"precision_mode_v2": "origin"})


class CannEngine:
    """An ONNX file that ONNX Runtime compiles for the device that ``$ASCEND_DEVICE_ID`` names (default 0).

    Needs the package onnxruntime-cann, which takes the place of onnxruntime, and CANN. Left alone, ONNX Runtime goes
    over to the CPU in silence where the device does not start, or for operators it does not have: here each of that
    raises EngineError. ``precision`` is float16 (the provider's own choice) or float32.

    Raises EngineError if any of it is missing, ModelError if the file is no ONNX network of the spec's shapes.
    """

    name = "cann"
    threads = 1

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        if precision not in (None, "float16", "float32"):
            raise OptionError(f"the engine cann does not compute in {precision}: choose float16 or float32")
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"the engine cann cannot be used ({error}): pip install onnxruntime-cann") from None
        if PROVIDER not in onnxruntime.get_available_providers():
            raise EngineError(
                "the engine cann cannot be used: this onnxruntime is built without CANN; "
                "pip uninstall onnxruntime, then pip install onnxruntime-cann"
            )
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        self.path = path
        self.version: str = onnxruntime.__version__
        self.precision = precision or "float16"
        device = pyacl.chosen_device()
        self.device = f"Ascend, device {device}"
        tried = _FLOAT32 if precision == "float32" else ({},)
        self._session = self._start(onnxruntime, [{"device_id": str(device), **options} for options in tried])
        ports = [
            [Port(node.name, node.type, node.shape) for node in nodes]
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        ]
        text = self._session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        self.spec, notes, self._fixed_batch = read_spec(path, text, *ports)
        self.notes = (_NOTE, *notes)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`."""
        return run_in_pieces(self._call, batch, self._fixed_batch, self.spec, self.path)

    def _start(self, onnxruntime: Any, options: list[dict[str, str]]) -> Any:
        """A session with the first of ``options`` that this version knows."""
        config = onnxruntime.SessionOptions()
        config.log_severity_level = 4  # what goes wrong is raised
        config.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # no single operator either
        for i, values in enumerate(options):
            try:
                session = onnxruntime.InferenceSession(
                    str(self.path), config, providers=[(PROVIDER, values)], enable_fallback=0
                )
            except Exception as error:  # its errors share no base class of their own
                if "option" in str(error).lower() and i + 1 < len(options):
                    continue
                reason = str(error).strip().split("\n")[0].rpartition(") ")[2]  # behind the C++ function it comes from
                raise EngineError(
                    f"{self.path}: the CANN provider of ONNX Runtime does not start ({reason[:200]}): "
                    "is CANN's set_env.sh sourced? crnn doctor shows what is missing"
                ) from None
            running = session.get_providers()
            if running[:1] != [PROVIDER]:
                raise EngineError(
                    f"{self.path}: ONNX Runtime fell back from the Ascend device to {running[0]}: "
                    "is CANN's set_env.sh sourced, and is the device there? crnn doctor shows what is missing"
                )
            session.disable_fallback()
            return session
        raise AssertionError("options is never empty")

    def _call(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            output: NDArray[np.float32] = self._session.run([self.spec.output_name], {self.spec.input_name: batch})[0]
        except Exception as error:
            raise EngineError(f"{self.path}: failed on a batch of {len(batch)} ({first_line(error)})") from None
        return output
