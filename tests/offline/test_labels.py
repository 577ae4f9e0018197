from __future__ import annotations

import random
from pathlib import Path

import pytest

from crnn.errors import DatasetError
from crnn.offline.labels import read_labels, write_labels


def test_what_is_written_is_read(tmp_path: Path) -> None:
    generator = random.Random(0)
    characters = "ab:: \té中\x85\u2028\x0c'\"#"  # some of them end a line for other readers
    labels = {f"test_{i}.bin": "".join(generator.choices(characters, k=generator.randrange(9))) for i in range(500)}
    write_labels(tmp_path / "label.txt", labels)
    assert list(read_labels(tmp_path / "label.txt").items()) == list(labels.items())


def test_files_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "label.txt").write_bytes(b"\xef\xbb\xbftest_1.bin:one\r\n\r\ntest_2.bin:t:w:o\r\ntest_3.bin:three")
    assert read_labels(tmp_path / "label.txt") == {"test_1.bin": "one", "test_2.bin": "t:w:o", "test_3.bin": "three"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no label in it"),
        (b"test_1.bin:a\nimage-1 b\n", r"line 2 is not FILE:LABEL \('image-1 b'\)"),
        (b":a\n", "line 1 is not FILE:LABEL"),
        (b"x.bin:a\ny.bin:a\nx.bin:b\n", "line 3 names x.bin a second time"),
        (b"x.bin:\xff\n", "not UTF-8"),
    ],
)
def test_bad_files_are_one_line(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "label.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=what):
        read_labels(tmp_path / "label.txt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="crnn prepare"):
        read_labels(tmp_path / "label.txt")
