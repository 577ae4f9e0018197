"""A word's text does not depend on the words that go through the network with it: real words, every engine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from crnn import Item, Reader, Word
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import open_engine

COUNT = 1000


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "int8"), ("torch", None)],
)
def test_same_text_alone_and_in_any_company(engine: str, precision: str | None, data_dir: Path) -> None:
    words = LmdbReader(data_dir / "IIIT5K_lmdb")
    items = [Item(words.key(i), words.image_bytes(i)) for i in range(COUNT)]
    shuffled = random.Random(7).sample(items, COUNT)
    opened = open_engine(None, engine, precision=precision)
    readings: dict[str, dict[str | None, Word]] = {}
    for name, batch_size, order in (("1", 1, items), ("7", 7, items), ("shuffled 64", 64, shuffled)):
        read = list(Reader(engine=opened, batch_size=batch_size).read_many(order))
        assert [word.source for word in read] == [item.source for item in order]
        readings[name] = {word.source: word for word in read}
    alone = readings.pop("1")
    assert len(alone) == COUNT and len({word.text for word in alone.values()}) > COUNT // 3
    differing = [
        f"{key}: {alone[key].text!r} alone, {word.text!r} at batch {name}"
        for name, others in readings.items()
        for key, word in others.items()
        if word.text != alone[key].text
    ]
    assert not differing
    for others in readings.values():  # the last bits of a float may differ
        assert max(abs(word.confidence - alone[key].confidence) for key, word in others.items()) < 1e-4
