"""Where pictures come from: files, folders, LMDB data sets, tar archives, standard input, lists of those.

Everything is a stream: however many pictures there are, only the one at hand and the names in its folder are held,
and a tar archive is read from front to back once, so it may come through a pipe.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from crnn.datasets.lmdb import LmdbReader
from crnn.errors import CrnnError, DatasetError, ImageError, OptionError
from crnn.reader import Item

# fmt: off
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".ico", ".qoi", ".pcx",
)
# fmt: on
"""What a picture's name ends in. Asked of what lies in folders and archives only: a file named by the user is opened
whatever it is called."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

STREAM_LIMIT = 64 << 20
"""Largest encoded picture, in bytes, that is taken from a stream (standard input, a pipe, an archive). It has to be
held whole; a file of its own has not, and may be larger."""

_LIST_LINE = 1 << 16  # bytes; no file system has longer paths
_TAR_HEADER = 1 << 20  # bytes of a long name or of attributes, which tarfile would hold whole at any size

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
        raise OptionError(f"{name}: cannot be opened ({_why(error)})") from None
    return _lines(file, name)


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    try:
        with file:
            while line := file.readline(_LIST_LINE):
                if line := line.rstrip(b"\r\n"):
                    yield os.fsdecode(line)
    except OSError as error:
        raise OptionError(f"{name}: cannot be read ({_why(error)})") from None


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
        head = file.read(tarfile.BLOCKSIZE)
        if _is_tar(head, name):
            yield from _tar(_Forward(file, head), name, skip)
        elif head[16:20] in (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde"):  # LMDB's magic number, in either byte order
            yield from _lmdb(name, skip)
        else:
            yield Item(name, name)


def _stream(file: BinaryIO, name: str, skip: _Skip) -> Iterator[Item]:
    """Something that can be read once: a picture or an archive."""
    try:
        head = file.read(tarfile.BLOCKSIZE)
        if _is_tar(head, name):
            yield from _tar(_Forward(file, head), name, skip)
            return
        data = head + file.read(STREAM_LIMIT + 1 - len(head))
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({_why(error)})") from None
    if len(data) > STREAM_LIMIT:
        raise ImageError(f"{name}: {_too_large()}")
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
            skip(folder, DatasetError(f"{folder}: cannot be opened ({_why(error)})"))
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


def _tar(file: _Forward, name: str, skip: _Skip) -> Iterator[Item]:
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


def tar_members(file: Any, name: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes | CrnnError]]:
    """(name, content) of the files in a tar archive whose names end in one of ``suffixes`` (lower case; any case is
    meant); for one that cannot be had, the error that says why. Hidden files are passed over.

    ``file`` is read from front to back once and may be compressed; ``name`` is what messages call it. Raises
    DatasetError for a damaged archive.
    """
    try:
        # "r:" and not "r|*": tarfile's own stream seeks for ages in an archive that names an absurd size
        content: Any = _Forward(_decompressed(file))
        with tarfile.open(fileobj=content, mode="r:", tarinfo=_Member) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # of which it would keep one for every picture
                base = member.name.rpartition("/")[2]
                if base.startswith(".") or not base.lower().endswith(suffixes) or member.isdir():
                    continue
                if not member.isreg():
                    yield member.name, DatasetError("a link inside the archive, or no file")
                elif member.size > STREAM_LIMIT:
                    yield member.name, ImageError(_too_large())
                else:
                    data = tar.extractfile(member)
                    yield member.name, data.read() if data else b""
        file.seek(file.tell() + (1 << 20))  # the padding at its end, so that whoever writes the pipe is not cut off
    except CrnnError:
        raise
    except Exception as error:  # tarfile, gzip and the others raise almost anything on damaged archives
        raise DatasetError(f"{name}: damaged or truncated tar archive ({_why(error)})") from None


class _Forward:
    """What tarfile asks of a file, for one that cannot be wound back: it seeks by reading."""

    def __init__(self, file: Any, head: bytes = b"") -> None:
        self._file, self._head, self._position = file, head, 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end."""
        if not 0 <= size <= STREAM_LIMIT:
            raise DatasetError(f"asks for {size} bytes at once")
        data, self._head = self._head[:size], self._head[size:]
        if len(data) < size:
            data += self._file.read(size - len(data))
        self._position += len(data)
        return data

    def seek(self, position: int) -> int:
        if position < self._position:
            raise OSError("goes backwards")
        while (ahead := position - self._position) and self.read(min(ahead, 1 << 16)):
            pass
        return self._position


class _Member(tarfile.TarInfo):
    """A header that is refused where tarfile would take damage for the archive's end, or hold any size of name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):  # which no public name is given to
                raise
            raise DatasetError(f"damaged or truncated tar archive ({error})") from None
        if member.size > _TAR_HEADER and (member.type in b"LKxgX"):
            raise DatasetError("damaged or hostile tar archive (a header of more than a megabyte)")
        return member


def _decompressed(file: Any) -> Any:
    """The archive itself, whatever it is wrapped in."""
    head = file.read(6)
    whole: Any = _Forward(file, head)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=whole)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(whole)
    if head.startswith(b"\xfd7zXZ\0"):
        return _Xz(whole)
    return whole


class _Xz:
    """lzma.LZMAFile with a limit on memory: an xz file may ask for a window of 4 GiB. (``xz -9`` asks for 64 MiB.)"""

    def __init__(self, file: _Forward) -> None:
        self._file, self._decoder = file, lzma.LZMADecompressor(memlimit=256 << 20)

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and not self._decoder.eof:
            more = self._file.read(1 << 16) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not more:
                raise EOFError("ends in the middle")
            data += self._decoder.decompress(more, size - len(data))
        return bytes(data)


def _is_tar(head: bytes, name: str) -> bool:
    """No format of pictures begins like a compressed archive; very old archives are known by their names only."""
    return (
        head[257:262] == b"ustar"
        or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))
        or (len(head) > 0 and name.lower().endswith(TAR_SUFFIXES))
    )


def _opened(name: str) -> BinaryIO:
    try:
        return open(name, "rb")
    except OSError as error:
        raise DatasetError(f"{name}: cannot be opened ({_why(error)})") from None


def _too_large() -> str:
    return f"more than {STREAM_LIMIT >> 20} MiB; give it as a file of its own"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
