from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crnn.errors import DatasetError, ImageError, OptionError
from crnn.offline.info import read_info, write_info


@pytest.fixture
def bins(tmp_path: Path) -> Path:
    folder = tmp_path / "bins"
    folder.mkdir()
    for i in np.random.default_rng(0).permutation(120) + 1:
        (folder / f"test_{i}.bin").write_bytes(b"")
    (folder / "test_1.npy").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    return folder


def test_lines_in_natural_order(bins: Path, tmp_path: Path) -> None:
    assert write_info(bins, tmp_path / "crnn.info", (100, 32)) == 120
    lines = (tmp_path / "crnn.info").read_text().splitlines()
    assert lines == [f"{i} {bins}/test_{i + 1}.bin 100 32" for i in range(120)]
    assert read_info(tmp_path / "crnn.info", (100, 32)) == [bins / f"test_{i + 1}.bin" for i in range(120)]


def test_pictures_have_their_own_size_and_one_index(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in [("b.JPG", (5, 6)), ("a10.jpeg", (7, 8)), ("a9.jpg", (9, 10)), ("c.png", (1, 1))]:
        Image.new("RGB", size).save(folder / name, "PNG" if name == "c.png" else "JPEG")
    upright = Image.Exif()
    upright[0x0112] = 6  # a camera held upright: OpenCV, and we, turn it
    Image.new("RGB", (30, 20)).save(folder / "d.jpg", exif=upright)
    assert write_info(folder, tmp_path / "jpg.info", None) == 4
    lines = [
        line.removeprefix(f"{i} {folder}/") for i, line in enumerate((tmp_path / "jpg.info").read_text().split("\n"))
    ]
    assert lines == ["a9.jpg 9 10", "a10.jpeg 7 8", "b.JPG 5 6", "d.jpg 20 30", ""]


def test_what_benchmark_could_not_read_is_refused(bins: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two words").mkdir()
    (tmp_path / "two words" / "test_1.bin").write_bytes(b"")
    (tmp_path / "empty" / "x.jpg").write_text("no picture")
    (tmp_path / "d\udcff").mkdir()  # a byte that is no UTF-8
    (tmp_path / "d\udcff" / "test_1.bin").write_bytes(b"")
    for folder, size, error, what in [
        (tmp_path / "empty", (100, 32), DatasetError, r"empty: no \.bin file in this folder"),
        (tmp_path / "none", (100, 32), DatasetError, "none: cannot be opened"),
        (tmp_path / "two words", (100, 32), DatasetError, "white space"),
        (tmp_path / "d\udcff", (100, 32), DatasetError, "must be UTF-8"),
        (tmp_path / "empty", None, ImageError, r"x\.jpg: not a picture"),
    ]:
        with pytest.raises(error, match=what):
            write_info(folder, tmp_path / "crnn.info", size)
    assert not (tmp_path / "crnn.info").exists()
    with pytest.raises(OptionError, match="cannot be written"):
        write_info(bins, tmp_path / "none" / "crnn.info", (100, 32))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "names no file"),
        ("0 a.bin 100 32\n1 b.bin 100\n", "line 2 is not INDEX PATH WIDTH HEIGHT"),
        ("0 a.bin 32 100\n", "line 1 says 32 x 100, but the model takes 100 x 32"),
    ],
)
def test_a_list_that_is_none(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "crnn.info").write_text(text)
    with pytest.raises(DatasetError, match=what):
        read_info(tmp_path / "crnn.info", (100, 32))
