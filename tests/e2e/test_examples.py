from __future__ import annotations

import csv
import json
import runpy
import sys
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from crnn.cli import app
from crnn.datasets.lmdb import LmdbWriter
from crnn.synthesis.fonts import open_fonts

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def test_they_are_read() -> None:
    result = CliRunner().invoke(app, ["read", str(FOLDER), "--json"])
    assert result.exit_code == 0, result.stderr
    words = {Path(word["source"]).stem: word["text"] for word in json.loads(result.stdout)}
    assert len(words) == 12
    wrong = {stem: text for stem, text in words.items() if stem != text}
    assert len(wrong) <= 4, wrong  # some are hard


def test_pictures_of_many_sorts_and_programs() -> None:
    modes, turned = set(), 0
    for path in FOLDER.iterdir():
        if path.suffix == ".py":  # of docs/fine-tuning.md
            continue
        assert path.suffix in (".png", ".jpg")
        with Image.open(path) as image:
            modes.add(image.mode)
            turned += image.getexif().get(0x0112, 1) != 1
    assert modes >= {"RGB", "RGBA", "P", "I;16"} and turned


@pytest.mark.parametrize("name", ["library.jpg", "bakery.png", "904173.png", "open.png"])
def test_the_odd_ones_are_read_right(name: str) -> None:
    """Turned by EXIF, transparent, 16-bit, with a palette: what each would be misread by."""
    result = CliRunner().invoke(app, ["read", str(FOLDER / name)])
    assert result.stdout.split("\t")[0] == Path(name).stem


def test_words_on_which_two_readers_agree_are_kept(tmp_path: Path) -> None:
    """With stand-ins for the two: a picture's width says what the first one sees."""
    program = runpy.run_path(str(FOLDER / "label_by_agreement.py"))
    found = program["Found"]
    source = tmp_path / "in"
    source.mkdir()
    ink = Image.new("RGBA", (100, 40), (0, 0, 0, 0))
    ink.paste((255, 255, 255, 255), (20, 10, 80, 30))
    ink.save(source / "white ink.png")
    ink.resize((200, 80)).save(source / "larger.webp")
    Image.new("L", (300, 100), 200).save(source / "photograph.jpg")
    (source / "broken.png").write_bytes(b"nothing")
    (source / "notes.txt").write_text("no picture")
    box = 10, 10, 90, 40
    seen = {
        116: [found(box, "Shop", 0.9), found(box, "two words", 0.9), found(box, "unsure", 0.8), found(box, "x", 1.0)],
        232: [found((0, 0, 80, 10), "low", 1.0), found((0, 0, 20, 80), "high", 1.0), found(box, "caf\u00e9", 1.0)],
        340: [found(box, "$5.50", 0.9), found((5, 5, 300, 120), "Unlike", 1.0)],
    }
    crops: list[Any] = []

    def check(crop: Any) -> tuple[str, float]:
        crops.append(crop)
        return ("5-50", "other", "shop")[len(crops) - 1], 0.9

    looked, kept = program["label"](source, tmp_path / "out", lambda pixels: seen[pixels.shape[1]], check)
    assert (looked, kept) == (3, 2)
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [text for _, text in rows] == ["$5.50", "Shop"]
    for name, _ in rows:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.height <= 64
    white = crops[-1]  # bright ink, so on a dark ground
    assert white.max() == 255 and np.median(white[:3]) < 90


def test_words_are_cut_between_their_letters(tmp_path: Path) -> None:
    """A letter's pixels say which it is, so that each piece's picture can be read back."""
    program = runpy.run_path(str(FOLDER / "cut_words.py"))
    levels = {letter: 40 + 8 * n for n, letter in enumerate("abcdefghij")}
    lines = []
    with LmdbWriter(tmp_path / "words") as writer:
        for n in range(20):
            text = "".join(Random(n).sample("abcdefghij", 5))
            picture = np.full((24, 5 * 12), 250, np.uint8)
            boxes = []
            for i, letter in enumerate(text):
                picture[4:20, 12 * i + 2 : 12 * i + 10] = levels[letter]
                boxes.append([12 * i + 2, 4, 8, 16])
            if n == 3:  # one letter over the other: not to be parted
                boxes[2] = [boxes[2][0] - 8, 4, 16, 16]
            file = BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            writer.add(file.getvalue(), text)
            lines.append(json.dumps({"key": f"image-{n + 1:09}", "text": text, "boxes": boxes}))
    (tmp_path / "characters.jsonl").write_text("\n".join(lines) + "\n")

    words = program["words"](tmp_path / "words", tmp_path / "characters.jsonl")
    assert len(words) == 18  # every tenth is held out
    assert [word.cuts for word in words if None in word.cuts] == [[0, 12, None, 36, 48, 60]]
    dice, texts = Random(0), set()
    for _ in range(300):
        picture, text = program["pieces"](words, dice)
        texts.add(text)
        height = picture.shape[0]
        pitch = height / 2 if height == program["HEIGHT"] else 12  # two at one height, or one as it was
        assert picture.shape[1] == pitch * len(text)
        if height == 24:
            middles = [round(float(picture[12, round(pitch * (i + 0.5))])) for i in range(len(text))]
            assert middles == [levels[letter] for letter in text]
    assert len(texts) > 200 and max(map(len, texts)) > 5
    joined = program["Word"](np.zeros((24, 180), np.float32), "abcdefghijabcde", [0, *[None] * 14, 180])
    with pytest.raises(SystemExit, match="of 1 words no piece of 14 letters or fewer can be cut"):
        program["pieces"]([joined], dice)

    arguments = ["cut_words.py", str(tmp_path / "words"), str(tmp_path / "characters.jsonl"), str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, "--count", "7"])
        program["main"]()
    with (tmp_path / "out" / "labels.csv").open(newline="") as file_of_labels:
        assert [(tmp_path / "out" / name).exists() for name, _ in csv.reader(file_of_labels)] == [True] * 7


def test_letters_are_found_by_the_weights(tmp_path: Path) -> None:
    """In a plain font, whose letters' places are known; what is read otherwise than its label says is left out."""
    font = ImageFont.load_default(28)
    assert isinstance(font, ImageFont.FreeTypeFont)
    texts = ["Harbour", "MUSEUM", "Library", "on", "a-b", "WRONG", "Kitchen", "street", "Bakery", "Garden"]
    with LmdbWriter(tmp_path / "words") as writer:
        for text in texts:
            picture = Image.new("L", (round(font.getlength(text)) + 12, 40), 235)
            ImageDraw.Draw(picture).text((6, 2), "Station" if text == "WRONG" else text, fill=20, font=font)
            file = BytesIO()
            picture.save(file, "PNG")
            writer.add(file.getvalue(), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["letter_boxes.py", str(tmp_path / "words"), str(tmp_path / "boxes.jsonl")])
        runpy.run_path(str(FOLDER / "letter_boxes.py"), run_name="__main__")
    lines = [json.loads(line) for line in (tmp_path / "boxes.jsonl").read_text().splitlines()]
    found = {line["text"]: line["boxes"] for line in lines}
    assert len(found) >= 5 and found.keys() <= {*texts[1:3], *texts[6:]}  # the first is held out
    near = []
    for text, boxes in found.items():
        assert len(boxes) == len(text) and boxes[0][0] == 0
        for i, (left, top, width, height) in enumerate(boxes[:-1]):
            assert (top, height) == (0, 40) and left + width == boxes[i + 1][0]
            gap = 6 + font.getlength(text[: i + 1])
            near.append(abs(left + width - gap) < 5)
    assert np.mean(near) > 0.7 and len(near) > 20  # not all: an L has little ink above its foot


def test_fonts_that_can_be_read_are_collected(tmp_path: Path) -> None:
    default = ImageFont.load_default(20)
    assert isinstance(default, ImageFont.FreeTypeFont)
    plain = default.path.getvalue()  # type: ignore[union-attr]
    package = tmp_path / "fonts" / "node_modules" / "@fontsource" / "plain-sans" / "files"
    package.mkdir(parents=True)
    font = TTFont(BytesIO(plain))
    for name in ("plain-sans-latin-400-normal", "plain-sans-cyrillic-400-normal", "plain-sans-latin-300-normal"):
        font.flavor = "woff2"
        font.save(package / f"{name}.woff2")
    (tmp_path / "fonts" / "own").mkdir()
    (tmp_path / "fonts" / "own" / "plain.ttf").write_bytes(plain)
    (tmp_path / "fonts" / "own" / "broken.otf").write_bytes(b"no font")
    empty = TTFont(BytesIO(plain))
    for glyph in empty["glyf"].keys():  # noqa: SIM118 - no dict
        empty["glyf"][glyph] = empty["glyf"][".notdef"]  # letters that all look the same
    empty.save(tmp_path / "fonts" / "own" / "alike.ttf")

    program = runpy.run_path(str(FOLDER / "collect_fonts.py"))
    fonts, lists = tmp_path / "fonts", tmp_path / "lists"
    lists.mkdir()
    out = lists / "fonts.tsv"
    assert program["collect"](out, [fonts], set(), set()) == (4, 2)
    with out.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    paths = [Path(row["path"]) for row in rows]
    assert [path.name for path in paths] == ["plain-sans-latin-400-normal.ttf", "plain.ttf"]
    assert all(float(row["cer"]) < 0.1 for row in rows)
    assert len(open_fonts([str(out)]).faces) == 2
    assert program["collect"](lists / "few.tsv", [fonts], {"plain-sans"}, set()) == (1, 1)
    assert program["collect"](lists / "few.tsv", [fonts], set(), {"plain-sans", "alike"}) == (2, 1)
