"""Words within a larger picture: a quadrilateral around a word -> the upright rectangle that it is the view of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from crnn.errors import OptionError

_MARGIN = 2  # what bicubic sampling looks at beyond a point


def rectify(picture: Image.Image, box: ArrayLike, pixel_limit: int) -> Image.Image:
    """Cut ``box`` out of ``picture`` (mode L or RGB), its perspective undone.

    ``box`` is float[4, 2]: the corners (x, y) clockwise from the *text's* top left, in pixels, where the picture covers
    [0, width] x [0, height]. The result is as wide as the longer of the box's two long edges (first to second corner,
    fourth to third) and as high as the longer of the other two; an upright box of whole pixels is a plain crop. Where a
    box reaches beyond the picture, the picture's border goes on.

    Raises OptionError if the corners are no such box, don't touch the picture, or if they span more than
    ``pixel_limit`` pixels or the result would have more.
    """
    corners = _corners(box)
    right_of = np.roll(corners, -1, axis=0)
    top, right, bottom, left = np.hypot(*(right_of - corners).T).tolist()
    width, height = max(1, round(max(top, bottom))), max(1, round(max(left, right)))

    low = np.floor(corners.min(axis=0)).astype(int) - _MARGIN
    high = np.ceil(corners.max(axis=0)).astype(int) + _MARGIN
    if np.any(high - _MARGIN <= 0) or np.any(low + _MARGIN >= picture.size):
        raise OptionError(f"lies outside the picture of {picture.width} x {picture.height} pixels")
    if max(math.prod((high - low).tolist()), width * height) > pixel_limit:
        raise OptionError(f"spans more than the {pixel_limit:,} pixels of pixel_limit")
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, picture.size)
    part = picture.crop((*inner_low.tolist(), *inner_high.tolist()))
    before, after = inner_low - low, high - inner_high
    if before.any() or after.any():
        pixels = np.asarray(part)
        around = ((before[1], after[1]), (before[0], after[0]), (0, 0))[: pixels.ndim]
        part = Image.fromarray(np.pad(pixels, around, mode="edge"))
    coefficients = _perspective(corners - low, width, height).tolist()
    return part.transform((width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)


def _corners(box: ArrayLike) -> NDArray[np.float64]:
    try:
        corners = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        raise OptionError("a box is four corners (x, y)") from None
    if corners.shape != (4, 2):
        raise OptionError(f"a box is four corners (x, y), not numbers of shape {list(corners.shape)}")
    if not np.all(np.abs(corners) < 2**31):  # written so that NaN is refused too
        raise OptionError("its corners must be numbers of pixels")
    edges = np.roll(corners, -1, axis=0) - corners
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]  # all positive: convex, and clockwise
    if not np.all(turns > 0):
        raise OptionError("its corners must run clockwise from the text's top left and enclose a convex area")
    return corners


def _perspective(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """float64[8], (a, ..., h) of the projective map from the upright rectangle to ``corners``.

    A point (x, y) of the rectangle goes to ((ax + by + c) / (gx + hy + 1), (dx + ey + f) / (gx + hy + 1)); the four
    pairs of corners give eight linear equations.
    """
    rows: list[list[Any]] = []
    upright = ((0, 0), (width, 0), (width, height), (0, height))
    for (x, y), (u, v) in zip(upright, corners.tolist(), strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    try:
        return np.linalg.solve(np.array(rows, np.float64), corners.reshape(8)).astype(np.float64)
    except np.linalg.LinAlgError:
        raise OptionError("its corners enclose no area to speak of") from None
