from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import lmdb
from PIL import Image

from crnn.charset import Charset
from crnn.datasets.check import Skipped, summary, usable
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.protocols import alnum36
from crnn.spec import DELIVERABLE, ModelSpec


def words(path: Path, labels: list[str]) -> LmdbReader:
    file = io.BytesIO()
    Image.new("L", (9, 5)).save(file, "PNG")
    with LmdbWriter(path) as writer:
        for label in labels:
            writer.add(file.getvalue(), label)
    return LmdbReader(path)


def test_ctc_feasibility_after_the_protocol(tmp_path: Path) -> None:
    fits = "abcdefghijklmnopqrstuvwxyz"  # 26 characters in 26 steps
    repeats = "Aa" + "bc" * 11 + "d"  # 25, and a blank between the two a: 26
    labels = [fits, fits + "0", "$" + fits + "!", repeats, repeats + "e", "?!", "B&B"]
    found = usable(words(tmp_path / "words", labels), DELIVERABLE, alnum36)
    assert found.indices == [0, 2, 3, 6]
    assert found.labels == [fits, fits, repeats.lower(), "bb"]
    assert [(word.key, word.kind) for word in found.skipped] == [
        ("image-000000002", "infeasible"),
        ("image-000000005", "infeasible"),
        ("image-000000006", "empty"),
    ]
    assert "needs 27 time steps, the network has 26" in found.skipped[0].reason
    assert summary(found.skipped) == "2 infeasible, 1 empty"
    assert summary([]) == "none"


def test_a_charset_that_lacks_a_character_drops_the_word(tmp_path: Path) -> None:
    reader = words(tmp_path / "words", ["ab", "abc"])
    indices, labels, skipped = usable(reader, ModelSpec(charset=Charset("ab")), str)
    assert (indices, labels) == ([0], ["ab"])
    reason = "the label 'abc' has characters outside the charset"
    assert skipped == [Skipped("image-000000002", "charset", reason, "c")]


def test_unreadable_words_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    reader = words(tmp_path / "words", ["fine", "no picture", "no label", "bad label", "bad picture"])
    with lmdb.open(str(tmp_path / "words"), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        transaction.delete(b"image-000000002")
        transaction.delete(b"label-000000003")
        transaction.put(b"label-000000004", b"\xff")
        transaction.put(b"image-000000005", b"\x89PNG")
    found = usable(reader, DELIVERABLE, alnum36)
    assert found.indices == [0]
    assert Counter(word.kind for word in found.skipped) == {"unreadable": 4}
    assert "image-000000002: missing" in found.skipped[0].reason
    assert "not UTF-8" in found.skipped[2].reason
    assert "image-000000005" in found.skipped[3].reason
    assert usable(reader, DELIVERABLE, alnum36, decode=False).indices == [0, 1, 4]


def test_all_words_of_the_benchmark_are_usable(data_dir: Path) -> None:
    found = usable(LmdbReader(data_dir / "IIIT5K_lmdb"), DELIVERABLE, alnum36)
    assert found.indices == list(range(3000))
    assert found.skipped == []
    assert all(label == alnum36(label) and label for label in found.labels)
