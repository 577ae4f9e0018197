"""Draws the pictures of examples/, whose names are the words in them: `python scripts/draw_examples.py`.

Needs the fonts DejaVu and Lobster Two where Pillow finds fonts by name. The pictures are as different as files from
users are: colours, transparency, a palette, 16 bits, a rotation noted in EXIF; tilted, seen from the side, blurred,
faint, noisy, tiny.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

OUT = Path(__file__).resolve().parent.parent / "examples"
SANS, BOLD, MONO = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf"
SERIF, NARROW, SCRIPT = "DejaVuSerif-Bold.ttf", "DejaVuSansCondensed-Bold.ttf", "LobsterTwo-BoldItalic.otf"
RNG = np.random.default_rng(2015)
Colour = str | int | tuple[int, ...]


def board(text: str, font: str, size: int, ink: Colour, ground: Colour, margin: float = 0.35, mode: str = "RGB") -> Any:
    """The text in the middle of a plain board."""
    face = ImageFont.truetype(font, size)
    left, top, right, bottom = face.getbbox(text)
    pad = round(size * margin)
    picture = Image.new(mode, (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), ground)
    ImageDraw.Draw(picture).text((pad - left, pad - top), text, ink, face)
    return picture


def framed(picture: Any, colour: Colour) -> Any:
    """A line around the board, a little inside its edge."""
    box = (4, 4, picture.width - 5, picture.height - 5)
    ImageDraw.Draw(picture).rounded_rectangle(box, 9, outline=colour, width=3)
    return picture


def seen_from_the_side(picture: Any, near: float, far: float) -> Any:
    """The right edge farther away: shrunk from ``near`` to ``far`` of the height, on a gray wall."""
    width, height = picture.size
    a, b = (1 - near) / 2 * height, (1 - far) / 2 * height
    corners = [(0, a), (width, b), (width, height - b), (0, height - a)]
    source = [(0, 0), (width, 0), (width, height), (0, height)]
    rows = []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    solved = np.linalg.solve(np.array(rows, float), np.array(source, float).ravel())
    return picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, solved.tolist(), Image.Resampling.BICUBIC, fillcolor=(120, 122, 125)
    )


def noisy(picture: Any, deviation: float) -> Any:
    """Grain, as of a photograph in the dark."""
    values = np.asarray(picture, np.float32)
    return Image.fromarray(np.clip(values + RNG.normal(0, deviation, values.shape), 0, 255).astype(np.uint8))


def moved(picture: Any, length: int) -> Any:
    """The camera moved sideways by ``length`` pixels."""
    values = np.asarray(picture, np.float32)
    shifted = [np.roll(values, shift, axis=1) for shift in range(-(length // 2), length - length // 2)]
    return Image.fromarray(np.mean(shifted, axis=0).astype(np.uint8))


def main() -> None:
    """Draw them all."""
    OUT.mkdir(exist_ok=True)
    sign = framed(board("HARBOUR", NARROW, 64, "white", (20, 60, 130)), "white")
    sign.save(OUT / "harbour.jpg", quality=88)
    board("Bakery", SCRIPT, 80, (90, 45, 15, 255), (0, 0, 0, 0), mode="RGBA").save(OUT / "bakery.png")  # transparent
    board("regency", SERIF, 60, (212, 175, 80), (15, 55, 40)).save(OUT / "regency.jpg", quality=90)
    plate = framed(board("KL58XWT", MONO, 66, "black", (245, 205, 40)), "black")
    seen_from_the_side(plate, 1.0, 0.85).save(OUT / "kl58xwt.jpg", quality=80)
    number = np.asarray(board("904173", MONO, 40, 60, 190, mode="L"), np.uint16)
    Image.fromarray(number * 257).save(OUT / "904173.png")  # 16 bits
    tube = board("OPEN", BOLD, 70, (255, 60, 90), "black")
    glow = Image.blend(tube.filter(ImageFilter.GaussianBlur(9)), tube, 0.6)
    glow.quantize(32).save(OUT / "open.png")  # a palette
    small = board("Museum", SERIF, 60, (40, 40, 45), (205, 200, 190)).filter(ImageFilter.GaussianBlur(3))
    small.resize((small.width // 4, small.height // 4)).save(OUT / "museum.jpg", quality=60)  # tiny and blurred
    price = board("SALE50", BOLD, 60, "white", (200, 25, 30), 0.45)
    price.rotate(5, Image.Resampling.BICUBIC, expand=True, fillcolor=(200, 25, 30)).save(OUT / "sale50.png")  # tilted
    exif = Image.Exif()
    exif[0x0112] = 6  # as phones store it: turned, with a note
    shelf = noisy(board("Library", SANS, 62, (30, 30, 30), (225, 215, 190)), 9)
    shelf.transpose(Image.Transpose.ROTATE_90).save(OUT / "library.jpg", quality=75, exif=exif)
    wall = board("STATION", SERIF, 70, (235, 235, 230), (110, 40, 35), 0.5)
    seen_from_the_side(wall, 1.0, 0.45).save(OUT / "station.jpg", quality=80)  # steep
    faint = board("coffee", SCRIPT, 76, (122, 112, 105), (146, 138, 128))
    noisy(faint, 7).save(OUT / "coffee.jpg", quality=70)  # low contrast in grain
    moved(board("Airport", SANS, 58, (25, 25, 25), (240, 190, 20)), 11).save(OUT / "airport.png")  # a moving camera


if __name__ == "__main__":
    main()
