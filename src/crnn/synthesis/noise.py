"""Random fields, cut from one table so that a field costs a copy and not a fresh draw."""

from __future__ import annotations

from functools import cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

_TABLE = 1 << 20


@cache
def _normal() -> NDArray[np.float32]:
    return np.random.Generator(np.random.PCG64(20150721)).standard_normal(_TABLE, np.float32)


def white(shape: tuple[int, ...], dice: Random) -> NDArray[np.float32]:
    """Standard normal noise of ``shape``: float32, at most 2**20 values, a view that must not be written to."""
    count = int(np.prod(shape))
    start = dice.randrange(_TABLE - count)
    return _normal()[start : start + count].reshape(shape)


def field(shape: tuple[int, ...], dice: Random, grain: float) -> NDArray[np.float32]:
    """Smooth noise with a grain of about ``grain`` pixels, in roughly [-2, 2]: float32[height, width]."""
    height, width = shape
    small = white((max(2, round(height / grain)), max(2, round(width / grain))), dice)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]
