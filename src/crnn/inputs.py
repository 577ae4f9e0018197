"""Where pictures come from: files, folders, LMDB data sets, tar archives, standard input, lists of those.

Everything is a stream: however many pictures there are, only the one at hand and the names in its folder are held,
and a tar archive is read from front to back once, so it may come through a pipe.
"""

from __future__ import annotations

import codecs
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from crnn.datasets.lmdb import LmdbReader, is_lmdb
from crnn.datasets.tar import STREAM_LIMIT, TAR_SUFFIXES, Forward, is_tar, tar_members, too_large, why
from crnn.errors import CrnnError, DatasetError, ImageError, OptionError
from crnn.images import SUFFIXES, UNKNOWN_SUFFIXES
from crnn.reader import Item

_LIST_LINE = 1 << 16  # bytes; no file system has longer paths

OnSkip = Callable[[str, str], None]
"""Called with a source and the reason, in words, why there is no picture to be had from it."""


def pictures(
    paths: Iterable[str | os.PathLike[str]], *, recursive: bool = True, on_skip: OnSkip | None = None
) -> Iterator[Item]:
    """The pictures at ``paths``, in the order of the paths and, within a folder, of the names.

    A path is a picture file, a folder (searched for pictures, archives and LMDB data sets by name; hidden entries are
    passed over and links to folders not followed), an LMDB data set, a tar archive (may be compressed with gzip, bzip2
    or xz), a pipe, or ``-`` for standard input; the last two give one picture or a tar archive. An item's source is
    the path; behind it, with a slash, stand the key in the data set or the name in the archive. Picture files are not
    opened here, so one that is missing or damaged shows when it is read.

    What cannot be found or read is handed to ``on_skip``, and the search goes on behind it. Without ``on_skip`` it is
    raised: DatasetError (a damaged archive or data set, a folder without pictures), ImageError (a picture that is too
    large to be streamed).
    """

    def skip(source: str, error: CrnnError) -> None:
        if on_skip is None:
            raise error
        on_skip(source, str(error).removeprefix(f"{source}: ").removeprefix(f"{Path(source)}: "))

    for path in paths:
        name = os.fspath(path)
        try:
            yield from _at(name, recursive, skip)
        except CrnnError as error:
            skip(name, error)


def listed(path: str | os.PathLike[str]) -> Iterator[str]:
    """The paths in a text file (``-``: standard input), one a line; empty lines do not count.

    The file is opened at once and read as it is needed. Raises OptionError if it cannot be opened or read.
    """
    name = os.fspath(path)
    try:
        file = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115 (closed by _lines)
    except (OSError, ValueError) as error:
        raise OptionError(f"{name}: cannot be opened ({why(error)})") from None
    return _lines(file, name)


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    try:
        with file:
            start = codecs.BOM_UTF8
            while line := file.readline(_LIST_LINE):
                line, start = line.removeprefix(start), b""
                if line := line.rstrip(b"\r\n"):
                    yield os.fsdecode(line)
    except OSError as error:
        raise OptionError(f"{name}: cannot be read ({why(error)})") from None


_Skip = Callable[[str, CrnnError], None]


def _at(name: str, recursive: bool, skip: _Skip) -> Iterator[Item]:
    """The pictures at one path."""
    if name == "-":
        yield from _stream(sys.stdin.buffer, name, skip)
        return
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):  # ValueError: a NUL character
        yield Item(name, name)  # opening it says why it cannot be opened
        return
    if stat.S_ISDIR(mode):
        yield from _folder(name, recursive, skip)
    elif not stat.S_ISREG(mode):
        with _opened(name) as file:
            yield from _stream(file, name, skip)
    elif name.lower().endswith(SUFFIXES):
        yield Item(name, name)
    else:
        yield from _file(name, skip)


def _file(name: str, skip: _Skip) -> Iterator[Item]:
    """A file whose name does not say what it is: its first bytes do."""
    with _opened(name) as file:
        try:
            head = file.read(tarfile.BLOCKSIZE)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({why(error)})") from None
        if is_tar(head, name):
            yield from _tar(Forward(file, head), name, skip)
        elif is_lmdb(head):
            yield from _lmdb(name, skip)
        else:
            yield Item(name, name)


def _stream(file: BinaryIO, name: str, skip: _Skip) -> Iterator[Item]:
    """Something that can be read once: a picture or an archive."""
    try:
        head = file.read(tarfile.BLOCKSIZE)
        if is_tar(head, name):
            yield from _tar(Forward(file, head), name, skip)
            return
        data = head + file.read(STREAM_LIMIT + 1 - len(head))
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({why(error)})") from None
    if len(data) > STREAM_LIMIT:
        raise ImageError(f"{name}: {too_large()}")
    yield Item(name, data)


def _folder(top: str, recursive: bool, skip: _Skip) -> Iterator[Item]:
    pending, found = [top], False
    while pending:
        folder = pending.pop()
        if os.path.isfile(os.path.join(folder, "data.mdb")):
            found = True
            try:
                yield from _lmdb(folder, skip)
            except CrnnError as error:
                skip(folder, error)
            continue
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            found = True  # or rather, something is said about it
            skip(folder, DatasetError(f"{folder}: cannot be opened ({why(error)})"))
            continue
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
                continue
            name = entry.name.lower()
            is_picture = name.endswith(SUFFIXES)
            if name.endswith(UNKNOWN_SUFFIXES):
                found = True
                what = f"{os.path.splitext(name)[1]} pictures are not decoded here: convert it to JPEG or PNG"
                skip(entry.path, ImageError(f"{entry.path}: {what}"))
                continue
            if not (is_picture or name.endswith(TAR_SUFFIXES)) or os.path.isdir(entry.path):
                continue
            found = True
            if os.path.exists(entry.path) and not os.path.isfile(entry.path):
                skip(entry.path, DatasetError(f"{entry.path}: a pipe or a device, not a file"))  # it might never end
            elif is_picture:
                yield Item(entry.path, entry.path)
            else:
                try:
                    yield from _file(entry.path, skip)
                except CrnnError as error:
                    skip(entry.path, error)
        if recursive:
            pending += reversed(below)
    if not found:
        raise DatasetError(f"{top}: no picture in this folder")


def _lmdb(name: str, skip: _Skip) -> Iterator[Item]:
    reader = LmdbReader(name)
    if not len(reader):
        raise DatasetError(f"{name}: no word in this data set")
    for i in range(len(reader)):
        source = f"{name.rstrip('/')}/{reader.key(i)}"
        try:
            data = reader.image_bytes(i)
        except CrnnError as error:
            skip(source, type(error)(str(error).removeprefix(f"{reader.path}: {reader.key(i)}: ")))
            continue
        yield Item(source, data)


def _tar(file: Forward, name: str, skip: _Skip) -> Iterator[Item]:
    found = False
    for member, data in tar_members(file, name, SUFFIXES):
        found = True
        source = f"{name}/{member}"
        if isinstance(data, bytes):
            yield Item(source, data)
        else:
            skip(source, data)
    if not found:
        raise DatasetError(f"{name}: no picture in this archive")


def _opened(name: str) -> BinaryIO:
    try:
        return open(name, "rb")
    except OSError as error:
        raise DatasetError(f"{name}: cannot be opened ({why(error)})") from None
