"""The pictures of a part: every one there is gives an item, the ones that cannot be had too, in a fixed order."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, cast

from crnn.datasets.arrow import image_column
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.tar import STREAM_LIMIT, tar_members, why
from crnn.errors import CrnnError, DatasetError, ImageError
from crnn.images import SUFFIXES, Source
from crnn.jobs.storage import Place, reading, watched
from crnn.jobs.units import Layout, Unit
from crnn.reader import Item

_FETCHED_AT_ONCE = 16  # files; more hide the latency of a distant storage, and fewer would not
_AHEAD = 128  # files on their way or waiting
_AHEAD_BYTES = 128 << 20
_WAITS = (1.0, 5.0)  # seconds before a file is asked for again
_OUT_OF_REACH = frozenset(
    (errno.ENOTCONN, errno.ETIMEDOUT, errno.ESTALE, errno.ENODEV, errno.EHOSTDOWN, errno.EHOSTUNREACH)
)
"""What a mounted file system says when its server is gone: that is no fault of the file."""
_PERHAPS = frozenset((errno.EIO,))
"""What it may say then as well, and a broken disk of a file on it."""
_ROWS = 64  # of a Parquet file, held at a time


class Lost:
    """Stands for a picture that cannot be had: it reads as a file object that says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read(self, size: int = -1) -> NoReturn:
        """Raises ImageError."""
        raise ImageError(self._reason)


def pictures(root: Place, units: list[Unit], layout: Layout) -> Generator[Item, None, None]:
    """The pictures of ``units``, whose names start from ``root``.

    An item's source is the file; behind it, with a slash, stand the name in the archive, the key in the data set, or
    ``row N`` of a Parquet file (N from 1), unless ``layout.source_column`` says what to call it.

    A picture that is not there, or an archive that is damaged, gives an item that cannot be read, with the reason.
    Raises DatasetError if the storage fails, or an archive is gone: nothing can be said about the pictures then.
    """
    if units[0].kind == "picture":
        yield from _files(root, units)
        return
    for unit in units:
        where = root / unit.name
        found = {"tar": _tar, "parquet": _parquet, "lmdb": _lmdb}[unit.kind](where, unit, layout)
        none = True
        for item in found:
            none = False
            yield item
        if none:
            yield _lost(where.url, "no picture in it")


def _lost(source: str, reason: str) -> Item:
    return Item(source, cast(Source, Lost(reason.removeprefix(f"{source}: "))))


def _files(root: Place, units: list[Unit]) -> Iterator[Item]:
    """Files of their own, fetched by several threads, some way ahead but with a limit on what is held."""
    ahead: deque[tuple[Unit, Future[bytes | Lost]]] = deque()
    held = 0
    with ThreadPoolExecutor(_FETCHED_AT_ONCE, "crnn-fetch") as pool:
        try:
            for unit in units:
                while ahead and (len(ahead) >= _AHEAD or held + unit.size > _AHEAD_BYTES):
                    held -= ahead[0][0].size
                    yield _fetched(root, *ahead.popleft())
                ahead.append((unit, pool.submit(_fetch, root, unit)))
                held += unit.size
            while ahead:
                yield _fetched(root, *ahead.popleft())
        finally:
            for _, future in ahead:
                future.cancel()


def _fetched(root: Place, unit: Unit, content: Future[bytes | Lost]) -> Item:
    return Item((root / unit.name).url, cast(Source, content.result()))


def _fetch(root: Place, unit: Unit) -> bytes | Lost:
    if unit.size > STREAM_LIMIT:
        return Lost(f"more than {STREAM_LIMIT >> 20} MiB")
    file = root / unit.name
    waits = iter(_WAITS)
    while True:
        try:
            return file.read()
        except Exception as error:  # drivers raise more than OSError
            wait = next(waits, None)
            refused = isinstance(error, PermissionError) and (file.local or wait is None)  # elsewhere it may pass
            if refused or isinstance(error, FileNotFoundError | IsADirectoryError):
                _require(root)
                return Lost(f"cannot be opened ({why(error)})")
            number = error.errno if isinstance(error, OSError) else None
            its_own = file.local and number not in _OUT_OF_REACH
            if its_own and (wait is None or number not in _PERHAPS):
                _require(root)
                return Lost(f"cannot be read ({why(error)})")
            if wait is None:
                raise DatasetError(f"{file}: cannot be read ({why(error)})") from None
            time.sleep(wait)


def _require(root: Place) -> None:
    """Raise DatasetError if the input itself is not to be had any more: then its files are not to blame.

    It may be gone, or the key to it have expired.
    """
    if root.local:
        try:
            there = os.path.lexists(root.path)
            if there and os.path.isdir(root.path):
                with os.scandir(root.path) as entries:
                    there = next(entries, None) is not None
        except OSError as error:
            raise DatasetError(f"{root}: cannot be read ({why(error)})") from None
        if not there:  # or an empty folder, as a disk leaves that is not mounted any more
            raise DatasetError(f"{root}: is not there; no disk is mounted there any more, or not here")
        return
    root.fs.invalidate_cache()  # or it would say what it was
    with reading(root):
        root.fs.info(root.path)


def _tar(archive: Place, unit: Unit, layout: Layout) -> Iterator[Item]:
    with watched(archive) as file:
        try:
            for name, data in tar_members(file, archive.url, SUFFIXES):
                source = f"{archive}/{name}"
                yield Item(source, data) if isinstance(data, bytes) else _lost(source, str(data))
        except DatasetError as error:
            file.check()
            yield _lost(archive.url, str(error))


def _lmdb(where: Place, unit: Unit, layout: Layout) -> Iterator[Item]:
    reader = LmdbReader(where.path)
    for i in range(unit.first, unit.first + (unit.words or 0)):
        key = reader.key(i)
        try:
            yield Item(f"{where}/{key}", reader.image_bytes(i))
        except CrnnError as error:
            yield _lost(f"{where}/{key}", str(error).removeprefix(f"{reader.path}: {key}: "))


def _parquet(where: Place, unit: Unit, layout: Layout) -> Iterator[Item]:
    """The rows of some groups. The columns are read bit by bit, however large the groups are."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with watched(where) as file:
        try:
            parquet = ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            image = image_column(where.url, parquet.schema_arrow, layout.image_column)
            columns = [image] if layout.source_column is None else [image, layout.source_column]
            number = unit.first
            groups = _groups(parquet.metadata, unit)
            for batch in parquet.iter_batches(_ROWS, row_groups=groups, columns=columns, use_threads=False):
                values = batch.column(image).to_pylist()
                names = [None] * len(values) if len(columns) == 1 else batch.column(columns[1]).to_pylist()
                for value, name in zip(values, names, strict=True):
                    number += 1
                    yield _of_row(value, f"{where}/row {number}" if name is None else _text(name))
        except (pa.ArrowException, ValueError, KeyError, OSError) as error:
            file.check()
            yield _lost(where.url, f"damaged Parquet file ({why(error)})")


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _of_row(value: Any, source: str) -> Item:
    if isinstance(value, dict):  # as the library datasets stores pictures
        value = value.get("bytes")
    if value is None:
        return _lost(source, "the row has no picture")
    if len(value) > STREAM_LIMIT:
        return _lost(source, f"more than {STREAM_LIMIT >> 20} MiB")
    return Item(source, value)


def _groups(metadata: Any, unit: Unit) -> list[int]:
    """The groups of rows that a unit means."""
    if unit.words is None:  # it could not be opened when the list was made
        return list(range(metadata.num_row_groups))
    first, groups = 0, []
    for i in range(metadata.num_row_groups):
        if unit.first <= first < unit.first + unit.words:
            groups.append(i)
        first += metadata.row_group(i).num_rows
    return groups
