from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

import crnn
from crnn.datasets.lmdb import LmdbReader
from crnn.errors import DatasetError, OptionError
from crnn.offline.bins import check_preparation, prepare_words, prepared_words, problem, read_word
from crnn.offline.labels import read_labels
from crnn.spec import DELIVERABLE

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"
Draw = Callable[..., bytes]
Write = Callable[..., Path]


def pixels(picture: bytes, mode: str) -> np.ndarray:
    """What the deliverable's script does to a picture, up to the normalisation."""
    image = Image.open(io.BytesIO(picture)).convert(mode)
    return np.asarray(image.resize((100, 32), Image.Resampling.BICUBIC))


def test_files_are_the_contracts(tmp_path: Path) -> None:
    done = prepare_words(SAMPLE, tmp_path / "deep" / "bins", tmp_path / "label.txt", DELIVERABLE)
    reader = LmdbReader(SAMPLE)
    assert (done.words, done.written, done.skipped, done.mended) == (len(reader), len(reader), (), ())
    for i in range(len(reader)):
        data = (tmp_path / "deep" / "bins" / f"test_{i + 1}.bin").read_bytes()
        assert len(data) == 12_800
        expected = (pixels(reader.image_bytes(i), "L").astype(np.float32) / 255 - 0.5) / 0.5
        np.testing.assert_allclose(np.frombuffer(data, "<f4").reshape(32, 100), expected, atol=2e-7)
    lines = (tmp_path / "label.txt").read_text("utf-8").splitlines()
    assert lines == [f"test_{i + 1}.bin:{reader.label(i).lower()}" for i in range(len(reader))]
    names = [path.name for path in prepared_words(tmp_path / "deep" / "bins")]
    assert names == [f"test_{i + 1}.bin" for i in range(len(reader))]


@pytest.mark.parametrize(("aipp", "mode", "size"), [("gray", "L", 3200), ("rgb", "RGB", 9600), ("bgr", "RGB", 9600)])
def test_aipp_gets_pixels(aipp: str, mode: str, size: int, tmp_path: Path) -> None:
    spec = dataclasses.replace(DELIVERABLE, aipp=aipp)
    prepare_words(SAMPLE, tmp_path / "bins", tmp_path / "label.txt", spec)
    reader = LmdbReader(SAMPLE)
    for i in range(5):
        data = (tmp_path / "bins" / f"test_{i + 1}.bin").read_bytes()
        expected = pixels(reader.image_bytes(i), mode)
        assert len(data) == size
        assert data == (expected[:, :, ::-1] if aipp == "bgr" else expected).tobytes()


def test_npy_holds_the_same_numbers(tmp_path: Path) -> None:
    prepare_words(SAMPLE, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE)
    prepare_words(SAMPLE, tmp_path / "npys", tmp_path / "npy.txt", DELIVERABLE, npy=True)
    assert "test_7.npy" in read_labels(tmp_path / "npy.txt")
    array = np.load(tmp_path / "npys" / "test_7.npy")
    assert (array.shape, array.dtype) == ((1, 1, 32, 100), np.float32)
    assert array.tobytes() == (tmp_path / "bins" / "test_7.bin").read_bytes()
    for name in ("bins/test_7.bin", "npys/test_7.npy"):
        assert problem(tmp_path / name, DELIVERABLE) is None
        assert read_word(tmp_path / name, DELIVERABLE).tobytes() == array.tobytes()


def test_what_cannot_be_used_is_left_out_and_named(bar_code: Draw, write_lmdb: Write, tmp_path: Path) -> None:
    good = bar_code("good")
    labels = ["Good", "torn", "!?", "a:b", "two\nlines", "Ünsüß"]
    path = write_lmdb([(good[:60] if label == "torn" else good, label) for label in labels])
    done = prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE)
    assert [key for key, _ in done.skipped] == ["image-000000002", "image-000000003"]
    assert "damaged" in done.skipped[0][1] and "nothing is left of the label '!?'" in done.skipped[1][1]
    assert done.mended == ("image-000000005",)
    assert sorted(os.listdir(tmp_path / "bins")) == ["crnn-prepare.json", *(f"test_{i}.bin" for i in (1, 4, 5, 6))]
    expected = {"test_1.bin": "good", "test_4.bin": "a:b", "test_5.bin": "two lines", "test_6.bin": "ünsüß"}
    assert read_labels(tmp_path / "label.txt") == expected


@pytest.mark.parametrize("label", ["!?", "torn"])
def test_strict(label: str, bar_code: Draw, write_lmdb: Write, tmp_path: Path) -> None:
    path = write_lmdb([(bar_code("ok"), "ok"), (bar_code("ok")[:60] if label == "torn" else bar_code("ok"), label)])
    with pytest.raises(DatasetError, match=r"image-000000002: .*--strict"):
        prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE, strict=True)
    assert not (tmp_path / "label.txt").exists()


def test_nothing_to_use(write_lmdb: Write, tmp_path: Path) -> None:
    path = write_lmdb([(b"no picture", "x")])
    with pytest.raises(DatasetError, match="no word of 1 can be used; the first: image-000000001: not a picture"):
        prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE)


def test_numbers_are_those_of_the_keys(bar_code: Draw, write_lmdb: Write, tmp_path: Path) -> None:
    path = write_lmdb([(bar_code(text), text) for text in ("one", "two", "three")])
    with lmdb.open(str(path), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        transaction.delete(b"num-samples")
        transaction.delete(b"image-000000002")
    prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE)
    assert read_labels(tmp_path / "label.txt") == {"test_1.bin": "one", "test_3.bin": "three"}


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    bins, labels = tmp_path / "bins", tmp_path / "label.txt"
    prepare_words(SAMPLE, bins, labels, DELIVERABLE)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in prepared_words(bins)}
    (bins / "test_3.bin").unlink()
    (bins / "test_4.bin").write_bytes(b"short")
    labels.unlink()
    (bins / ".test_3.bin.tmp").write_bytes(b"what a killed run leaves")
    done = prepare_words(SAMPLE, bins, labels, DELIVERABLE)
    assert (done.words, done.written) == (100, 2)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in prepared_words(bins)}
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    assert [name for name in after if after[name] != before[name]] == ["test_3.bin", "test_4.bin"]
    assert len(read_labels(labels)) == 100
    assert not [name for name in os.listdir(bins) if ".tmp" in name]


def test_a_folder_is_of_one_data_set_and_preparation(bar_code: Draw, write_lmdb: Write, tmp_path: Path) -> None:
    bins, labels = tmp_path / "bins", tmp_path / "label.txt"
    path = write_lmdb([(bar_code("one"), "one")])
    prepare_words(path, bins, labels, DELIVERABLE)
    moved = path.rename(tmp_path / "moved_lmdb")
    assert prepare_words(moved, bins, labels, DELIVERABLE).written == 0
    other = write_lmdb([(bar_code("two"), "two")], "other_lmdb")
    for dataset, spec, npy, what in [
        (other, DELIVERABLE, False, "another data set"),
        (moved, dataclasses.replace(DELIVERABLE, resampling="bilinear"), False, "another preparation"),
        (moved, dataclasses.replace(DELIVERABLE, aipp="gray"), False, "another preparation"),
        (moved, DELIVERABLE, True, "another format"),
    ]:
        with pytest.raises(DatasetError, match=f"bins: begun with {what}"):
            prepare_words(dataset, bins, labels, spec, npy=npy)
    (bins / "crnn-prepare.json").unlink()
    with pytest.raises(DatasetError, match=r"test_1\.bin: is there already, from elsewhere"):
        prepare_words(moved, bins, labels, DELIVERABLE)
    (bins / "crnn-prepare.json").write_text("{")
    with pytest.raises(DatasetError, match=r"crnn-prepare\.json: cannot be read"):
        prepare_words(moved, bins, labels, DELIVERABLE)


def test_words_for_another_model_are_noticed(tmp_path: Path) -> None:
    prepare_words(SAMPLE, tmp_path / "rgb", tmp_path / "label.txt", dataclasses.replace(DELIVERABLE, aipp="rgb"))
    bgr = dataclasses.replace(DELIVERABLE, aipp="bgr")
    assert problem(tmp_path / "rgb" / "test_1.bin", bgr) is None  # by its size alone nobody could tell
    with pytest.raises(DatasetError, match="prepared with aipp 'rgb', but the model wants 'bgr'"):
        check_preparation(tmp_path / "rgb", bgr)
    why = problem(tmp_path / "rgb" / "test_1.bin", DELIVERABLE)
    assert why is not None and "has 9,600 bytes, but the model takes 12,800" in why and "AIPP" in why


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="file: cannot be made"):
        prepare_words(SAMPLE, tmp_path / "file", tmp_path / "label.txt", DELIVERABLE)
    with pytest.raises(OptionError, match=r"label\.txt: cannot be written"):
        prepare_words(SAMPLE, tmp_path / "bins", tmp_path / "none" / "label.txt", DELIVERABLE)
