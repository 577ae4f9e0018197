"""Fonts and a generator that need nothing installed: Pillow carries one font in itself."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import cast

import pytest
from fontTools.ttLib import TTFont
from PIL import ImageFont

from crnn.synthesis.corpus import Corpus
from crnn.synthesis.fonts import open_fonts
from crnn.synthesis.generator import WordGenerator

WORDS = {"the": 0.05, "coffee": 1e-4, "open": 1e-3, "street": 1e-3, "zebra": 1e-6, "don't": 1e-4, "quay": 1e-6}


@pytest.fixture(scope="session")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two families of one file and one of two files."""
    folder = tmp_path_factory.mktemp("fonts")
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    data = cast(BytesIO, font.path).getvalue()
    for name, family in (("a.ttf", "One"), ("b.ttf", "Two"), ("c.ttf", "Two")):
        copy = TTFont(BytesIO(data))
        for record in copy["name"].names:
            if record.nameID in (1, 16):
                record.string = family
        copy.save(folder / name)
    return folder


@pytest.fixture(scope="session")
def words() -> dict[str, float]:
    return WORDS


@pytest.fixture(scope="session")
def generator(fonts: Path, words: dict[str, float]) -> WordGenerator:
    return WordGenerator(Corpus(words), open_fonts([str(fonts)]), seed=3)
