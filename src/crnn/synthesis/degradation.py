"""What a camera does to a word: blur, movement, few pixels, noise, sharpening, JPEG."""

from __future__ import annotations

from math import cos, pi, sin
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.synthesis.appearance import Gray
from crnn.synthesis.noise import field, white


def degrade(picture: Gray, contrast: float, narrowest: int, dice: Random) -> NDArray[np.uint8]:
    """``picture`` as a photograph: uint8[height, width]. About half of all words stay crisp.

    ``contrast`` (gray levels between ink and ground) bounds the noise, so that faint words are not drowned in it;
    ``narrowest`` (pixels) the loss of resolution, so that long words keep their letters.
    """
    height, width = picture.shape
    blur = dice.random()
    if blur < 0.40:
        picture = cv2.GaussianBlur(picture, (0, 0), dice.uniform(0.005, 0.04) * height + 0.2)  # type: ignore[assignment]
    elif blur < 0.46:
        picture = _moved(picture, dice)
    if dice.random() < 0.30 and height > 16:  # few pixels: down to as little as 12 rows, and up again
        rows = dice.uniform(12, max(13.0, min(28.0, height * 0.8)))
        small = (min(width, max(8, narrowest, round(width * rows / height))), round(rows))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        how = cv2.INTER_CUBIC if dice.random() < 0.7 else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (width, height), interpolation=how)  # type: ignore[assignment]
    if dice.random() < 0.22:  # the halo of a camera's own sharpening
        soft = cv2.GaussianBlur(picture, (0, 0), dice.uniform(0.8, 2.2))
        picture = cv2.addWeighted(picture, 1 + (amount := dice.uniform(0.4, 1.8)), soft, -amount, 0)  # type: ignore[assignment]
    grain = dice.random()
    if grain < 0.28:
        picture = picture + white(picture.shape, dice) * np.float32(min(dice.uniform(1, 6), 0.07 * contrast))
    elif grain < 0.34:
        picture = picture + field(picture.shape, dice, 2.0) * np.float32(min(dice.uniform(3, 14), 0.12 * contrast))
    elif grain < 0.74:  # no camera's ground is of one level; that flatness gives drawn words away
        picture = picture + white(picture.shape, dice) * np.float32(min(dice.uniform(0.5, 2.5), 0.04 * contrast))
    out: NDArray[np.uint8] = cv2.convertScaleAbs(cv2.max(picture, 0.0))  # type: ignore[assignment, call-overload]
    if dice.random() < 0.65:
        quality = dice.randrange(15 if contrast > 60 else 35, 92)
        out = cv2.imdecode(cv2.imencode(".jpg", out, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_GRAYSCALE)  # type: ignore[assignment]
    return out


def _moved(picture: Gray, dice: Random) -> Gray:
    """Motion blur: a short line of equal weights."""
    length = max(2.0, dice.uniform(0.04, 0.16) * picture.shape[0])
    angle = dice.uniform(0, pi) if dice.random() < 0.5 else 0.0
    side = 2 * int(length / 2 + 1) + 1
    kernel = np.zeros((side, side), np.float32)
    middle = side / 2 - 0.5
    reach = (length / 2 * cos(angle), length / 2 * sin(angle))
    start = (round(middle - reach[0]), round(middle - reach[1]))
    end = (round(middle + reach[0]), round(middle + reach[1]))
    cv2.line(kernel, start, end, 1.0, 1)
    kernel /= max(float(kernel.sum()), 1.0)
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
