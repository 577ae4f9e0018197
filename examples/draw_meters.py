"""Draws seven-segment displays, such as meters and scales have them, and writes what they show to labels.csv.

    python examples/draw_meters.py FOLDER [--count 1000] [--seed 0] [--digits 8]

Picture n is a function of the seed and n alone. Unlit segments shine through, displays are slanted, dark on bright or
bright on dark, out of focus, noisy: nothing that the bundled weights were taught.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Segments a to g as (start, end), where a corner is (column, row) of a digit two units wide and four high.
SEGMENTS = {
    "a": ((0, 0), (2, 0)),
    "b": ((2, 0), (2, 2)),
    "c": ((2, 2), (2, 4)),
    "d": ((0, 4), (2, 4)),
    "e": ((0, 2), (0, 4)),
    "f": ((0, 0), (0, 2)),
    "g": ((0, 2), (2, 2)),
}
LIT = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc",
    "8": "abcdefg", "9": "abcdfg", "-": "g",
}  # fmt: skip
FINE = 4  # drawn so many times larger, then scaled down


def reading(dice: Random, most: int) -> str:
    """What a display shows: up to ``most`` digits, often with a decimal point, sometimes below zero."""
    digits = "".join(dice.choices("0123456789", k=dice.randint(min(3, most), most)))
    point = dice.randint(1, min(3, len(digits) - 1)) if dice.random() < 0.6 and len(digits) > 1 else 0
    text = f"{digits[:-point]}.{digits[-point:]}" if point else digits
    return "-" + text if dice.random() < 0.15 else text


def draw(text: str, dice: Random) -> Image.Image:
    """A picture of a display that shows ``text``, gray."""
    height = dice.uniform(20, 48) * FINE
    unit, thick = height / 4, height * dice.uniform(0.07, 0.14)
    slant, space = dice.uniform(0.0, 0.16), dice.uniform(0.30, 0.60) * height / 2
    ground, ink = (dice.uniform(140, 235), dice.uniform(5, 70))
    if dice.random() < 0.5:
        ground, ink = 255 - ground, 255 - ink
    ghost = ground + (ink - ground) * dice.choice((0.0, dice.uniform(0.03, 0.25)))
    left, top = (dice.uniform(0.1, 0.5) * height for _ in range(2))
    cells = sum(character != "." for character in text)
    right = left + cells * (2 * unit + space)
    size = (round(right + left + slant * height), round(height + 2 * top))
    picture = Image.new("L", size, round(ground))
    pen = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        return x + slant * (height - y), y + top

    def segment(x: float, name: str, shade: float) -> None:
        (x0, y0), (x1, y1) = ((x + column * unit, row * unit) for column, row in SEGMENTS[name])
        half = thick / 2
        if y0 == y1:
            a, b = x0 + half * 1.2, x1 - half * 1.2
            corners = [(a, y0), (a + half, y0 - half), (b - half, y0 - half)]
            corners += [(b, y0), (b - half, y0 + half), (a + half, y0 + half)]
        else:
            a, b = y0 + half * 1.2, y1 - half * 1.2
            corners = [(x0, a), (x0 + half, a + half), (x0 + half, b - half)]
            corners += [(x0, b), (x0 - half, b - half), (x0 - half, a + half)]
        pen.polygon([place(*corner) for corner in corners], fill=round(shade))

    x = left
    for k, character in enumerate(text):
        if character == ".":
            continue
        for name in SEGMENTS:
            segment(x, name, ink if name in LIT[character] else ghost)
        dot = text[k + 1 : k + 2] == "."
        middle, below = place(x + 2 * unit + space / 2, height)
        radius = thick * 0.7
        box = (middle - radius, below - radius, middle + radius, below + radius)
        pen.rectangle(box, fill=round(ink if dot else ghost))
        x += 2 * unit + space

    small = picture.resize((max(8, size[0] // FINE), max(8, size[1] // FINE)), Image.Resampling.BOX)
    small = small.filter(ImageFilter.GaussianBlur(dice.uniform(0, 0.9)))
    light = np.linspace(dice.uniform(-25, 25), dice.uniform(-25, 25), small.width)
    noise = np.random.default_rng(dice.getrandbits(32)).normal(0, dice.uniform(0, 8), (small.height, small.width))
    return Image.fromarray(np.clip(np.asarray(small) + light + noise, 0, 255).astype(np.uint8))


def main() -> None:
    """Write the pictures, then the table of their labels."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits", type=int, default=8, help="the most that a display shows")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(options.count):
        dice = Random(f"{options.seed}/{n}")
        text = reading(dice, options.digits)
        draw(text, dice).save(options.folder / f"{n:05}.png")
        rows.append((f"{n:05}.png", text))
    with (options.folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "text"), *rows])


if __name__ == "__main__":
    main()
