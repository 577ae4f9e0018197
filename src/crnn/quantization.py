"""Ranges for int8: what the 256 levels of each quantised tensor stand for, calibrated on training words.

Ranges are JSON beside the model they belong to, ``MODEL.int8.json`` for ``MODEL.onnx``; engines put them into the
network as they load it. Quantised are the convolutions whose input has a range: its values 0 to ``top`` become 0 to
255, the kernels of each output channel, from minus to plus their largest value, -127 to 127. The first convolution,
the LSTMs and what follows stay in floating point. (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018.)
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ModelError
from crnn.files import write_whole

SCHEMA = "crnn.int8/1"

EXACT_ENOUGH = 0.005
"""The accuracy, as a fraction of the held-out words, that int8 may lose where it is chosen automatically."""


@dataclass(frozen=True)
class Ranges:
    """``tops``: the name of each quantised tensor and the value that 255 stands for.

    ``model`` is the SHA-256 of the ONNX file they were measured on, ``words`` how many training words they were
    calibrated on. ``held_out`` is how many words that training left out were then read, ``float32`` and ``int8`` the
    fractions of them that were read right, ``same`` the fraction that was read the same by both.
    """

    model: str
    tops: dict[str, float]
    words: int
    held_out: int
    float32: float
    int8: float
    same: float

    @property
    def exact_enough(self) -> bool:
        """Whether int8 loses at most :data:`EXACT_ENOUGH` of accuracy."""
        return self.float32 - self.int8 <= EXACT_ENOUGH

    def save(self, model: Path) -> Path:
        """Write them beside ``model``, whole or not at all. Raises OptionError if that cannot be done."""
        path = place(model)
        write_whole(path, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")
        return path


def place(model: Path) -> Path:
    """Where the ranges of ``model`` lie."""
    return model.parent / f"{model.stem}.int8.json"


def remedy(model: Path) -> str:
    """The command that makes them."""
    return f"`crnn quantize TRAINING_LMDB --model {model}`"


def load(model: Path) -> Ranges | None:
    """The ranges beside ``model``, whichever weights they belong to; None if there are none.

    Raises ModelError if the file is not what :meth:`Ranges.save` wrote.
    """
    path = place(model)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as ranges ({error}); make them anew with {remedy(model)}") from None
    try:
        if values.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        ranges = Ranges(**values)
        if not ranges.tops or not all(0 < top < math.inf for top in ranges.tops.values()):
            raise ValueError("a range that is none")
        ranges.exact_enough  # noqa: B018  (numbers, or it fails here)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: no ranges ({error}); make them anew with {remedy(model)}") from None
    return ranges


def require(model: Path, digest: str, ranges: Ranges | None) -> Ranges:
    """The ranges if they belong to the file ``model`` of that SHA-256; raises ModelError, saying what to do, if not."""
    if ranges is None:
        raise ModelError(f"{model}: has no ranges for int8 beside it; make them with {remedy(model)}")
    if ranges.model != digest:
        raise ModelError(f"{place(model)}: belongs to other weights; make it anew with {remedy(model)}")
    return ranges


def channel_tops(kernels: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[out, in, h, w] -> float32[out], the value that 127 stands for in each output channel; above 0."""
    tops: NDArray[np.float32] = np.maximum(np.abs(kernels).max(axis=(1, 2, 3)), np.float32(1e-12))
    return tops
