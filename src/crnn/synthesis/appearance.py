"""What ink and ground look like: gray levels, fills, outlines, shadows, extrusion, dots, photographs, light."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.synthesis.noise import field

Gray = NDArray[np.float32]  # height x width, 0 black to 255 white
Mask = NDArray[np.uint8]  # height x width, coverage, 255 inside the ink
Photograph = Callable[[Random, int, int], NDArray[np.uint8]]  # (dice, height, width) -> a word-free crop


def paint(mask: Mask, clutter: Mask | None, dice: Random, photograph: Photograph | None) -> tuple[Gray, float]:
    """A gray picture of ``mask`` and its contrast (gray levels between ink and ground).

    ``clutter`` is ink that is seen but not labelled (the neighbours of the word).
    """
    ground_level, ink_level, contrast = _levels(dice)
    picture = _ground(mask.shape, ground_level, contrast, dice, photograph)
    em = max(6.0, mask.shape[0] * 0.7)
    if clutter is not None:
        level = ink_level if dice.random() < 0.8 else dice.uniform(0, 255)
        _lay(picture, clutter, level)
    style = dice.random()
    if style < 0.05:
        _extrude(picture, mask, ground_level, em, dice)
    elif style < 0.13:
        _shadow(picture, mask, ground_level, em, dice)
    elif style < 0.19:
        _outline(picture, mask, ground_level, ink_level, em, dice)
    elif style < 0.215:
        mask = _hollow(mask, em, dice)
    elif style < 0.225:
        _glow(picture, mask, ink_level, em)
    fill = dice.random()
    if fill < 0.12:
        other = ink_level + dice.uniform(-0.45, 0.45) * contrast
        _lay_fill(picture, mask, ramp(mask.shape, ink_level, other, dice))
    elif fill < 0.20:
        roughness = dice.uniform(0.05, 0.22) * contrast
        _lay_fill(picture, mask, ink_level + field(mask.shape, dice, dice.uniform(1.5, 6)) * roughness)
    elif fill < 0.235:
        worn = _worn(mask, dice)
        _lay(picture, worn, ink_level)
    elif fill < 0.26:
        _emboss(picture, mask, ground_level, em, dice)
    else:
        _lay(picture, mask, ink_level)
    if dice.random() < 0.04:
        _rule(picture, ink_level, dice)
    if dice.random() < 0.22:
        _light(picture, dice)
    return picture, contrast


def _levels(dice: Random) -> tuple[float, float, float]:
    """Levels of ground and ink, and their difference. Light on dark as often as dark on light."""
    kind = dice.random()
    if kind < 0.06:
        contrast = dice.uniform(28, 50)
    elif kind < 0.30:
        contrast = dice.uniform(50, 115)
    else:
        contrast = dice.uniform(100, 250)
    low = dice.choice((0.0, 0.5, 1.0)) if dice.random() < 0.5 else dice.random()
    dark = low * (255 - contrast)
    light = dark + contrast
    return (light, dark, contrast) if dice.random() < 0.5 else (dark, light, contrast)


def _ground(shape: tuple[int, int], level: float, contrast: float, dice: Random, photograph: Photograph | None) -> Gray:
    kind = dice.random()
    if kind < 0.48:
        return np.full(shape, level, np.float32)
    if kind < 0.64:
        return ramp(shape, level, level + dice.uniform(-0.5, 0.5) * contrast, dice)
    if kind < 0.74 or photograph is None:
        roughness = dice.uniform(0.02, 0.13) * contrast
        return np.float32(level) + field(shape, dice, dice.uniform(1.0, 8.0)) * np.float32(roughness)
    picture = photograph(dice, *shape).astype(np.float32)
    mean, spread = (float(value[0, 0]) for value in cv2.meanStdDev(picture))
    # A photograph keeps its texture, but never so much of it that the ink drowns.
    gain = min(1.0, dice.uniform(0.08, 0.28) * contrast / max(spread, 1.0))
    picture -= np.float32(mean)
    picture *= np.float32(gain)
    picture += np.float32(level)
    return picture


def ramp(shape: tuple[int, int], start: float, end: float, dice: Random) -> Gray:
    """A linear gradient from ``start`` to ``end`` in a random direction."""
    height, width = shape
    along_x = dice.uniform(-1, 1)
    along_y = dice.uniform(-1, 1)
    x = np.linspace(-along_x, along_x, width, dtype=np.float32)
    y = np.linspace(-along_y, along_y, height, dtype=np.float32)[:, None]
    share = (x + y) / np.float32(2 * (abs(along_x) + abs(along_y)) + 1e-6) + np.float32(0.5)
    picture: Gray = np.float32(start) + share * np.float32(end - start)
    return picture


def _lay(picture: Gray, mask: Mask, level: float) -> None:
    cover = mask.astype(np.float32)
    cover *= np.float32(1 / 255)
    picture += cover * (np.float32(level) - picture)


def _lay_fill(picture: Gray, mask: Mask, fill: Gray) -> None:
    cover = mask.astype(np.float32)
    cover *= np.float32(1 / 255)
    picture += cover * (fill - picture)


def _shifted(mask: Mask, dx: float, dy: float) -> Mask:
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(mask, move, (mask.shape[1], mask.shape[0]))  # type: ignore[return-value]


def _grown(mask: Mask, radius: float) -> Mask:
    side = 2 * max(1, round(radius)) + 1
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))  # type: ignore[return-value]


def _offset(em: float, dice: Random, least: float, most: float) -> tuple[float, float]:
    reach = dice.uniform(least, most) * em
    return dice.choice((-1, 1, 1)) * reach * dice.uniform(0.3, 1), dice.choice((-1, 1, 1, 1)) * reach * dice.uniform(
        0.3, 1
    )


def _shadow(picture: Gray, mask: Mask, ground: float, em: float, dice: Random) -> None:
    shadow = _shifted(mask, *_offset(em, dice, 0.03, 0.11))
    if dice.random() < 0.6:
        shadow = cv2.GaussianBlur(shadow, (0, 0), dice.uniform(0.4, 0.05 * em + 0.5))  # type: ignore[assignment]
    _lay(picture, shadow, ground * dice.uniform(0.25, 0.75) if dice.random() < 0.85 else ground + 0.5 * (255 - ground))


def _extrude(picture: Gray, mask: Mask, ground: float, em: float, dice: Random) -> None:
    dx, dy = _offset(em, dice, 0.06, 0.20)
    steps = min(6, max(2, round(max(abs(dx), abs(dy)))))
    side = mask
    for step in range(1, steps + 1):
        side = cv2.max(side, _shifted(mask, dx * step / steps, dy * step / steps))  # type: ignore[assignment]
    _lay(picture, side, min(255.0, max(0.0, ground + dice.uniform(-90, 60))))


def _outline(picture: Gray, mask: Mask, ground: float, ink: float, em: float, dice: Random) -> None:
    """A border around the letters, of a level away from both ink and ground as often as not."""
    level = dice.choice((0.0, 255.0, dice.uniform(0, 255), (ground + ink) / 2))
    _lay(picture, _grown(mask, dice.uniform(0.02, 0.07) * em), level)


def _hollow(mask: Mask, em: float, dice: Random) -> Mask:
    """The letters' contour alone."""
    radius = max(1, round(dice.uniform(0.015, 0.04) * em))
    return cv2.subtract(_grown(mask, radius), mask)  # type: ignore[return-value]


def _glow(picture: Gray, mask: Mask, ink: float, em: float) -> None:
    _lay(picture, cv2.GaussianBlur(mask, (0, 0), 0.10 * em), ink)  # type: ignore[arg-type]


def _worn(mask: Mask, dice: Random) -> Mask:
    """Ink with holes and thin places, as print on a rough ground."""
    holes = field(mask.shape, dice, dice.uniform(1.0, 2.5))
    kept = np.clip((holes + np.float32(dice.uniform(0.6, 1.3))) * np.float32(2.5), 0.25, 1)
    worn: Mask = (mask * kept).astype(np.uint8)
    return worn


def _emboss(picture: Gray, mask: Mask, ground: float, em: float, dice: Random) -> None:
    """Raised or cut letters of the ground's own colour: one side lit, the other in shade."""
    dx, dy = _offset(em, dice, 0.03, 0.07)
    depth = dice.uniform(45, 110)
    _lay(picture, _shifted(mask, dx, dy), max(0.0, ground - depth))
    _lay(picture, _shifted(mask, -dx, -dy), min(255.0, ground + depth))
    _lay(picture, mask, min(255.0, max(0.0, ground + dice.choice((-1, 1)) * dice.uniform(10, 45))))


def _rule(picture: Gray, ink: float, dice: Random) -> None:
    """A line above or below the word, as frames and underlines leave in a crop."""
    height = picture.shape[0]
    at = round(height * (dice.uniform(0.0, 0.06) if dice.random() < 0.4 else dice.uniform(0.92, 0.99)))
    thick = max(1, round(height * dice.uniform(0.015, 0.05)))
    picture[at : at + thick] = ink if dice.random() < 0.6 else dice.uniform(0, 255)


def _light(picture: Gray, dice: Random) -> None:
    """Uneven light: the picture multiplied by a gradient or by a soft spot."""
    shape = (picture.shape[0], picture.shape[1])
    if dice.random() < 0.7:
        picture *= ramp(shape, dice.uniform(0.55, 1.0), dice.uniform(0.8, 1.25), dice)
        return
    height, width = shape
    x = (np.arange(width, dtype=np.float32) - np.float32(dice.uniform(0, width))) / np.float32(
        height * dice.uniform(0.6, 2.5)
    )
    y = (np.arange(height, dtype=np.float32) - np.float32(dice.uniform(0, height))) / np.float32(
        height * dice.uniform(0.5, 1.5)
    )
    picture += np.float32(dice.uniform(-70, 110)) * np.exp(-x * x) * np.exp(-y * y)[:, None]


def warped(masks: list[Mask], dice: Random) -> list[Mask]:
    """The same small perspective or elastic distortion of all ``masks``; most words keep their shape."""
    kind = dice.random()
    if kind >= 0.19:
        return masks
    height, width = masks[0].shape
    if kind < 0.15:
        reach_x, reach_y = 0.10 * min(width, 2 * height), 0.14 * height
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        moves = [[dice.uniform(-reach_x, 0.3 * reach_x), dice.uniform(-0.3 * reach_y, reach_y)] for _ in range(4)]
        inward = np.array(
            [[-1, 1], [1, 1], [1, -1], [-1, -1]], np.float32
        )  # mostly into the crop, so that no letter is lost
        matrix = cv2.getPerspectiveTransform(corners, corners + np.array(moves, np.float32) * inward)
        return [cv2.warpPerspective(mask, matrix, (width, height)) for mask in masks]  # type: ignore[misc]
    reach = np.float32(dice.uniform(0.01, 0.03) * height)
    grain = height * dice.uniform(0.25, 0.6)
    x = np.arange(width, dtype=np.float32)[None, :] + field((height, width), dice, grain) * reach
    y = np.arange(height, dtype=np.float32)[:, None] + field((height, width), dice, grain) * reach
    return [cv2.remap(mask, x, y, cv2.INTER_LINEAR) for mask in masks]  # type: ignore[misc]


def dotted(mask: Mask, dice: Random) -> Mask:
    """The letters as a matrix of lamps or punched dots, a dozen or more to the height."""
    height, width = mask.shape
    cell = max(3, round(height / dice.uniform(12, 18)))
    rows, columns = -(-height // cell), -(-width // cell)
    whole = cv2.copyMakeBorder(mask, 0, rows * cell - height, 0, columns * cell - width, cv2.BORDER_CONSTANT)
    lit = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA) > dice.randrange(75, 120)
    lamp = np.zeros((cell, cell), np.uint8)
    if dice.random() < 0.7:
        cv2.circle(lamp, (cell // 2, cell // 2), max(1, round(cell * dice.uniform(0.36, 0.5))), 255, -1, cv2.LINE_AA)
    else:
        lamp[: cell - 1, : cell - 1] = 255
    dots = np.kron(lit.astype(np.uint8), lamp)[:height, :width]
    return np.ascontiguousarray(dots) if np.count_nonzero(lit) > 3 else mask


def visibility(mask: Mask, picture: NDArray[np.uint8]) -> tuple[float, float]:
    """How clearly ``picture`` shows the ink of ``mask``.

    The absolute correlation of the two, 0 to 1, and the picture's standard deviation in gray levels.
    """
    ink, seen = mask.ravel().astype(np.float32), picture.ravel().astype(np.float32)
    ink -= np.float32(cv2.mean(mask)[0])
    seen -= np.float32(cv2.mean(picture)[0])
    variance = float(seen @ seen)
    spread = float(ink @ ink) * variance
    correlation = abs(float(ink @ seen)) / spread**0.5 if spread > 0 else 0.0
    return correlation, (variance / seen.size) ** 0.5
