from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from crnn.cli import app

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def test_they_are_read() -> None:
    result = CliRunner().invoke(app, ["read", str(FOLDER), "--json"])
    assert result.exit_code == 0, result.stderr
    words = {Path(word["source"]).stem: word["text"] for word in json.loads(result.stdout)}
    assert len(words) == 12
    wrong = {stem: text for stem, text in words.items() if stem != text}
    assert len(wrong) <= 4, wrong  # some are hard


def test_pictures_of_many_sorts_and_a_program() -> None:
    modes, turned = set(), 0
    for path in FOLDER.iterdir():
        if path.name == "draw_meters.py":  # draws the words of docs/fine-tuning.md
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
