from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest
from PIL import Image

from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.errors import DatasetError, ImageError, LabelError


def picture(value: int = 128) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 5), value).save(file, "PNG")
    return file.getvalue()


def build(path: Path, words: list[tuple[bytes, str]]) -> Path:
    with LmdbWriter(path) as writer:
        for image, label in words:
            writer.add(image, label)
    return path


def raw(path: Path, entries: dict[str, bytes]) -> Path:
    """An LMDB with just these entries, made without our writer."""
    path.mkdir()
    with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)
    return path


def test_round_trip(tmp_path: Path) -> None:
    words = [(picture(i), f"wörd {i}") for i in range(5)]
    path = build(tmp_path / "deep" / "er" / "words_lmdb", words)
    reader = LmdbReader(path)
    assert len(reader) == 5
    assert list(reader) == words
    assert reader.key(4) == "image-000000005"
    assert reader.image(3).getpixel((0, 0)) == 3
    assert os.listdir(path.parent) == ["words_lmdb"]
    with lmdb.open(str(tmp_path / "plain"), create=True):
        pass
    assert (path / "data.mdb").stat().st_mode & 0o777 == (tmp_path / "plain" / "data.mdb").stat().st_mode & 0o666
    for i in (5, -1):
        with pytest.raises(IndexError):
            reader.key(i)


def test_a_single_file_is_a_data_set_too(tmp_path: Path) -> None:
    path = build(tmp_path / "words_lmdb", [(picture(), "one")])
    (path / "data.mdb").rename(tmp_path / "words.mdb")
    assert LmdbReader(tmp_path / "words.mdb").label(0) == "one"


def test_the_map_grows_by_itself(tmp_path: Path) -> None:
    noise = os.urandom(1 << 20)
    with LmdbWriter(tmp_path / "big", map_size=1 << 20) as writer:
        for i in range(40):
            writer.add(noise, str(i))
    reader = LmdbReader(tmp_path / "big")
    assert len(reader) == 40
    assert all(reader.image_bytes(i) == noise and reader.label(i) == str(i) for i in range(40))


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), LmdbWriter(tmp_path / "words") as writer:
        writer.add(picture(), "a")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_killed_build_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    script = """
import sys
from crnn.datasets.lmdb import LmdbWriter
with LmdbWriter(sys.argv[1]) as writer:
    i = 0
    while True:
        writer.add(bytes(200_000), str(i))
        i += 1
        if i == 300:
            print("going", flush=True)
"""
    target = tmp_path / "words_lmdb"
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    left = os.listdir(tmp_path)
    assert len(left) == 1 and left[0].startswith(".words_lmdb.") and left[0].endswith(".tmp")
    assert (tmp_path / left[0] / "data.mdb").stat().st_size > 10_000_000  # it had been writing
    assert len(LmdbReader(build(target, [(picture(), "again")]))) == 1  # and the leftovers are in nobody's way


def test_an_existing_target_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = build(tmp_path / "words", [(picture(), "old")])
    with pytest.raises(DatasetError, match="already exists"), LmdbWriter(path):
        pass
    assert LmdbReader(path).label(0) == "old"
    with pytest.raises(KeyError), LmdbWriter(path, overwrite=True):
        raise KeyError
    assert LmdbReader(path).label(0) == "old"
    with LmdbWriter(path, overwrite=True) as writer:
        writer.add(picture(), "new")
        assert LmdbReader(path).label(0) == "old"  # until the end
    assert LmdbReader(path).label(0) == "new"
    assert os.listdir(tmp_path) == ["words"]


def test_only_a_data_set_is_overwritten(tmp_path: Path) -> None:
    mixed = build(tmp_path / "mixed", [(picture(), "old")])
    (mixed / "notes.txt").write_text("mine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture())
    (tmp_path / "text").write_text("mine, and longer than a magic number")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=r"mixed: notes.txt in it is no part of a data set"):
        LmdbWriter(mixed, overwrite=True).__enter__()
    for name in ("pictures", "text", "dangling"):
        with pytest.raises(DatasetError, match=f"{name}: no LMDB data set"):
            LmdbWriter(tmp_path / name, overwrite=True).__enter__()
    assert sorted(tmp_path.rglob("*")) == before

    (build(tmp_path / "folder", [(picture(), "old")]) / "data.mdb").rename(tmp_path / "single")
    for name in ("folder", "single"):  # an empty folder by now, and a file
        with LmdbWriter(tmp_path / name, overwrite=True) as writer:
            writer.add(picture(), "new")
        assert LmdbReader(tmp_path / name).label(0) == "new"


def test_the_old_one_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(tmp_path / "words", [(picture(), "old")])
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source.suffix == ".tmp":
            raise PermissionError(13, "Permission denied")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DatasetError, match="words: cannot be written"), LmdbWriter(path, overwrite=True) as writer:
        writer.add(picture(), "new")
    assert LmdbReader(path).label(0) == "old"
    assert os.listdir(tmp_path) == ["words"]


def test_a_label_that_is_no_text_is_refused_and_not_counted(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "words") as writer:
        with pytest.raises(LabelError, match="UTF-8"):
            writer.add(picture(), "\udc80")
        writer.add(picture(), "fine")
        assert len(writer) == 1
    assert [label for _, label in LmdbReader(tmp_path / "words")] == ["fine"]


def test_keys_are_counted_where_num_samples_is_missing(tmp_path: Path) -> None:
    numbers = (1, 2, 4, 1000)
    entries = {f"image-{n:09d}": picture(n % 256) for n in numbers} | {f"label-{n:09d}": b"w%d" % n for n in numbers}
    reader = LmdbReader(raw(tmp_path / "words", entries | {"image-mask": b"", "imagf": b"", "zebra": b""}))
    assert len(reader) == 4
    assert [reader.key(i) for i in range(4)] == [f"image-{n:09d}" for n in numbers]
    assert [label for _, label in reader] == ["w1", "w2", "w4", "w1000"]
    assert len(LmdbReader(raw(tmp_path / "none", {"a": b"b"}))) == 0


def test_errors_name_the_data_set_and_the_key(tmp_path: Path) -> None:
    entries = {
        "num-samples": b"4",
        "image-000000001": picture(),
        "image-000000002": picture()[:50],
        "label-000000002": b"caf\xe9",
        "label-000000003": b"x",
        "image-000000004": b"",
    }
    reader = LmdbReader(raw(tmp_path / "words", entries))
    with pytest.raises(LabelError, match=r"words: label-000000001: missing"):
        reader.label(0)
    with pytest.raises(ImageError, match=r"words: image-000000002: damaged"):
        reader.image(1)
    with pytest.raises(LabelError, match=r"words: label-000000002: not UTF-8 \(byte 3\)"):
        reader.label(1)
    with pytest.raises(DatasetError, match=r"words: image-000000003: missing"):
        reader.image(2)
    with pytest.raises(ImageError, match=r"words: image-000000004: empty"):
        reader.image(3)


@pytest.mark.parametrize("count", [b"many", b"", b"-3", b"99999999999999999999999", b"7"])
def test_a_wrong_num_samples_is_an_error(tmp_path: Path, count: bytes) -> None:
    path = raw(tmp_path / "words", {"num-samples": count, "image-000000001": b"x"})
    with pytest.raises(DatasetError, match="num-samples"):
        len(LmdbReader(path))


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 5000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut").mkdir()
    whole = (build(tmp_path / "words", [(os.urandom(100_000), "x")]) / "data.mdb").read_bytes()
    (tmp_path / "cut" / "data.mdb").write_bytes(whole[: len(whole) // 2])
    for name, part in [("text", "not an LMDB"), ("folder", r"no data\.mdb"), ("none", "no such"), ("cut", "truncated")]:
        with pytest.raises(DatasetError, match=part) as caught:
            LmdbReader(tmp_path / name).label(0)
        assert name in str(caught.value)


def test_two_readers_of_one_file_share_it(tmp_path: Path) -> None:
    path = build(tmp_path / "words", [(picture(), "one")])
    (tmp_path / "link").symlink_to(path)
    first, second = LmdbReader(path), LmdbReader(tmp_path / "link")
    assert first.label(0) == second.label(0) == "one"
    del first
    assert second.label(0) == "one"


def _labels(reader: LmdbReader) -> list[str]:
    return [label for _, label in reader]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_in_use_goes_to_other_processes(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    reader = LmdbReader(build(tmp_path / "words", [(picture(), str(i)) for i in range(50)]))
    other = LmdbReader(reader.path)
    expected = _labels(reader)
    assert _labels(other) == expected
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_labels, [reader, other, LmdbReader(reader.path)]) == [expected] * 3
    assert _labels(reader) == expected  # still open here


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_an_inherited_reader_opens_its_own_environment(tmp_path: Path) -> None:
    reader = LmdbReader(build(tmp_path / "words", [(picture(), "one")]))
    assert reader.label(0) == "one"
    parents = reader._env()
    child = os.fork()
    if child == 0:
        fine = reader.label(0) == "one" and reader._env() is not parents
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reader._env() is parents
    assert reader.label(0) == "one"


def test_a_pickled_reader_is_its_path(tmp_path: Path) -> None:
    reader = LmdbReader(build(tmp_path / "words", [(picture(), "one")]))
    len(reader)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.path == reader.path
    assert copy.label(0) == "one"


def test_threads_share_a_reader(tmp_path: Path) -> None:
    reader = LmdbReader(build(tmp_path / "words", [(picture(), str(i)) for i in range(200)]))
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(_labels(reader))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[str(i) for i in range(200)]] * 8


def test_sha256_is_of_the_content_and_not_of_the_layout(tmp_path: Path) -> None:
    image = picture()
    entries = {"num-samples": b"2", "image-000000001": image, "image-000000002": b"x" * 9000,
               "label-000000001": b"a", "label-000000002": b"b"}  # fmt: skip
    written = build(tmp_path / "ours", [(image, "a"), (b"x" * 9000, "b")])
    other = raw(tmp_path / "other", dict(reversed(entries.items())))
    with lmdb.open(str(other)) as env, env.begin(write=True) as transaction:  # a history that leaves free pages
        transaction.put(b"junk", bytes(50_000))
        transaction.delete(b"junk")
    expected = hashlib.sha256()
    for key, value in sorted(entries.items()):
        expected.update(len(key).to_bytes(8, "little") + key.encode() + len(value).to_bytes(8, "little") + value)
    assert (written / "data.mdb").read_bytes() != (other / "data.mdb").read_bytes()
    assert LmdbReader(written).sha256() == LmdbReader(other).sha256() == expected.hexdigest()
    assert LmdbReader(build(tmp_path / "changed", [(image, "a"), (b"x" * 9000, "c")])).sha256() != expected.hexdigest()


def test_the_benchmark(data_dir: Path) -> None:
    reader = LmdbReader(data_dir / "IIIT5K_lmdb")
    assert len(reader) == 3000
    start = time.perf_counter()
    assert all(reader.image(i).mode == "L" for i in range(0, 3000, 30))
    assert time.perf_counter() - start < 10
    assert sum(len(label) for label in _labels(reader)) > 9000


def test_a_place_where_one_may_not_look() -> None:
    """A name that is too long stands for a folder of others': Path's methods raise for both, for root as well."""
    with pytest.raises(DatasetError, match="no such data set"):
        len(LmdbReader(f"/{'x' * 5000}"))
