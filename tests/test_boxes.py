from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from crnn.boxes import rectify
from crnn.errors import OptionError

LIMIT = 1_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90), np.uint8))


def upright(x0: float, y0: float, x1: float, y1: float) -> np.ndarray[Any, Any]:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


@pytest.mark.parametrize("box", [(0, 0, 90, 60), (10, 5, 60, 30), (89, 59, 90, 60), (0, 20, 1, 60)])
def test_an_upright_box_is_a_plain_crop(box: tuple[int, int, int, int]) -> None:
    np.testing.assert_array_equal(np.asarray(rectify(NOISE, upright(*box), LIMIT)), np.asarray(NOISE.crop(box)))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_first_corner_is_the_texts_top_left(turns: int) -> None:
    box = np.roll(upright(10, 5, 60, 30), -turns, axis=0)
    # the text's left edge is the box's top, right or bottom, so upright text appears after that many quarter turns
    expected = np.rot90(np.asarray(NOISE.crop((10, 5, 60, 30))), turns)
    np.testing.assert_array_equal(np.asarray(rectify(NOISE, box, LIMIT)), expected)


def test_perspective_is_undone() -> None:
    # A smooth picture seen in perspective, made by evaluating it where the inverse map leads.
    corners = np.array([(20.0, 15.0), (150.0, 40.0), (140.0, 90.0), (30.0, 110.0)])
    width, height = 134, 96  # its longest edges, about

    def scene(x: Any, y: Any) -> Any:
        return 128 + 100 * np.sin(6 * x / width) * np.cos(4 * y / height)

    # homography from the corners to the rectangle, by the direct linear transform (null vector of 8 x 9)
    rows = []
    for (u, v), (x, y) in zip(corners, [(0, 0), (width, 0), (width, height), (0, height)], strict=True):
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v, -x], [0, 0, 0, u, v, 1, -y * u, -y * v, -y]]
    h = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    v, u = np.mgrid[0:130, 0:180] + 0.5
    x, y, w = np.einsum("ij,jkl->ikl", h, np.stack([u, v, np.ones_like(u)]))
    picture = Image.fromarray(np.clip(np.rint(scene(x / w, y / w)), 0, 255).astype(np.uint8))

    result = np.asarray(rectify(picture, corners, LIMIT), float)
    rows_out, columns_out = result.shape
    y, x = np.mgrid[0:rows_out, 0:columns_out] + 0.5
    expected = scene(x * width / columns_out, y * height / rows_out)
    assert np.abs(result - expected)[2:-2, 2:-2].max() < 3
    flat = np.asarray(picture.resize((columns_out, rows_out)), float)
    assert np.abs(flat - expected).max() > 50  # that is, there was something to undo


def test_beyond_the_picture_its_border_goes_on() -> None:
    result = np.asarray(rectify(NOISE, upright(-5, -3, 95, 64), LIMIT))
    np.testing.assert_array_equal(result, np.pad(np.asarray(NOISE), ((3, 4), (5, 5)), mode="edge"))


def test_the_longer_edges_give_the_size() -> None:
    assert rectify(NOISE, [(0, 0), (50, 0), (30, 30), (0, 40)], LIMIT).size == (50, 40)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (upright(10, 10, 50, 30)[::-1], "clockwise"),
        (upright(10, 10, 10, 30), "clockwise"),
        (upright(10, 10, 50, 30)[[0, 2, 1, 3]], "clockwise"),  # crosses itself
        ([(0, 0), (40, 0), (9, 9), (0, 40)], "convex"),
        (upright(10, 10, 50, 30)[:3], r"shape \[3, 2\]"),
        ((10, 10, 50, 30), r"shape \[4\]"),
        ("abcd", "four corners"),
        ([(0, 0), (40, 0), (40,), (0, 40)], "four corners"),
        (upright(0, 0, np.nan, 30), "numbers of pixels"),
        (upright(0, 0, np.inf, 30), "numbers of pixels"),
        (upright(-50, 0, 0, 30), "outside the picture of 90 x 60"),
        (upright(90, 0, 100, 30), "outside the picture of 90 x 60"),
        (upright(0, -9, 50, -1), "outside the picture of 90 x 60"),
        (upright(-1e6, -1e6, 1e6, 1e6), "pixel_limit"),
        ([(0, 30), (5e4, 29.9), (1e5, 30), (5e4, 30.1)], "pixel_limit"),  # thin, but 50,000 pixels wide and high
    ],
    ids=str,
)
def test_what_is_no_box(box: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        rectify(NOISE, box, LIMIT)


def test_a_box_of_no_area_to_speak_of() -> None:
    with pytest.raises(OptionError, match="no area to speak of"):
        rectify(Image.new("L", (60, 20)), np.array([[0, 0], [50, 0], [50, 1e-300], [0, 1e-300]]), 1000)
