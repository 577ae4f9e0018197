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
from crnn.training.checkpoints import load_weights
from crnn.training.data import SampleStream
from crnn.training.folding import is_folded, unfold

MEASURED = 4096  # training images for BatchNorm's statistics
BATCH = 128


def initial_weights(path: Path, stream: SampleStream) -> dict[str, Tensor]:
    """The weights in ``path``, with BatchNorm put back where it was folded away.

    Its statistics are measured on the first samples of ``stream``; scale and shift are set so that the evaluated output
    stays what it was (:func:`crnn.training.folding.unfold`). Raises CheckpointError if the weights are of another
    network than the stream's spec: its trunk does not show in their shapes.
    """
    if path.suffix == ".onnx":
        from crnn.export.onnx import weights_from_onnx

        state_dict, spec = weights_from_onnx(path)
    else:
        state_dict, spec = load_weights(path)
    for name in ("trunk", "channels", "charset"):
        if getattr(spec, name) != (wanted := getattr(stream.spec, name)):
            raise CheckpointError(f"{path}: its {name} is {getattr(spec, name)!r}, and training is of {wanted!r}")
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
