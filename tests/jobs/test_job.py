"""What a job writes, what it goes on with, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset
import pytest
from PIL import Image
from tests.jobs.conftest import archive, do, folder, job, lmdb, rows, table, texts
from tests.jobs.light import numbered, words_read

from crnn.decoding.lexicon import Lexicon, Prior
from crnn.errors import DatasetError, OptionError
from crnn.jobs import pictures, shards
from crnn.jobs.reading import TooManyErrors
from crnn.jobs.run import Here, Status, run
from crnn.jobs.storage import Place, place, public
from crnn.jobs.units import MOST_WORDS, Layout
from crnn.word import Word

COUNT = 40
ALL = [f"{i:06}" for i in range(COUNT)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "in", range(COUNT))


def manifest(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "_job.json").read_text())
    return found


def test_the_folder_is_a_data_set_for_others(source: Path, tmp_path: Path) -> None:
    do(source, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out")
    assert list(frame.columns) == ["source", "text", "confidence", "error"] and sorted(frame.text) == ALL
    assert pyarrow.dataset.dataset(tmp_path / "out", format="parquet").count_rows() == COUNT


def test_the_manifest(source: Path, tmp_path: Path) -> None:
    made = do(source, tmp_path / "out", max_errors=3)
    assert manifest(tmp_path / "out") == made
    assert made["engine"] == {"name": "light", "version": "1", "precision": "float32", "device": "CPU"}
    assert len(made["model"]["sha256"]) == len(made["input"]["sha256"]) == 64
    facts = made["input"]
    assert (facts["url"], facts["parts"], facts["files"], facts["words"]) == (str(source), 4, COUNT, COUNT)
    assert facts["bytes"] == sum(path.stat().st_size for path in source.rglob("*.png"))
    assert made["counts"] == {"parts": 4, "words": COUNT, "errors": 0} and made["complete"]


def test_only_what_is_missing_is_read(source: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    do(source, output, log=log)
    before = rows(output)
    assert words_read(log) == COUNT
    do(source, output, log=log)
    assert words_read(log) == COUNT
    (output / "part-000002.parquet").unlink()
    (output / ".part-000002.parquet.12345678.tmp").write_bytes(b"of a run that was killed")
    seen: list[Status] = []
    made = run(job(source, output, log=log), Here(), seen.append)
    assert words_read(log) == COUNT + 10 and rows(output) == before
    assert made["counts"]["words"] == COUNT and made["complete"]
    assert not [path for path in output.iterdir() if ".tmp" in path.name]
    last = seen[-1]
    assert (last.there, last.words, last.total, last.fraction, last.began_at) == (COUNT - 10, COUNT, COUNT, 1.0, 0.75)
    assert last.speed > 0 and last.left == 0


def test_a_full_shard_is_known_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_ROWS", 5)  # a part of ten is written in two full groups
    log = tmp_path / "log"
    for _ in range(2):
        assert do(source, tmp_path / "out", log=log)["counts"] == {"parts": 4, "words": COUNT, "errors": 0}
    assert words_read(log) == COUNT and texts(tmp_path / "out") == ALL


def test_a_job_that_lacks_results_is_not_complete(source: Path, tmp_path: Path) -> None:
    output, seen = tmp_path / "out", []
    do(source, output)
    (output / "part-000002.parquet").unlink()
    run(job(source, output), Here(), lambda status: seen.append(manifest(output)["complete"]))
    assert seen == [False] * 10 and manifest(output)["complete"]


def test_time_left_where_pictures_cannot_be_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.tar").write_bytes(archive(range(10 * i, 10 * i + 10)))
    fractions = []
    made = run(job(tmp_path / "in", tmp_path / "out"), Here(), lambda status: fractions.append(status.fraction))
    assert made["input"]["words"] is None and fractions == sorted(fractions)
    assert fractions[0] == 0 and fractions[-1] == pytest.approx(0.75)  # the last archive is not over before it ends


def test_what_it_is_not_gone_on_with(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    do(source, output)
    (output / "part-000001.parquet").unlink()
    other = folder(tmp_path / "other", range(3))
    (tmp_path / "words.txt").write_text("000001\n000002\n")
    words = Lexicon.from_file(tmp_path / "words.txt")
    for options, what in (
        ({"part": 20}, r"another words a part \(10, not 20\)"),
        ({"characters": True}, r"another with characters \(False, not True\)"),
        ({"reader": {"characters": "0123456789"}}, r"another characters \(none, not 0123456789\)"),
        ({"reader": {"lexicon": words}}, r"another lexicon \(none, not sha256 [0-9a-f]{16}\)"),
        ({"reader": {"prior": Prior({"000001": 1.0})}}, r"another prior \(none, not sha256 [0-9a-f]{16}, weight 0.5\)"),
        ({"reader": {"engine": "onnxruntime"}}, r"another engine \(light, not onnxruntime\)"),
    ):
        with pytest.raises(OptionError, match=what):
            do(source, output, **options)
    with pytest.raises(OptionError, match=rf"another input \({source}, not {other}\)"):
        do(other, output)
    assert not (output / "part-000001.parquet").exists()
    do(source, output, reader={"batch_size": 3, "threads": 1})  # which change no row
    assert texts(output) == ALL


def test_another_model(source: Path, tmp_path: Path) -> None:
    first = job(source, tmp_path / "out")
    run(first, Here())
    other = tmp_path / "other.onnx"
    other.write_bytes(b"other weights")
    first.reader["engine"].path = other
    with pytest.raises(OptionError, match=r"another model \(sha256 [0-9a-f]{16}, not sha256 [0-9a-f]{16}\)"):
        run(first, Here())


@pytest.mark.parametrize("change", ["content", "gone", "new", "time"])
def test_a_changed_input(change: str, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    do(source, output)
    file = source / "000022.png"
    if change == "content":
        file.write_bytes(numbered(99))
        what = "000022.png has changed"
    elif change == "gone":
        file.unlink()
        what = "000023.png stands where 000022.png was"
    elif change == "new":
        (source / "zzz" / "9.png").parent.mkdir()
        (source / "zzz" / "9.png").write_bytes(numbered(9))
        what = "zzz/9.png has come"
    else:
        os.utime(file, (1, 1))
        what = "000022.png has changed"
    with pytest.raises(OptionError, match=rf"not what it was when the job began \({what}\)"):
        do(source, output)


def test_pictures_that_cannot_be_read_are_rows(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", range(5))
    (source / "bad.png").write_bytes(b"nothing")
    (source / "x.tar").write_bytes(archive(range(5, 8), bad=b"nothing"))
    (source / "y.tar").write_bytes(archive(range(8, 11))[:3000])
    (source / "z.tar").write_bytes(archive(range(0)))
    (source / "p.parquet").write_bytes(table(range(20, 40), 20)[:-900])
    data = bytearray(table(range(40, 44), 2))
    data[300:330] = bytes(30)
    (source / "q.parquet").write_bytes(bytes(data))
    words = lmdb(source / "words", range(50, 53))
    import lmdb as library

    with library.open(str(words)) as env, env.begin(write=True) as transaction:
        transaction.delete(b"image-000000002")
    made = do(source, tmp_path / "out", part=3)
    errors = {row["source"].removeprefix(f"{source}/"): row["error"] for row in rows(tmp_path / "out") if row["error"]}
    assert made["counts"]["errors"] == len(errors) and made["complete"]
    assert errors.pop("bad.png").startswith("not a picture") and errors.pop("x.tar/bad.png").startswith("not a picture")
    assert errors.pop("y.tar").startswith("damaged or truncated tar archive")
    assert errors.pop("z.tar") == "no picture in it" and errors.pop("words/image-000000002") == "missing"
    assert errors.pop("p.parquet").startswith("damaged Parquet file")
    assert errors and all(name.startswith("q.parquet") for name in errors)
    assert all(
        row["text"] is None and row["confidence"] is None if row["error"] else row["text"] is not None
        for row in rows(tmp_path / "out")
    )
    found = {row["text"] for row in rows(tmp_path / "out")}
    assert {f"{i:06}" for i in (*range(9), 50, 52)} <= found


def test_a_part_has_its_limits() -> None:
    assert Layout(MOST_WORDS).words == MOST_WORDS
    for words in (0, MOST_WORDS + 1):
        with pytest.raises(OptionError, match=rf"a part has from 1 to 100,000 pictures, not {words:,}"):
            Layout(words)


def test_too_many_errors_stop_it_and_it_can_go_on(source: Path, tmp_path: Path) -> None:
    for file in sorted(source.glob("*.png"))[12:18]:
        file.write_bytes(b"nothing")
    output = tmp_path / "out"
    with pytest.raises(TooManyErrors, match=r"stopped: 3 of \d+ pictures could not be read"):
        do(source, output, max_errors=2)
    state = manifest(output)
    assert not state["complete"] and 0 < state["counts"]["parts"] < 4
    assert not [path for path in output.iterdir() if ".tmp" in path.name]
    assert do(source, output, max_errors=6)["counts"] == {"parts": 4, "words": COUNT, "errors": 6}
    with pytest.raises(TooManyErrors):
        do(source, output, max_errors=5)


def test_a_storage_that_fails_stops_it(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_WAITS", (0.0, 0.0))
    for i in range(COUNT):
        memory.pipe_file(f"/in/{i:06}.png", numbered(i))
    read, tries, lock = type(memory).cat_file, [0], threading.Lock()

    def failing(self: Any, path: str, *arguments: Any, **options: Any) -> bytes:
        if path.endswith("25.png"):
            with lock:
                tries[0] += 1
            if tries[0] <= allowed:
                raise TimeoutError("the network is gone")
        data: bytes = read(self, path, *arguments, **options)
        return data

    monkeypatch.setattr(type(memory), "cat_file", failing)
    allowed = 3
    with pytest.raises(DatasetError, match=r"memory://in/000025.png: cannot be read \(the network is gone\)"):
        do("memory://in", "memory://out")
    assert tries == [3] and len(rows("memory://out")) < COUNT
    tries[0], allowed = 0, 2  # it comes back
    do("memory://in", "memory://out")
    assert texts("memory://out") == ALL


@pytest.mark.parametrize("what", ["key expired", "bucket gone", "file gone", "file refused"])
def test_only_a_file_that_is_gone_from_a_storage_is_a_row(
    what: str, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs raises PermissionError for a key that has expired, and FileNotFoundError for a bucket that is gone."""
    monkeypatch.setattr(pictures, "_WAITS", (0.0, 0.0))
    for i in range(COUNT):
        memory.pipe_file(f"/in/{i:06}.png", numbered(i))
    read = type(memory).cat_file

    def failing(self: Any, path: str, *arguments: Any, **options: Any) -> bytes:
        if path.endswith("25.png"):
            if what == "key expired":
                monkeypatch.setattr(type(memory), "info", expired)
            if what in ("key expired", "file refused"):
                raise PermissionError("Access denied")
            if what == "bucket gone":
                memory.rm("/in", recursive=True)
            raise FileNotFoundError("no such bucket or key")
        data: bytes = read(self, path, *arguments, **options)
        return data

    def expired(*_: Any, **__: Any) -> None:
        raise PermissionError("The provided token has expired.")

    monkeypatch.setattr(type(memory), "cat_file", failing)
    if what.startswith("file"):
        assert do("memory://in", "memory://out")["counts"] == {"parts": 4, "words": COUNT, "errors": 1}
        return
    message = {
        "key expired": r"memory://in: .*The provided token has expired.",
        "bucket gone": "memory://in: there is no such file or folder",
    }[what]
    with pytest.raises(DatasetError, match=message):
        do("memory://in", "memory://out")
    assert not [row for row in rows("memory://out") if row["error"]]


def test_an_object_store_has_no_empty_folders(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mkdir", "makedirs"):  # which make nothing below a bucket
        monkeypatch.setattr(type(memory), name, lambda *arguments, **options: None)
    for i in range(3):
        memory.pipe_file(f"/in/{i:06}.png", numbered(i))
    for _ in range(2):
        assert do("memory://in", "memory://new/prefix")["counts"]["words"] == 3
    assert texts("memory://new/prefix") == ALL[:3]


def test_a_disk_that_is_gone_stops_it(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed is no more: that is no fault of the pictures, and no row says that it were."""
    monkeypatch.setattr(pictures, "_WAITS", (0.0, 0.0))
    read, gone = Place.read, OSError(errno.ESTALE, "Stale file handle")

    def failing(self: Place) -> bytes:
        if self.path.endswith("25.png"):
            raise gone
        return read(self)

    monkeypatch.setattr(Place, "read", failing)
    with pytest.raises(DatasetError, match=r"000025.png: cannot be read \(Stale file handle\)"):
        do(source, tmp_path / "out")
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    monkeypatch.setattr(os.path, "lexists", lambda path: path != str(source))
    with pytest.raises(DatasetError, match="in: is not there; no disk is mounted there any more, or not here"):
        do(source, tmp_path / "out")
    monkeypatch.undo()
    assert not [row for row in rows(tmp_path / "out") if row["error"]]
    do(source, tmp_path / "out")
    assert texts(tmp_path / "out") == ALL


def test_a_file_that_cannot_be_read_may_be_the_files_fault(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_WAITS", (0.0, 0.0))
    read, tries = Place.read, [0]

    def failing(self: Place) -> bytes:
        if self.path.endswith("25.png"):
            tries[0] += 1
            if tries[0] <= most:
                raise OSError(errno.EIO, "Input/output error")
        return read(self)

    monkeypatch.setattr(Place, "read", failing)
    most = 2  # of three attempts
    assert do(source, tmp_path / "passed")["counts"]["errors"] == 0
    tries[0], most = 0, 3
    do(source, tmp_path / "damaged")
    [lost] = [row for row in rows(tmp_path / "damaged") if row["error"]]
    assert lost["error"] == "cannot be read (Input/output error)"


def test_an_empty_folder_where_a_disk_was_mounted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Place.read

    def unmounted(self: Place) -> bytes:
        if self.path.endswith("25.png"):
            source.rename(tmp_path / "unmounted")
            source.mkdir()
        return read(self)

    monkeypatch.setattr(Place, "read", unmounted)
    with pytest.raises(DatasetError, match="in: is not there; no disk is mounted there any more, or not here"):
        do(source, tmp_path / "out")
    assert not [row for row in rows(tmp_path / "out") if row["error"]]


def test_rows_that_cannot_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_ROWS", 2)
    writer = shards.ShardWriter(place(tmp_path), 0, "job", shards.schema(characters=False, kept=False))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._writer, "write_table", full)
    writer.add(Word("a", 0.5, (), "a.png"))
    with pytest.raises(OptionError, match=r"part-000000\.parquet: cannot be written \(No space left on device\)"):
        writer.add(Word("b", 0.5, (), "b.png"))
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_a_password_in_a_url_is_not_written_down() -> None:
    assert place("http://user:secret@127.0.0.1/x/t.tar").url == "http://user@127.0.0.1/x/t.tar"
    assert place("http://127.0.0.1:8080/a:b@c.tar").url == "http://127.0.0.1:8080/a:b@c.tar"
    assert (
        public("ftp://u:p@ss@h/x") == "ftp://u@h/x"
        and public("simplecache::http://u:p@h/x@y") == "simplecache::http://u@h/x@y"
    )
    for url in ("github://org:repo@main/data", "abfs://words@account.dfs.core.windows.net/a", "s3://bucket/a:b@c"):
        assert public(url) == url


def test_an_archive_on_a_storage_that_fails(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/in/a.tar", archive(range(COUNT)))
    opened = type(memory)._open

    class Failing:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, size: int = -1) -> bytes:
            if self.file.tell() > 20_000:
                raise TimeoutError("the network is gone")
            data: bytes = self.file.read(size)
            return data

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    def failing(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        file = opened(self, path, mode, **options)
        return Failing(file) if path.endswith(".tar") else file

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "_open", failing)
        with pytest.raises(DatasetError, match=r"a.tar: cannot be read \(the network is gone\)"):
            do("memory://in", "memory://out")
    assert rows("memory://out") == []
    do("memory://in", "memory://out")
    assert texts("memory://out") == ALL


def test_folders_that_are_not_ours(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="lies in the input, which would grow"):
        do(source, source / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "data.parquet").write_bytes(table(range(2), 2))
    with pytest.raises(OptionError, match=r"holds Parquet files, and no _job.json that says what they are"):
        do(source, tmp_path / "used")
    (tmp_path / "used" / "_job.json").write_text('{"schema": "other"}')
    with pytest.raises(DatasetError, match="not written by this version of crnn job"):
        do(source, tmp_path / "used")
    (tmp_path / "used" / "_job.json").write_text("{")
    with pytest.raises(DatasetError, match=r"_job.json: cannot be read"):
        do(source, tmp_path / "used")


def test_shards_that_are_not_ours(source: Path, tmp_path: Path) -> None:
    do(source, tmp_path / "out")
    do(source, tmp_path / "other", characters=True)
    file = tmp_path / "out" / "part-000001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    with pytest.raises(DatasetError, match=r"part-000001.parquet: damaged .*; delete it, and the job reads it again"):
        do(source, tmp_path / "out")
    file.write_bytes((tmp_path / "other" / file.name).read_bytes())
    with pytest.raises(OptionError, match=r"part-000001.parquet: was not written by this job"):
        do(source, tmp_path / "out")


def test_an_output_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be made"):
        do(source, tmp_path / "file" / "out")
    output = tmp_path / "out"
    do(source, output)
    (output / "part-000001.parquet").unlink()
    (output / "part-000001.parquet").mkdir()  # in the way
    (output / "part-000001.parquet" / "x").touch()
    with pytest.raises((OptionError, DatasetError), match=r"part-000001.parquet"):
        do(source, output)


def test_a_lexicon(source: Path, tmp_path: Path) -> None:
    Image.new("L", (100, 32)).save(source / "000001.png")
    made = do(source, tmp_path / "out", reader={"lexicon": Lexicon(["000007", "000008"])})
    assert set(texts(tmp_path / "out")) == {"000007", "000008"}
    assert all(0 <= row["kept"] <= 1 for row in rows(tmp_path / "out"))
    assert made["options"]["knowledge"]["lexicon"]["words"] == 2
