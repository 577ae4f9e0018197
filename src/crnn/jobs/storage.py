"""Files on this machine's disks or in any other storage, by URL, through fsspec.

https://filesystem-spec.readthedocs.io
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from crnn.datasets.tar import why
from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.files import replaced as replaced_here

_PASSWORD = re.compile(r"(?<!github)(://[^/@:]*):[^/]*@")  # github://ORG:REPO@BRANCH/ has none there


@dataclass(frozen=True)
class Place:
    """A file or a folder. It can be pickled."""

    fs: Any
    """fsspec's file system."""
    path: str
    """As the file system calls it."""
    url: str
    """As the user calls it: an absolute path on this machine, a URL elsewhere, without a password."""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Place:
        if not name:
            return self
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}", f"{self.url.rstrip('/')}/{name}")

    @property
    def local(self) -> bool:
        """Whether it is a path on this machine."""
        return _is_local(self.fs)

    @property
    def shared(self) -> bool:
        """Whether other processes can see it."""
        return "memory" not in _protocols(self.fs)

    def read(self) -> bytes:
        """The whole content. Raises what the file system raises."""
        data: bytes = self.fs.cat_file(self.path)
        return data

    def entries(self, missing_ok: bool = False) -> list[dict[str, Any]]:
        """What is known of the files and folders in a folder, by name; hidden ones are left out.

        A link on this machine is taken for what it leads to, unless that is a folder. With ``missing_ok`` there is
        nothing in a folder that there is not: object stores have no empty ones. Raises DatasetError.
        """
        self.fs.invalidate_cache()  # which drivers keep of folders: stale here, and large
        with reading(self):
            try:
                found = self.fs.ls(self.path, detail=True)
            except FileNotFoundError:
                if not missing_ok:
                    raise
                return []
        own = self.path.rstrip("/")
        # object stores may list a folder in itself
        found = [info for info in found if info["name"].rstrip("/") != own and not base_name(info).startswith(".")]
        found.sort(key=lambda info: str(info["name"]))
        return [self.followed(info) for info in found]

    def followed(self, info: dict[str, Any]) -> dict[str, Any]:
        """What a link leads to, of the type "link" if that is a folder; ``info`` itself if it is none."""
        if not info.get("islink"):
            return info
        try:
            target: dict[str, Any] = self.fs.info(info["name"])
        except OSError:
            return {**info, "type": "file"}  # leads nowhere, which shows when it is read
        return {**target, "type": "link"} if target["type"] == "directory" else target


def base_name(info: dict[str, Any]) -> str:
    """The last part of the name of what fsspec's ``info`` describes."""
    return str(info["name"]).rstrip("/").rpartition("/")[2]


def public(url: str) -> str:
    """A URL as it may be written into results and messages: without a password."""
    return _PASSWORD.sub(r"\1@", url)


def place(url: str | os.PathLike[str]) -> Place:
    """What a path or a URL (``s3://bucket/folder``) names.

    Raises OptionError if fsspec, or its driver for such URLs, is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise OptionError("jobs need fsspec and pyarrow: pip install 'crnn[jobs]'") from None
    name = os.fspath(url)
    try:
        fs, path = url_to_fs(name)
    except ImportError as error:
        raise OptionError(f"{public(name)}: its driver is missing ({why(error)})") from None
    except Exception as error:  # an unknown protocol, or what a driver makes of a malformed URL
        raise OptionError(f"{public(name)}: not a path or URL that can be opened ({why(error)})") from None
    if _is_local(fs):
        path = os.path.abspath(path)
        return Place(fs, path, path)
    return Place(fs, path, public(name.rstrip("/")))


@contextmanager
def reading(of: Place) -> Iterator[None]:
    """Turns what a file system raises into DatasetError; drivers raise more than OSError where a network fails."""
    try:
        yield
    except CrnnError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{of}: there is no such file or folder") from None
    except Exception as error:
        raise DatasetError(f"{of}: cannot be read ({why(error)})") from None


@contextmanager
def replaced(target: Place) -> Iterator[BinaryIO]:
    """A file to write, which appears as ``target`` when the block ends well, and not at all otherwise.

    Until then it has a hidden name (:func:`is_left_over`) in the same folder, which is all that a kill leaves behind.
    Raises OptionError if it cannot be written.
    """
    if target.local:
        with replaced_here(Path(target.path), shared=True) as hidden, open(hidden, "wb") as file:
            yield file
        return
    folder, _, name = target.path.rpartition("/")
    temporary = f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"
    try:
        with target.fs.open(temporary, "wb") as file:
            yield file
        target.fs.mv(temporary, target.path)
    except BaseException as error:
        with suppress(Exception):  # it may never have come into being
            target.fs.rm_file(temporary)
        if isinstance(error, CrnnError) or not isinstance(error, Exception):
            raise
        raise OptionError(f"{target}: cannot be written ({why(error)})") from None


class Watched:
    """A file object that remembers what reading it raised.

    Whoever parses a file turns that into "damaged", and it may have been the network: then a job has to stop, and not
    to write the file off.
    """

    def __init__(self, of: Place, file: Any) -> None:
        self._of, self._file = of, file
        self._failure: Exception | None = None
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end."""
        try:
            data: bytes = self._file.read(size)
        except Exception as error:
            self._failure = error
            raise
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to a position, as in every file object."""
        return int(self._file.seek(position, whence))

    def tell(self) -> int:
        """The position."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """True; pyarrow asks for it, as for the next ones."""
        return True

    def writable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Does nothing: :func:`watched` closes the file."""

    def check(self) -> None:
        """Raise DatasetError if reading the file has failed."""
        if self._failure is not None:
            raise DatasetError(f"{self._of}: cannot be read ({why(self._failure)})")


@contextmanager
def watched(of: Place) -> Iterator[Watched]:
    """A file to read whose failures can be told from damage. Raises DatasetError if it cannot be opened."""
    with reading(of):
        file = of.fs.open(of.path, "rb")
    with file:
        yield Watched(of, file)


def is_left_over(name: str) -> bool:
    """Whether a file of this name is what a killed process left of one that :func:`replaced` was writing."""
    return name.startswith(".") and name.endswith(".tmp")


def make_folder(folder: Place) -> None:
    """Make a folder and those above it, as far as they are missing. Raises OptionError if that cannot be done."""
    try:
        folder.fs.makedirs(folder.path, exist_ok=True)
    except Exception as error:
        raise OptionError(f"{folder}: cannot be made ({why(error)})") from None


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _is_local(fs: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem  # a subclass of which shows no other machine's files

    return isinstance(fs, LocalFileSystem)
