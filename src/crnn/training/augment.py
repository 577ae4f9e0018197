"""Variations of real words, so that a few thousand of them are never seen the same way twice."""

from __future__ import annotations

from math import pi
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.synthesis.degradation import degrade
from crnn.synthesis.noise import field

Gray = NDArray[np.uint8]  # height x width

WORKING_HEIGHT = 48  # pixels: larger crops are scaled down first; the network reads 32 rows
WORKING_WIDTH = 4096  # pixels; OpenCV remaps no more than 32767
LOW = 24  # pixels: what is lower is blurred as it is, and is bent and spoiled half as often and half as far


def augment(image: Gray, narrowest: int, dice: Random) -> Gray:
    """A variation of a real word: uint8[height, width]. The label still holds; about a tenth come back as they are.

    ``narrowest`` (pixels) bounds the loss of resolution, as in :func:`crnn.synthesis.degradation.degrade`.
    """
    if dice.random() < 0.08:
        return image
    height, width = image.shape
    gentle = 0.5 if height < LOW else 1.0
    if height > WORKING_HEIGHT or width > WORKING_WIDTH:
        width = min(max(8, round(width * WORKING_HEIGHT / height)) if height > WORKING_HEIGHT else width, WORKING_WIDTH)
        height = min(height, WORKING_HEIGHT)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if dice.random() < 0.85:
        image = _framed(image, gentle, dice)
    bend = dice.random()
    if bend < 0.15 * gentle:
        image = _arched(image, dice)
    elif bend < 0.35 * gentle:
        image = _rippled(image, dice)
    picture = image.astype(np.float32)
    if dice.random() < 0.5:
        middle = np.float32(picture.mean())
        picture -= middle
        picture *= np.float32(dice.uniform(0.45, 1.5))
        picture += middle + np.float32(dice.uniform(-40, 40))
    if dice.random() < 0.4:
        picture = np.float32(255) - picture
    if dice.random() < 0.5:
        picture = _lit(picture, dice)
    np.clip(picture, 0, 255, out=picture)
    if dice.random() < 0.4 * gentle:
        low, high = float(picture.min()), float(picture.max())
        return degrade(picture, 0.6 * (high - low), narrowest, dice)
    return picture.astype(np.uint8)


def _lit(picture: NDArray[np.float32], dice: Random) -> NDArray[np.float32]:
    """Another light: a curve that lifts or sinks the middle tones, shade that falls unevenly, or both.

    The ground is what the network could tell a word by that it has seen before; the letters' contrast stays.
    """
    way = dice.random()
    if way < 0.65:
        low, high = np.float32(picture.min()), np.float32(picture.max())
        span = max(high - low, np.float32(1))
        curve = np.float32(2 ** dice.gauss(0, 0.6))
        picture = low + span * np.clip((picture - low) / span, 0, 1) ** curve
    if way > 0.35:
        height, width = picture.shape
        strength = np.float32(dice.uniform(0.05, 0.2) * max(32.0, float(picture.max() - picture.min())))
        picture = picture + strength * field((height, width), dice, height * dice.uniform(0.5, 2.5))
    return picture


def _framed(image: Gray, reach: float, dice: Random) -> Gray:
    """The crop's corners moved: shift, scale, shear, turn and perspective in one warp, ``reach`` times as far."""
    height, width = image.shape
    step_x, step_y = reach * min(width, 2.5 * height) * 0.05, reach * height * 0.07
    shift_x, shift_y = dice.gauss(0, step_x), dice.gauss(0, step_y)
    wider, taller = dice.gauss(0.03, 0.04 * reach) * width, dice.gauss(0.02, 0.06 * reach) * height
    shear, rise = dice.gauss(0, 0.10 * reach) * height, dice.gauss(0, 0.06 * reach) * min(width, 2.5 * height)
    corners = []
    for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)):
        moved_x = x * width + shift_x + (x - 0.5) * 2 * wider + (y - 0.5) * shear + dice.gauss(0, step_x * 0.4)
        moved_y = y * height + shift_y + (y - 0.5) * 2 * taller + (x - 0.5) * rise + dice.gauss(0, step_y * 0.4)
        corners.append((moved_x, moved_y))
    target = np.array(((0, 0), (width, 0), (width, height), (0, height)), np.float32)
    matrix = cv2.getPerspectiveTransform(np.array(corners, np.float32), target)
    return cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _arched(image: Gray, dice: Random) -> Gray:
    """The baseline bent into a parabola: columns shifted up and down."""
    height, width = image.shape
    reach = int(height * dice.uniform(0.12, 0.5)) + 1
    image = cv2.copyMakeBorder(image, reach // 2, reach - reach // 2, 0, 0, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    u = np.linspace(-1, 1, width, dtype=np.float32)
    drop = np.float32(reach) * (u * u - np.float32(0.5)) * np.float32(dice.choice((1, 1, -1)))
    x = np.broadcast_to(np.arange(width, dtype=np.float32), (height + reach, width))
    y = np.arange(height + reach, dtype=np.float32)[:, None] - drop[None, :]
    return cv2.remap(image, np.ascontiguousarray(x), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _rippled(image: Gray, dice: Random) -> Gray:
    """A smooth random displacement, and letters pulled wider here and narrower there."""
    height, width = image.shape
    reach = np.float32(dice.uniform(0.01, 0.05) * height)
    grain = height * dice.uniform(0.3, 0.8)
    pull = np.float32(dice.uniform(0, 0.12) * height)
    phase = np.linspace(0, 2 * pi * dice.uniform(0.3, 1.2), width, dtype=np.float32) + np.float32(
        dice.uniform(0, 2 * pi)
    )
    x = np.arange(width, dtype=np.float32) + pull * np.sin(phase) + field((height, width), dice, grain) * reach
    y = np.arange(height, dtype=np.float32)[:, None] + field((height, width), dice, grain) * reach
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
