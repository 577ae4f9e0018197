"""Finds words in pictures that nobody has labelled, and keeps those that two larger readers read alike.

    python examples/label_by_agreement.py PICTURES FOLDER

PICTURES is a folder of photographs, scans or drawings (.png, .jpg, .webp, .svg). FOLDER gets a crop of each word and
their labels.csv, which ``crnn data build`` takes. PP-OCRv6 finds the words and reads them, PP-OCRv4 reads them again:

    pip install rapidocr==3.10.0 rapidocr-onnxruntime==1.4.4 resvg-py==0.5.0
"""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST = 352  # pixels of a picture's longer side: words of logos are large, small print is not worth its errors
LOWEST = 12  # pixels of a word
HIGHEST = 64  # pixels of a crop that is kept; the network reads 32
SUREST = (0.85, 0.8)  # the least confidence of the one who finds words and of the one who checks them

Pixels: TypeAlias = NDArray[np.uint8]  # height x width x 3, red, green, blue


class Found(NamedTuple):
    """A word as the first reader sees it; the box is left, top, right, bottom in pixels."""

    box: tuple[int, int, int, int]
    text: str
    confidence: float


Find: TypeAlias = Callable[[Pixels], list[Found]]
Read: TypeAlias = Callable[[Pixels], tuple[str, float]]


def opened(path: Path) -> Image.Image:
    """A picture with its transparency, no larger than :data:`LONGEST`."""
    if path.suffix == ".svg":
        import resvg_py

        svg = path.read_text(encoding="utf-8")
        picture = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=LONGEST)))
    else:
        picture = Image.open(path)
    picture.thumbnail((LONGEST, LONGEST))
    return picture.convert("RGBA")


def on_a_ground(picture: Image.Image, dice: Random) -> Pixels:
    """What is transparent gets a plain colour, dark behind bright ink and bright behind dark ink; and so does a rim."""
    colours = np.asarray(picture, np.float32)
    cover = colours[..., 3:] / 255
    ink = float((colours[..., :3].mean(2, keepdims=True) * cover).sum() / max(1.0, float(cover.sum())))
    level = dice.uniform(0, 70) if ink > 140 else dice.uniform(185, 255)
    ground = np.array([level + dice.uniform(-15, 15) for _ in range(3)], np.float32)
    rim = max(8, picture.height // 5)
    whole = np.tile(ground, (picture.height + 2 * rim, picture.width + 2 * rim, 1))
    whole[rim:-rim, rim:-rim] = ground * (1 - cover) + colours[..., :3] * cover
    return np.clip(whole, 0, 255).astype(np.uint8)


def plain(text: str) -> str:
    """What the two readers have to agree on."""
    return re.sub("[^0-9a-z]", "", text.lower())


def words(pixels: Pixels, find: Find, check: Read, dice: Random) -> Iterator[tuple[Pixels, str]]:
    """(crop, text) of each single word of ASCII characters on which both agree."""
    for (left, top, right, bottom), text, confidence in find(pixels):
        height = bottom - top
        word = plain(text)
        if confidence < SUREST[0] or len(word) < 2 or " " in text.strip() or not text.isascii():
            continue
        if height < LOWEST or right - left < 0.8 * height:
            continue
        rims = [round(dice.uniform(0, 0.12) * height) for _ in range(4)]
        crop = pixels[max(0, top - rims[0]) : bottom + rims[1], max(0, left - rims[2]) : right + rims[3]]
        again, confidence = check(crop)
        if plain(again) == word and confidence >= SUREST[1]:
            yield crop, text.strip()


def label(source: Path, folder: Path, find: Find, check: Read) -> tuple[int, int]:
    """Writes ``folder``; (how many pictures were looked at, how many words were kept)."""
    folder.mkdir(parents=True)
    kept = looked = 0
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".svg"):
                continue
            dice = Random(path.name)
            try:
                pixels = on_a_ground(opened(path), dice)
            except (OSError, ValueError) as error:
                print(f"{path}: {error}")
                continue
            looked += 1
            for crop, text in words(pixels, find, check, dice):
                name = f"{kept:06}.png"
                picture = Image.fromarray(crop)
                picture.thumbnail((picture.width, HIGHEST))
                picture.save(folder / name)
                table.writerow((name, text))
                kept += 1
    return looked, kept


def finder() -> Find:
    """PP-OCRv6, of the package rapidocr."""
    from rapidocr import RapidOCR

    settings = {"Det.limit_type": "max", "Det.limit_side_len": LONGEST, "Global.use_cls": False}
    reader = RapidOCR(params={**settings, "Global.width_height_ratio": -1, "Global.log_level": "error"})

    def find(pixels: Pixels) -> list[Found]:
        seen: Any = reader(np.ascontiguousarray(pixels[..., ::-1]))
        if seen.boxes is None:
            return []
        boxes = [(*np.floor(corners.min(0)), *np.ceil(corners.max(0))) for corners in seen.boxes]
        return [
            Found((int(a), int(b), int(c), int(d)), text, float(confidence))
            for (a, b, c, d), text, confidence in zip(boxes, seen.txts, seen.scores, strict=True)
        ]

    return find


def checker() -> Read:
    """PP-OCRv4, of the package rapidocr-onnxruntime."""
    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR()

    def read(pixels: Pixels) -> tuple[str, float]:
        text, confidence = reader.text_rec([np.ascontiguousarray(pixels[..., ::-1])])[0][0]
        return text, float(confidence)

    return read


def main() -> None:
    """Labels a folder of pictures, and says how many words that made."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("pictures", type=Path)
    options.add_argument("folder", type=Path)
    chosen = options.parse_args()
    looked, kept = label(chosen.pictures, chosen.folder, finder(), checker())
    print(f"{kept} words of {looked} pictures: crnn data build {chosen.folder} OUT_lmdb")


if __name__ == "__main__":
    main()
