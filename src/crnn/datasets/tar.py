"""Tar archives of pictures, damaged and hostile ones included. They are read once, so they may come through a pipe."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from typing import Any

from crnn.errors import CrnnError, DatasetError, ImageError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

STREAM_LIMIT = 64 << 20
"""Largest encoded picture, in bytes, that is taken from a stream (standard input, a pipe, an archive). It has to be
held whole; a file of its own has not, and may be larger."""

_TAR_HEADER = 1 << 20  # bytes of a long name or of attributes, which tarfile would hold whole at any size


def tar_members(file: Any, name: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes | CrnnError]]:
    """(name, content) of the files in a tar archive whose names end in one of ``suffixes`` (lower case; any case is
    meant); for one that cannot be had, the error that says why. Hidden files are passed over.

    ``file`` is read from front to back once and may be compressed; ``name`` is what messages call it. Raises
    DatasetError for a damaged archive.
    """
    try:
        # "r:" and not "r|*": tarfile's own stream seeks for ages in an archive that names an absurd size
        content: Any = Forward(_decompressed(file))
        header = _member()
        with tarfile.open(fileobj=content, mode="r:", tarinfo=header) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # of which it would keep one for every picture
                base = member.name.rpartition("/")[2]
                if base.startswith(".") or not base.lower().endswith(suffixes) or member.isdir():
                    continue
                if not member.isreg():
                    yield member.name, DatasetError("a link inside the archive, or no file")
                elif member.size > STREAM_LIMIT:
                    yield member.name, ImageError(too_large())
                else:
                    data = tar.extractfile(member)
                    yield member.name, data.read() if data else b""
        if not header.ended:
            raise DatasetError(f"{name}: truncated tar archive (it has no end mark)")
        if isinstance(file, Forward):  # the padding at its end, so that whoever writes the pipe is not cut off
            file.seek(file.tell() + (1 << 20))
    except CrnnError:
        raise
    except Exception as error:  # tarfile, gzip and the others raise almost anything on damaged archives
        raise DatasetError(f"{name}: damaged or truncated tar archive ({why(error)})") from None


class Forward:
    """What tarfile asks of a file, for one that cannot be wound back: it seeks by reading."""

    def __init__(self, file: Any, head: bytes = b"") -> None:
        self._file, self._head, self._position = file, head, 0

    def tell(self) -> int:
        """How many bytes have been read."""
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
        """Read on to ``position``. Raises OSError if that lies behind."""
        if position < self._position:
            raise OSError("goes backwards")
        while (ahead := position - self._position) and self.read(min(ahead, 1 << 16)):
            pass
        return self._position


class _Member(tarfile.TarInfo):
    """A header that is refused where tarfile would take damage for the archive's end, or hold any size of name.

    ``ended``: whether the archive's end mark was met, a header of zeros; tarfile does not tell it from a file cut off.
    """

    ended = False

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if (kind := type(error).__name__) in ("EOFHeaderError", "EmptyHeaderError"):  # which have no public name
                cls.ended = cls.ended or kind == "EOFHeaderError"
                raise
            raise DatasetError(f"damaged or truncated tar archive ({error})") from None
        if member.size > _TAR_HEADER and (member.type in b"LKxgX"):
            raise DatasetError("damaged or hostile tar archive (a header of more than a megabyte)")
        return member


def _member() -> type[_Member]:
    """For one archive alone, as it remembers whether that has ended."""

    class Member(_Member):
        pass

    return Member


def _decompressed(file: Any) -> Any:
    """The archive itself, whatever it is wrapped in."""
    head = file.read(6)
    whole: Any = Forward(file, head)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=whole)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(whole)
    if head.startswith(b"\xfd7zXZ\0"):
        return _Xz(whole)
    return whole


class _Xz:
    """lzma.LZMAFile with a limit on memory: an xz file may ask for a window of 4 GiB. (``xz -9`` asks for 64 MiB.)

    Like that, it reads all of the streams that a file may consist of (``cat a.xz b.xz`` makes two).
    """

    def __init__(self, file: Forward) -> None:
        self._file, self._ahead = file, b""
        self._decoder = self._new()

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (not self._decoder.eof or self._begin_next()):
            more = b""
            if self._decoder.needs_input:
                more, self._ahead = self._ahead or self._file.read(1 << 16), b""
                if not more:
                    raise EOFError("ends in the middle")
            data += self._decoder.decompress(more, size - len(data))
        return bytes(data)

    def _begin_next(self) -> bool:
        """Whether another stream follows the one that has ended; zeros may stand between them."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest and (more := self._file.read(1 << 16)):
            rest = more.lstrip(b"\0")
        if rest:
            self._decoder, self._ahead = self._new(), rest
        return bool(rest)

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=256 << 20)


def is_tar(head: bytes, name: str) -> bool:
    """Whether ``head``, the first 512 bytes of what is called ``name``, begins a tar archive.

    No format of pictures begins like a compressed archive; very old archives are known by their names only.
    """
    return (
        head[257:262] == b"ustar"
        or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))
        or (len(head) > 0 and name.lower().endswith(TAR_SUFFIXES))
    )


def too_large() -> str:
    """Why a picture is not taken from a stream."""
    return f"more than {STREAM_LIMIT >> 20} MiB; give it as a file of its own"


def why(error: Exception) -> str:
    """What an error of the system or of a library says, in a line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
