"""torch on the CPU: for weights as the trainer keeps them. Needs ``crnn[train]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.engines import check_batch, check_output, require_float32
from crnn.errors import EngineError, ModelError


class TorchEngine:
    """The trainer's own network with the weights of a ``.safetensors`` file, a run folder or an ``.onnx`` of ours.

    torch keeps one number of threads for the whole process; ``threads``, if given, becomes it.

    Raises EngineError if torch is missing, ModelError or CheckpointError if the file does not hold the network's
    weights.
    """

    name = "torch"
    precision = "float32"
    device = "CPU"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        require_float32(self.name, precision)
        try:
            import torch

            from crnn.training.checkpoints import load_weights as load
            from crnn.training.network import CRNN

            if path.suffix == ".onnx":
                from crnn.export.onnx import weights_from_onnx

                load = weights_from_onnx
        except ImportError as error:
            raise EngineError(f"the engine torch cannot be used ({error}): pip install 'crnn[train]'") from None
        self._torch: Any = torch
        if threads is not None:
            torch.set_num_threads(threads)
        self.version: str = torch.__version__
        self.path = path / "weights.safetensors" if path.is_dir() else path
        if not self.path.is_file():
            raise ModelError(f"{path}: holds no weights.safetensors, so it is not a run folder")
        weights, self.spec = load(self.path)
        try:
            spec, hidden = self.spec, weights["rnn.0.fw_rnn.weight_hh_l0"].shape[1]
            batch_norm = any("batchnorm" in key for key in weights)
            self._network = CRNN(spec.charset.classes, spec.channels, hidden, batch_norm, spec.trunk).eval()
            self._network.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.path}: does not hold this network's weights ({reason})") from None

    @property
    def threads(self) -> int:
        """See :attr:`crnn.engines.Engine.threads`; torch keeps one number for the whole process."""
        return int(self._torch.get_num_threads())

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`."""
        check_batch(batch, self.spec)
        with self._torch.inference_mode():
            output: NDArray[np.float32] = self._network(self._torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        check_output(output, len(batch), self.spec, self.path)
        return output
