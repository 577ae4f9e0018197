from __future__ import annotations

import io
import lzma
import os
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import lmdb
import pytest
from PIL import Image

from crnn.datasets import tar
from crnn.datasets.lmdb import LmdbWriter
from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.images import open_gray
from crnn.inputs import listed, pictures


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 5), value).save(file, "PNG")
    return file.getvalue()


def found(*paths: str | Path, **options: Any) -> tuple[list[tuple[str, int]], dict[str, str]]:
    """(source, gray value) of every picture, and what was skipped with its reason."""
    skipped: dict[str, str] = {}
    values: list[tuple[str, int]] = []
    for source, data in pictures(paths, on_skip=skipped.__setitem__, **options):
        try:
            pixel = open_gray(data).getpixel((0, 0))
        except CrnnError as error:
            skipped[source] = str(error)
            continue
        assert isinstance(pixel, int)
        values.append((source, pixel))
    return values, skipped


def archive(members: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_files_are_passed_on_in_order_and_unopened(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(png(2))
    (tmp_path / "no suffix").write_bytes(png(1))
    values, skipped = found(tmp_path / "no suffix", tmp_path / "b.png", tmp_path / "gone.png", "http://host/a.png")
    assert [value for _, value in values] == [1, 2]
    assert "No such file" in skipped[str(tmp_path / "gone.png")]
    assert "download" in skipped["http://host/a.png"]


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", "sub/deeper/d.webp", "notes.txt", ".hidden.png", ".git/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(7))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    with LmdbWriter(tmp_path / "words_lmdb") as writer:
        writer.add(png(9), "nine")
    (tmp_path / "more.tar").write_bytes(archive({"t.png": png(8)}))
    values, skipped = found(tmp_path)
    names = [os.path.relpath(source, tmp_path) for source, _ in values]
    assert names == [
        "a.JPG", "b.png", "more.tar/t.png", "sub/c.png", "sub/deeper/d.webp", "words_lmdb/image-000000001"
    ]  # fmt: skip
    assert sorted(os.path.basename(source) for source in skipped) == ["dangling.png", "itself.png"]
    names = [os.path.relpath(source, tmp_path) for source, _ in found(tmp_path, recursive=False)[0]]
    assert names == ["a.JPG", "b.png", "more.tar/t.png"]


def test_nothing_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with LmdbWriter(tmp_path / "empty_lmdb"):
        pass
    (tmp_path / "empty.tar").write_bytes(archive({"readme.txt": b"x"}))
    for path in (tmp_path / "empty_lmdb", tmp_path / "empty.tar"):
        assert list(found(path)[1]) == [str(path)]
        with pytest.raises(DatasetError, match=r"empty.*: no "):
            list(pictures([path]))
    (tmp_path / "folder").mkdir()
    assert found(tmp_path / "folder")[1] == {str(tmp_path / "folder"): "no picture in this folder"}


def test_pictures_of_telephones_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    skipped = found(tmp_path)[1]
    assert skipped == {str(tmp_path / "IMG_1.HEIC"): ".heic pictures are not decoded here: convert it to JPEG or PNG"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_a_folder_does_not_hang_and_a_named_one_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert found(tmp_path)[1] == {str(pipe): "a pipe or a device, not a file"}
    writer = threading.Thread(target=pipe.write_bytes, args=(png(5),))
    writer.start()
    assert found(pipe) == ([(str(pipe), 5)], {})
    writer.join()


def test_lmdb_folder_and_file_with_holes(tmp_path: Path) -> None:
    path = tmp_path / "words_lmdb"
    with lmdb.open(str(path)) as env, env.begin(write=True) as writing:
        writing.put(b"num-samples", b"3")
        for i in (1, 3):
            writing.put(b"image-%09d" % i, png(i))
    expected = [("image-000000001", 1), ("image-000000003", 3)]
    for place in (path, path / "data.mdb"):
        values, skipped = found(place)
        assert [(source.removeprefix(f"{place}/"), value) for source, value in values] == expected
        assert skipped == {f"{place}/image-000000002": "missing"}
    (path / "data.mdb").rename(tmp_path / "single")
    assert len(found(tmp_path / "single")[0]) == 2
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "data.mdb").write_bytes(b"\0" * 9000)
    (tmp_path / "z.png").write_bytes(png(4))
    values, skipped = found(broken, tmp_path)  # the search goes on behind it
    assert str(tmp_path / "z.png") in dict(values)
    assert "not an LMDB data set" in skipped[str(broken)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path: Path, mode: str) -> None:
    names = {"a.png": png(1), "dir/ü.png": png(2), "d/" * 90 + "long.png": png(3), "._a.png": b"mac", "x.txt": b"no"}
    path = tmp_path / "words.tar"
    path.write_bytes(archive(names, mode))
    expected = [(f"{path}/{name}", i + 1) for i, name in enumerate(list(names)[:3])]
    assert found(path) == (expected, {})
    path.rename(tmp_path / "no suffix")
    assert [value for _, value in found(tmp_path / "no suffix")[0]] == [1, 2, 3]


def test_a_tar_on_something_that_cannot_seek() -> None:
    """As a file over HTTP, whose server sends it without a length."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as written:
        member = tarfile.TarInfo("a.png")
        member.size = 3
        written.addfile(member, io.BytesIO(b"abc"))

    class Stream:
        read = io.BytesIO(file.getvalue()).read

        def seek(self, *_: object) -> int:
            raise ValueError("cannot seek")

        tell = seek

    assert list(tar.tar_members(Stream(), "a.tar", (".png",))) == [("a.png", b"abc")]


def test_a_tar_in_several_xz_streams(tmp_path: Path) -> None:
    whole, path = archive({f"{i}.png": png(i) for i in range(4)}), tmp_path / "words.tar.xz"
    streams = [lzma.compress(whole[start : start + 1500]) for start in range(0, len(whole), 1500)]
    for padding in (b"", bytes(4), bytes(70_000)):
        path.write_bytes(padding.join(streams) + padding)
        values, skipped = found(path)
        assert ([value for _, value in values], skipped) == ([0, 1, 2, 3], {})
    path.write_bytes(streams[0] + streams[1][:-40])
    values, skipped = found(path)
    assert values and "damaged or truncated" in skipped[str(path)]


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        member = tarfile.TarInfo("passwd.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert found(tmp_path / "links.tar")[0] == []
    assert "link" in found(tmp_path / "links.tar")[1][f"{tmp_path}/links.tar/passwd.png"]


def test_a_cut_off_tar_gives_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    whole = archive({"a.png": png(1), "b.png": png(2), "c.png": os.urandom(3000)})
    for cut, count in ((2 * 1024 + 600, 2), (2 * 1024 + 100, 2), (1024 + 512 + 10, 1)):
        path.write_bytes(whole[:cut])
        values, skipped = found(path)
        assert [value for _, value in values] == [1, 2][:count]
        assert "damaged or truncated tar archive" in skipped[str(path)]
    path.write_bytes(whole[:1024] + b"?" * 512 + whole[1536:])  # tarfile takes this for the end
    values, skipped = found(path)
    assert ([value for _, value in values], list(skipped)) == ([1], [str(path)])


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.REGTYPE])
@pytest.mark.parametrize("size", [1 << 33, 1 << 80])
def test_absurd_sizes_in_a_tar_cost_nothing(tmp_path: Path, kind: bytes, size: int) -> None:
    header = tarfile.TarInfo("big.txt")
    header.size, header.type = size, kind
    path = tmp_path / "bomb.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 2000)
    values, skipped = found(path)
    assert values == [] and list(skipped) == [str(path)]


def test_large_members_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "STREAM_LIMIT", 100_000)
    path = tmp_path / "a.tar"
    path.write_bytes(archive({"big.png": b"\0" * 100_001, "b.png": png(2)}))
    values, skipped = found(path)
    assert values == [(f"{path}/b.png", 2)]
    assert "give it as a file of its own" in skipped[f"{path}/big.png"]


class Stdin:
    """Standard input that cannot be wound back and gives a little at a time, like a pipe."""

    def __init__(self, data: bytes) -> None:
        reading, writing = os.pipe()
        self.writer = threading.Thread(target=self.feed, args=(writing, data))
        self.writer.start()
        self.buffer = os.fdopen(reading, "rb")

    @staticmethod
    def feed(writing: int, data: bytes) -> None:
        with os.fdopen(writing, "wb", buffering=0) as file:
            for at in range(0, len(data), 100):
                file.write(data[at : at + 100])


@pytest.mark.parametrize("mode", [None, "w", "w:gz"])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    data = png(1) if mode is None else archive({"a.png": png(1), "b.png": png(2)}, mode)
    stdin = Stdin(data)
    monkeypatch.setattr(sys, "stdin", stdin)
    expected = [("-", 1)] if mode is None else [("-/a.png", 1), ("-/b.png", 2)]
    assert found("-") == (expected, {})
    stdin.writer.join()  # all was taken from the pipe, padding included
    stdin.buffer.close()


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no /dev/zero")
def test_a_stream_that_never_ends_is_refused() -> None:
    assert found("/dev/zero")[1] == {"/dev/zero": "more than 64 MiB; give it as a file of its own"}


def test_list_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.png\r\n\n# no comment.png\nb c.png\nlast\xff.png")
    assert list(listed(path)) == ["a.png", "# no comment.png", "b c.png", os.fsdecode(b"last\xff.png")]
    with pytest.raises(OptionError, match="No such file"):
        listed(tmp_path / "gone.txt")
    with pytest.raises(OptionError, match="directory"):
        listed(tmp_path)


def test_a_stream_without_end_is_taken_as_needed() -> None:
    def names() -> Any:
        while True:
            yield "a.png"

    items = pictures(names())
    assert [next(items).source for _ in range(3)] == ["a.png"] * 3


def test_a_tar_without_its_end_mark_is_said_to_be_cut_off(tmp_path: Path) -> None:
    whole = archive({"a.png": png(1), "b.png": png(2)})
    (tmp_path / "cut.tar").write_bytes(whole[:1024])  # after the first picture and what fills its block
    values, skipped = found(tmp_path / "cut.tar")
    assert [value for _, value in values] == [1] and "truncated" in skipped[f"{tmp_path}/cut.tar"]
    (tmp_path / "whole.tar").write_bytes(whole[: 2048 + 512])  # one block of zeros is a mark
    assert found(tmp_path / "whole.tar")[1] == {}


def test_a_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\nb.png\n", encoding="utf-8-sig")
    assert list(listed(tmp_path / "list.txt")) == ["a.png", "b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_an_lmdb_in_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"l\xff")
    with LmdbWriter(path) as writer:
        writer.add(png(7), "x")
    assert [value for _, value in found(tmp_path)[0]] == [7]
