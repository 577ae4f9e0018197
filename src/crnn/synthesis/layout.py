"""Where the glyphs of a word stand: shaping, spacing, arched and wavy baselines, slant, rotation; and their ink."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin
from random import Random

import numpy as np
import uharfbuzz as hb
from numpy.typing import NDArray

from crnn.synthesis.corpus import Text
from crnn.synthesis.fonts import Face

Mask = NDArray[np.uint8]

SMALL_CAPITAL = 0.78  # height of a small capital in capitals


@dataclass(frozen=True)
class Shape:
    """How one line is bent. Angles in radians, lengths in em, anticlockwise and upwards positive."""

    tracking: float = 0.0  # extra space after each glyph
    arch: float = 0.0  # angle the baseline turns through; positive arches upwards
    wave: float = 0.0  # height of a sine baseline
    phase: float = 0.0
    waves: float = 1.0
    stretch: float = 1.0  # of the width
    slant: float = 0.0  # shear of the glyphs
    shear: float = 0.0  # rise of the baseline per width, the glyphs staying upright
    rotation: float = 0.0
    jitter: float = 0.0  # spread of each glyph's height, size and turn


def sample_shape(dice: Random) -> Shape:
    """Half of all words are plain; the rest spaced, arched, wavy, stretched, slanted, turned, or several of these."""
    arch = wave = shear = rotation = slant = jitter = 0.0
    form = dice.random()
    if form < 0.12:
        arch = dice.choice((1, 1, 1, -1)) * dice.uniform(0.35, 2.2)
    elif form < 0.15:
        wave = dice.uniform(0.04, 0.22)
    if dice.random() < 0.45:
        rotation = dice.gauss(0, 0.055)
        shear = dice.gauss(0, 0.05)
    elif dice.random() < 0.10:
        rotation = dice.gauss(0, 0.16)
    if dice.random() < 0.12:
        slant = dice.uniform(-0.15, 0.35)
    if dice.random() < 0.06:
        jitter = dice.uniform(0.02, 0.09)
    spacing = dice.random()
    tracking = 0.0
    if spacing < 0.12:
        tracking = dice.uniform(0.04, 0.14)
    elif spacing < 0.17:
        tracking = dice.uniform(0.14, 0.5)
    elif spacing < 0.27:
        tracking = dice.uniform(-0.05, 0.0)
    stretch = 1.0 if dice.random() < 0.6 else dice.uniform(0.65, 1.5)
    return Shape(
        tracking, arch, wave, dice.uniform(0, 2 * pi), dice.uniform(0.4, 1.3), stretch, slant, shear, rotation, jitter
    )


Placement = tuple[int, float, float, float, float, float, float]  # glyph, then the affine xx, yx, xy, yy, dx, dy in em
Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Line:
    """A laid-out word in em, y upwards."""

    face: Face
    glyphs: tuple[Placement, ...]
    box: Box

    @property
    def width(self) -> float:
        """In em."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """In em."""
        return self.box[3] - self.box[1]


def lay_out(text: Text, face: Face, shape: Shape, dice: Random) -> Line | None:
    """Places every glyph of ``text``; None where the font lacks one of its characters or draws nothing for it."""
    if not face.has(text.shown) or not all(map(face.has_ink, text.shown)):
        return None
    lower = [character.islower() for character in text.drawn for _ in character.upper()]  # "ß" makes two capitals
    buffer = hb.Buffer()
    buffer.add_str(text.shown)
    buffer.guess_segment_properties()
    font, em = face.font, 1.0 / face.units
    # With letters spaced, arched or jittered a ligature would tear; contextual swashes stay, they are the font's look.
    loose = shape.tracking > 0 or shape.arch or shape.wave or shape.jitter or text.small_capitals
    hb.shape(font, buffer, {"liga": False, "clig": False} if loose else {})
    pens: list[tuple[int, float, float, float, float]] = []  # glyph, pen x, advance, rise, size
    x = 0.0
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        small = text.small_capitals and lower[info.cluster]
        size = SMALL_CAPITAL if small else 1.0
        advance = position.x_advance * em * size
        pens.append((info.codepoint, x + position.x_offset * em * size, advance, position.y_offset * em, size))
        x += advance + shape.tracking
    if x <= 0:
        return None
    glyphs = tuple(_place(pen, x, shape, dice) for pen in pens)
    box = _box(face, glyphs)
    if box is None or box[2] - box[0] < 0.02 or box[3] - box[1] < 0.02:
        return None
    return Line(face, glyphs, box)


def _place(pen: tuple[int, float, float, float, float], length: float, shape: Shape, dice: Random) -> Placement:
    glyph, x, advance, rise, size = pen
    middle = x + advance / 2 - length / 2  # of this glyph, from the middle of the line
    along, turn = middle, 0.0
    if shape.arch:
        radius = length / abs(shape.arch)
        turn = -middle / radius
        along = -radius * sin(turn)
        drop = radius * (1 - cos(turn))
        rise += -drop if shape.arch > 0 else drop
        turn = turn if shape.arch > 0 else -turn
    if shape.wave:
        k = 2 * pi * shape.waves / length
        rise += shape.wave * sin(k * middle + shape.phase)
        turn += shape.wave * k * cos(k * middle + shape.phase) * 0.7
    if shape.jitter:
        rise += dice.gauss(0, shape.jitter)
        turn += dice.gauss(0, shape.jitter)
        size *= 1 + dice.gauss(0, shape.jitter)
    # Glyph coordinates: centre on the advance, size, slant, turn, move; then the whole line: stretch, shear, rotation.
    c, s = cos(turn) * size, sin(turn) * size
    xx, yx, xy, yy = c, s, c * shape.slant - s, s * shape.slant + c
    dx, dy = along - xx * advance / 2 / size, rise - yx * advance / 2 / size
    return glyph, *_whole(xx, yx, shape), *_whole(xy, yy, shape), *_whole(dx, dy, shape)


def _whole(x: float, y: float, shape: Shape) -> tuple[float, float]:
    x *= shape.stretch
    y += shape.shear * x
    c, s = cos(shape.rotation), sin(shape.rotation)
    return c * x - s * y, s * x + c * y


def _box(face: Face, glyphs: tuple[Placement, ...]) -> Box | None:
    left = bottom = float("inf")
    right = top = -float("inf")
    for glyph, xx, yx, xy, yy, dx, dy in glyphs:
        extents = face.extents(glyph)
        if extents is None:
            continue
        x, y, half_width, half_height = extents
        reach_x = abs(xx) * half_width + abs(xy) * half_height
        reach_y = abs(yx) * half_width + abs(yy) * half_height
        x, y = xx * x + xy * y + dx, yx * x + yy * y + dy
        left, right = min(left, x - reach_x), max(right, x + reach_x)
        bottom, top = min(bottom, y - reach_y), max(top, y + reach_y)
    return (left, bottom, right, top) if left < right else None


@cache
def _rasterizer() -> hb.RasterDraw:
    return hb.RasterDraw()  # one a process; it keeps no state between words


def rasterize(line: Line, scale: float, size: tuple[int, int], origin: tuple[float, float]) -> Mask:
    """Coverage of the line's ink: uint8[height, width], 255 inside the letters.

    Args:
        scale: pixels per em.
        size: (width, height) of the canvas.
        origin: where the line's (0, 0) stands, in pixels from the canvas's top left corner.
    """
    width, height = size
    draw = _rasterizer()
    em = scale / line.face.units
    font = line.face.font
    for glyph, xx, yx, xy, yy, dx, dy in line.glyphs:
        draw.transform = (xx * em, yx * em, xy * em, yy * em, dx * scale, dy * scale)
        draw.draw_glyph(font, glyph)
    image = draw.render()
    canvas = np.zeros((height, width), np.uint8)
    if image is None or not image.extents.width or not image.extents.height:
        return canvas
    extents = image.extents
    ink = np.frombuffer(image.buffer, np.uint8).reshape(extents.height, extents.stride)[::-1, : extents.width]
    left = round(origin[0]) + extents.x_origin
    top = round(origin[1]) - extents.y_origin - extents.height
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + extents.width, width), min(top + extents.height, height)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = ink[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas
