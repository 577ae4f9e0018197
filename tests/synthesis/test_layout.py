from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from crnn.synthesis.corpus import Text
from crnn.synthesis.fonts import Face, open_face
from crnn.synthesis.layout import Line, Shape, lay_out, rasterize


@pytest.fixture(scope="module")
def face(fonts: Path) -> Face:
    opened = open_face(fonts / "a.ttf")
    assert opened is not None
    return opened


def line(face: Face, text: str, *, small_capitals: bool = False, **shape: Any) -> Line:
    laid_out = lay_out(Text(text, small_capitals), face, Shape(**shape), Random(0))
    assert laid_out is not None
    return laid_out


def ink(laid_out: Line, scale: float = 60) -> np.ndarray:
    """The line's ink on a canvas that is its box with 5 pixels around it."""
    left, bottom, right, top = laid_out.box
    size = (round((right - left) * scale) + 10, round((top - bottom) * scale) + 10)
    return rasterize(laid_out, scale, size, (5 - left * scale, 5 + top * scale))


@pytest.mark.parametrize(
    "shape", [{}, {"arch": 1.5}, {"arch": -1.0}, {"rotation": 0.3}, {"slant": 0.3}, {"stretch": 0.6}]
)
def test_the_ink_fills_the_box(face: Face, shape: dict[str, Any]) -> None:
    rows, columns = np.nonzero(ink(line(face, "HENS", **shape)) > 100)
    canvas = ink(line(face, "HENS", **shape))
    assert 3 <= rows.min() <= 9 and 3 <= columns.min() <= 9
    slack = 12 if shape else 3  # the box of a turned glyph holds its turned box, not its ink
    assert canvas.shape[0] - rows.max() < 5 + slack and canvas.shape[1] - columns.max() < 5 + slack


def test_an_arch_lifts_the_middle(face: Face) -> None:
    def rise(arch: float) -> float:
        glyphs = line(face, "HHHHH", arch=arch).glyphs
        return glyphs[2][6] - (glyphs[0][6] + glyphs[4][6]) / 2

    assert rise(1.5) > 0.1
    assert rise(-1.5) < -0.1
    assert rise(0.0) == pytest.approx(0)


def test_an_arch_turns_the_ends_outwards(face: Face) -> None:
    first, *_, last = line(face, "HHHHH", arch=1.5).glyphs
    assert first[2] > 0 > last[2]  # yx: anticlockwise on the left, clockwise on the right


def test_tracking_widens_by_so_much_a_letter(face: Face) -> None:
    assert line(face, "HHHH", tracking=0.2).width - line(face, "HHHH").width == pytest.approx(0.6, abs=0.01)


def test_small_capitals_are_capitals_of_less_height(face: Face) -> None:
    small, large = line(face, "xx", small_capitals=True), line(face, "XX")
    assert [glyph[0] for glyph in small.glyphs] == [glyph[0] for glyph in large.glyphs]
    assert small.height == pytest.approx(0.78 * large.height, rel=0.01)


def test_a_letter_may_have_two_capitals(face: Face) -> None:
    small, large = line(face, "Maß", small_capitals=True), line(face, "MASS")
    assert [glyph[0] for glyph in small.glyphs] == [glyph[0] for glyph in large.glyphs]


def test_a_character_the_font_lacks_is_not_drawn_as_a_box(face: Face) -> None:
    assert lay_out(Text("字", False), face, Shape(), Random(0)) is None


def test_a_character_without_ink_is_not_drawn(fonts: Path, tmp_path: Path) -> None:
    font = TTFont(fonts / "a.ttf")
    font["glyf"]["z"] = font["glyf"]["space"]
    font.save(tmp_path / "blank.ttf")
    face = open_face(tmp_path / "blank.ttf")
    assert face is not None and face.has("zoo")
    assert lay_out(Text("zoo", False), face, Shape(), Random(0)) is None
    assert lay_out(Text("a moo", False), face, Shape(), Random(0)) is not None  # a space has none either
