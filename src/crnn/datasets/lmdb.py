"""The field's LMDB layout: ``num-samples``, ``image-%09d`` (an encoded picture) and ``label-%09d`` (UTF-8), from 1.

Indices in Python count from 0; keys, in files and in messages, from 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

import lmdb

from crnn.errors import DatasetError, ImageError, LabelError
from crnn.images import Mode, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

_COUNT = b"num-samples"
_MAGIC = (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde")  # in either byte order


def is_lmdb(head: bytes) -> bool:
    """Whether ``head``, the first bytes of a file (20 at least), begins an LMDB file."""
    return head[16:20] in _MAGIC


def check_target(path: Path, overwrite: bool) -> None:
    """Raise DatasetError if a data set may not be written at ``path``, because something lies there.

    With ``overwrite`` that may be an LMDB data set, a folder or a file, or an empty folder; never anything else.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise DatasetError(f"{path}: already exists; choose another name, delete it, or ask to overwrite it")
    try:
        if path.is_dir():
            names = {*os.listdir(path)}
            others = sorted(names - {"data.mdb", "lock.mdb"})
            if others and "data.mdb" in names:
                raise DatasetError(
                    f"{path}: {others[0]} in it is no part of a data set, so it is not overwritten; move it"
                )
            replaceable = not others
        elif replaceable := path.is_file():  # a pipe would be waited for
            with path.open("rb") as file:
                replaceable = is_lmdb(file.read(20))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be looked at ({error.strerror}), so it is not overwritten") from None
    if not replaceable:
        raise DatasetError(f"{path}: no LMDB data set, so it is not overwritten; choose another name, or delete it")


_MAKE_ONE = "labelled pictures of other kinds become one by: crnn data build {} OUT_lmdb"


class _Environment:
    """One open LMDB file. LMDB allows a process to open a file only once, so readers of the same file share it."""

    def __init__(self, path: Path) -> None:
        try:
            name, folder = os.fsencode(path), os.path.isdir(path)
            self.env = lmdb.open(
                name, subdir=folder, readonly=True, create=False, lock=False, readahead=False, meminit=False
            )
        except lmdb.Error as error:
            raise DatasetError(f"{path}: not an LMDB data set ({error}); {_MAKE_ONE.format(path)}") from None
        self.open = True

    def close(self) -> None:
        self.open = False
        self.env.close()


_environments: WeakValueDictionary[tuple[int, int], _Environment] = WeakValueDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    # An LMDB environment must not be used across a fork, and a lock held by another thread would stay locked for ever.
    global _lock
    _lock = threading.Lock()
    for environment in list(_environments.values()):
        environment.close()
    _environments.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _open(path: Path) -> _Environment:
    folder = os.path.isdir(path)  # Path's own raises where one may not look
    file = path / "data.mdb" if folder else path
    try:
        stat = file.stat()
    except PermissionError as error:
        raise DatasetError(f"{path}: cannot be opened ({error.strerror})") from None
    except OSError:
        what = "no such data set"
        if folder:
            what = f"no data.mdb in this folder, so it is not an LMDB data set; {_MAKE_ONE.format(path)}"
        raise DatasetError(f"{path}: {what}") from None
    with _lock:
        environment = _environments.get((stat.st_dev, stat.st_ino))
        if environment is None:
            environment = _Environment(path)
            needed = (environment.env.info()["last_pgno"] + 1) * environment.env.stat()["psize"]
            if stat.st_size < needed:  # reading past the end of a memory map would kill the process
                environment.close()
                raise DatasetError(f"{file}: truncated ({stat.st_size:,} of {needed:,} bytes); copy it again")
            _environments[stat.st_dev, stat.st_ino] = environment
    return environment


class LmdbReader:
    """The words of one LMDB data set (a folder, or a single file), read-only and without a lock.

    It opens on first use, in each process anew: it may be pickled, inherited by a fork, and shared by threads.
    Where ``num-samples`` is missing the ``image-*`` keys are counted and the words are those keys in order.

    Raises DatasetError for a data set that cannot be opened and for a missing image, LabelError for a missing or
    undecodable label, ImageError for a picture that cannot be decoded; each message names the data set and the key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._shared: _Environment | None = None
        self._numbers: Sequence[int] | None = None

    def __reduce__(self) -> tuple[type[LmdbReader], tuple[Path]]:
        return LmdbReader, (self.path,)

    def __repr__(self) -> str:
        return f"LmdbReader({str(self.path)!r})"

    def __len__(self) -> int:
        return len(self._all_numbers())

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        """All words in order as (encoded picture, label)."""
        for i in range(len(self)):
            yield self.image_bytes(i), self.label(i)

    def key(self, i: int) -> str:
        """The key of word ``i``'s picture, such as ``image-000000001``. IndexError if there is no word ``i``."""
        return f"image-{self._number(i):09d}"

    def image_bytes(self, i: int) -> bytes:
        """The encoded picture of word ``i``."""
        key = self.key(i)
        value = self._get(key)
        if value is None:
            raise DatasetError(f"{self.path}: {key}: missing")
        return value

    def image(self, i: int, mode: Mode = "L") -> Image:
        """The decoded picture of word ``i``."""
        data = self.image_bytes(i)
        try:
            return open_picture(data, mode)
        except ImageError as error:
            raise ImageError(f"{self.path}: {self.key(i)}: {str(error).removeprefix('picture: ')}") from None

    def label(self, i: int) -> str:
        """The label of word ``i`` as it is stored."""
        key = f"label-{self._number(i):09d}"
        value = self._get(key)
        if value is None:
            raise LabelError(f"{self.path}: {key}: missing")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise LabelError(f"{self.path}: {key}: not UTF-8 (byte {error.start})") from None

    def sha256(self) -> str:
        """SHA-256 of the content: the same for the same entries, however LMDB has laid them out on disk.

        It runs over all entries in the order of their keys: the key's length in bytes (8 bytes, little-endian), the
        key, the value's length, the value.
        """
        digest = hashlib.sha256()
        with self._errors(), self._env().begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                for part in (key, value):
                    digest.update(len(part).to_bytes(8, "little"))
                    digest.update(part)
        return digest.hexdigest()

    def _env(self) -> lmdb.Environment:
        shared = self._shared
        if shared is None or not shared.open:
            shared = self._shared = _open(self.path)
        return shared.env

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise DatasetError(f"{self.path}: damaged LMDB file ({error})") from None

    def _get(self, key: str) -> bytes | None:
        with self._errors(), self._env().begin() as transaction:
            return transaction.get(key.encode())

    def _number(self, i: int) -> int:
        numbers = self._all_numbers()
        if not 0 <= i < len(numbers):
            raise IndexError(f"{self.path}: no word {i}; it has {len(numbers)}")
        return numbers[i]

    def _all_numbers(self) -> Sequence[int]:
        if self._numbers is None:
            count = self._get(_COUNT.decode())
            if count is None:
                self._numbers = self._count_keys()
            else:
                entries = self._env().stat()["entries"]
                if not (count.isdigit() and len(count) < 19 and int(count) <= entries):
                    said = count[:20].decode(errors="replace")
                    what = f"num-samples says {said!r}, but there are {entries} entries"
                    raise DatasetError(f"{self.path}: {what}; copy the data set again or rebuild it")
                self._numbers = range(1, int(count) + 1)
        return self._numbers

    def _count_keys(self) -> list[int]:
        numbers = []
        with self._errors(), self._env().begin() as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(b"image-"):
                for key in cursor.iternext(values=False):
                    if not key.startswith(b"image-"):
                        break
                    if len(key) == 15 and key[6:].isdigit():
                        numbers.append(int(key[6:]))
        return numbers


class LmdbWriter:
    """Builds an LMDB data set; a context manager.

    The words go into a hidden folder beside ``path``, which takes that name when the ``with`` block ends well: whoever
    sees ``path`` sees all of it. After an exception nothing is left; after a kill only the hidden folder
    (``.NAME.*.tmp``), which may be deleted. An existing ``path`` is refused unless ``overwrite`` is set and it is an
    LMDB data set (:func:`check_target`); it is then replaced at the end, by two renames.

    Raises DatasetError if it cannot be written.
    """

    _FLUSH_BYTES = 16 << 20  # words are committed in groups of this size

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False, map_size: int = 64 << 20) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._map_size = map_size
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        self._count = 0
        self._env: lmdb.Environment | None = None

    def __enter__(self) -> Self:
        check_target(self.path, self._overwrite)
        folder = self.path.absolute()
        self._temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir()
            # No lock: nobody else knows this folder. No sync at each commit: only the last one counts.
            name = os.fsencode(self._temporary)
            self._env = lmdb.open(name, map_size=self._map_size, lock=False, sync=False, mode=0o644)
        except (OSError, lmdb.Error) as error:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise DatasetError(f"{self.path}: cannot be written ({error})") from None
        return self

    def __len__(self) -> int:
        return self._count

    def add(self, image: bytes, label: str) -> None:
        """Append one word: an encoded picture and its label."""
        self._count += 1
        try:
            self._put(f"label-{self._count:09d}", label.encode())
        except UnicodeEncodeError:
            self._count -= 1
            raise LabelError(f"label {label!r} cannot be written as UTF-8") from None
        self._put(f"image-{self._count:09d}", image)
        if self._pending_bytes >= self._FLUSH_BYTES:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put(_COUNT.decode(), str(self._count).encode())
                self._flush()
                self._opened().sync(True)
            self._close()
            if kind is None:
                self._publish()
        except (OSError, lmdb.Error) as failure:
            raise DatasetError(f"{self.path}: cannot be written ({failure})") from None
        finally:
            self._close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _opened(self) -> lmdb.Environment:
        if self._env is None:
            raise RuntimeError("LmdbWriter is used outside of its with block")
        return self._env

    def _close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _put(self, key: str, value: bytes) -> None:
        self._opened()
        self._pending.append((key.encode(), value))
        self._pending_bytes += len(value)

    def _flush(self) -> None:
        env = self._opened()
        while True:
            try:
                with env.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:  # the transaction is gone, so all of it is written again, with more room
                self._map_size *= 2
                env.set_mapsize(self._map_size)
            except lmdb.Error as error:
                raise DatasetError(f"{self.path}: cannot be written ({error})") from None
        self._pending.clear()
        self._pending_bytes = 0

    def _publish(self) -> None:
        target = self.path.absolute()
        if not (self._overwrite and os.path.lexists(target)):
            # rename() would silently replace an empty folder that came up in the meantime; with words in it, it refuses
            self._temporary.rename(target)
            return
        check_target(self.path, self._overwrite)  # it may be another one by now
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
        target.rename(old)
        try:
            self._temporary.rename(target)
        except OSError:
            old.rename(target)
            raise
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
