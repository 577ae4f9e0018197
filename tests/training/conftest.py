"""A small labelled data set, and one precision."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from crnn.datasets.lmdb import LmdbWriter
from crnn.training import precision


@pytest.fixture(autouse=True)
def float32_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With matrix hardware ``auto`` is bf16; accelerate has one precision in a process, so all tests here have it."""
    monkeypatch.setattr(precision, "_quickest", lambda: "no")


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty words in one plain font."""
    path = tmp_path_factory.mktemp("words") / "lmdb"
    font = ImageFont.load_default(24)
    with LmdbWriter(path) as writer:
        for i in range(40):
            text = ["open", "street", "coffee", "room", "exit"][i % 5] + str(i)
            picture = Image.new("L", (14 * len(text) + 12, 36), 230)
            ImageDraw.Draw(picture).text((6, 3), text, fill=20, font=font)
            data = io.BytesIO()
            picture.save(data, "PNG")
            writer.add(data.getvalue(), text)
    return path
