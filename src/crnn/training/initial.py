"""Weights to begin a run with, made ready for training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.errors import CheckpointError
from crnn.images import normalise
from crnn.spec import ModelSpec
from crnn.training.adaptation import adapt
from crnn.training.checkpoints import load_weights
from crnn.training.data import SampleStream
from crnn.training.folding import is_folded, unfold
from crnn.training.network import HIDDEN

BUNDLED = "bundled"
MEASURED = 2048  # training images for BatchNorm's statistics
BATCH = 128


def initial_path(init: str) -> Path:
    """What ``--init`` names: the weights that come with the package, or a path."""
    if init != BUNDLED:
        return Path(init)
    from crnn.engines import bundled_model

    return bundled_model()


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """(state dict, spec) of a ``.safetensors``, a run folder, or an ``.onnx`` of ``crnn export``.

    Raises CheckpointError or ModelError.
    """
    if path.suffix == ".onnx":
        from crnn.export.onnx import weights_from_onnx

        return weights_from_onnx(path)
    return load_weights(path)


def initial_weights(path: Path, stream: SampleStream) -> dict[str, Tensor]:
    """The weights in ``path`` for the network that ``stream`` trains, with BatchNorm put back where it was folded away.

    Its statistics are measured on the first samples of ``stream``; scale and shift are set so that the evaluated output
    stays what it was (:func:`crnn.training.folding.unfold`). For another charset the last layer is adapted
    (:func:`crnn.training.adaptation.adapt`). The width of the pictures is free: no weight depends on it.

    Raises CheckpointError if the weights are of another network than the stream's spec: its trunk does not show in
    their shapes; or if its LSTMs are wider or narrower than the paper's.
    """
    state_dict, spec = read_weights(path)
    if (hidden := state_dict["rnn.0.fw_rnn.weight_hh_l0"].shape[1]) != HIDDEN:
        raise CheckpointError(f"{path}: its LSTMs have {hidden} units, and training is of {HIDDEN}")
    for name in ("trunk", "channels"):
        if getattr(spec, name) != (wanted := getattr(stream.spec, name)):
            raise CheckpointError(f"{path}: its {name} is {getattr(spec, name)!r}, and training is of {wanted!r}")
    state_dict = adapt(state_dict, spec.charset, stream.spec.charset, stream.seed)
    if not is_folded(state_dict):
        return state_dict
    with torch.no_grad():
        return unfold(state_dict, _first(stream))


def _first(stream: SampleStream) -> Iterator[NDArray[np.float32]]:
    for start in count(0, BATCH):
        if start >= MEASURED:
            return
        images = np.stack([stream.sample(i)[0] for i in range(start, start + BATCH)])
        yield normalise(images, stream.spec)
