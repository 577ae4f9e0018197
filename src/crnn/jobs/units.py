"""What there is to read at a place: picture files, tar archives, Parquet files, LMDB data sets, in a fixed order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from glob import has_magic
from typing import Any, Literal, NamedTuple

from crnn.datasets.arrow import image_column
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.tar import TAR_SUFFIXES, is_tar
from crnn.errors import DatasetError, OptionError
from crnn.images import SUFFIXES
from crnn.jobs.storage import Place, base_name, reading, watched

Kind = Literal["picture", "tar", "parquet", "lmdb"]

_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What the drivers of file systems call that which changes with a file, the surest first."""

_FOOTERS = 16  # of Parquet files fetched at a time; each is a round trip to the storage


class Unit(NamedTuple):
    """A picture file, a tar archive, some row groups of a Parquet file, or a range of an LMDB data set."""

    kind: Kind
    name: str
    """Of the file or the LMDB data set, from the input's root on; empty if it is the root itself."""
    first: int
    """The first row or word of it, from 0."""
    words: int | None
    """How many pictures; None where only reading tells."""
    size: int
    """Bytes."""
    stamp: str
    """Changes with the file: its ETag, or else its time of modification."""


MOST_WORDS = 100_000
"""Of a part. The list of its files and the results that wait to be written lie in memory, and a kill loses them."""


@dataclass(frozen=True)
class Layout:
    """How an input is divided and which columns of Parquet files are meant.

    ``words`` is how many pictures a part has, where they can be counted out. ``image_column`` holds the pictures,
    ``source_column`` what a picture is to be called; None: the only one that can be meant, and FILE/row N.

    Raises OptionError if ``words`` is not from 1 to :data:`MOST_WORDS`.
    """

    words: int = 5000
    image_column: str | None = None
    source_column: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.words <= MOST_WORDS:
            raise OptionError(f"a part has from 1 to {MOST_WORDS:,} pictures, not {self.words:,}")


def find_units(root: Place, layout: Layout) -> tuple[Place, Iterator[Unit]]:
    """(where names start from, what there is to read there).

    ``root`` is a file, a folder (searched to its depth; what is hidden or no file, and links to folders, are passed
    over) or a pattern with ``*`` or ``?``, whose names start from the folder before it. The order is that of the names;
    of a folder, its files before the folders in it.

    Raises DatasetError if there is nothing, or something cannot be read; OptionError for an LMDB data set in a remote
    storage, and for a column that a Parquet file does not have.
    """
    with reading(root):
        if not has_magic(root.path) or root.fs.exists(root.path):
            info = root.fs.info(root.path)
            if info["type"] != "directory":
                return root, _not_none(root, _of_file(root, info, layout))
            return root, _not_none(root, _below(root, "", layout))
        matched = root.fs.glob(root.path, detail=True)
    depth = next(i for i, part in enumerate(root.path.split("/")) if has_magic(part))
    above = len(root.path.split("/")) - depth
    base = Place(root.fs, root.path.rsplit("/", above)[0], root.url.rsplit("/", above)[0])
    return base, _not_none(root, _matched(base, matched, layout))


def takes(root: Place, path: str) -> bool:
    """Whether what is found at ``root``, a folder or a pattern, may be a Parquet file in the folder ``path``."""
    from fsspec.utils import glob_translate

    above = [path, *(path[:i] for i, letter in enumerate(path) if letter == "/")]
    if root.path.rstrip("/") in above:
        return True
    pattern = re.compile(glob_translate(root.path))
    return has_magic(root.path) and any(pattern.match(each) for each in (f"{path}/part.parquet", *above))


def parts(units: Iterable[Unit], words: int) -> Iterator[list[Unit]]:
    """Units together that are read and written together: up to ``words`` picture files, or one of anything else."""
    files: list[Unit] = []
    for unit in units:
        if files and (unit.kind != "picture" or len(files) == words):
            yield files
            files = []
        if unit.kind == "picture":
            files.append(unit)
        else:
            yield [unit]
    if files:
        yield files


def _not_none(root: Place, units: Iterator[Unit]) -> Iterator[Unit]:
    found = False
    for unit in units:
        found = True
        yield unit
    if not found:
        raise DatasetError(f"{root}: no picture, tar archive, Parquet file or LMDB data set is there")


def _matched(base: Place, matched: dict[str, dict[str, Any]], layout: Layout) -> Iterator[Unit]:
    folders = {path for path, info in matched.items() if info["type"] == "directory"}
    for path in sorted(matched):
        name = path[len(base.path.rstrip("/")) + 1 :]
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if any(letter == "/" and path[:i] in folders for i, letter in enumerate(path)):
            continue  # found in that folder: ** matches both
        if path in folders:
            yield from _below(base, name, layout)
        elif (info := base.followed(matched[path]))["type"] == "file":
            yield from _known(base, [(name, info)], layout)


def _of_file(root: Place, info: dict[str, Any], layout: Layout) -> Iterator[Unit]:
    """An input that is one file: its name says what it is, or else its first bytes do."""
    name = base_name(info)
    kind = _kind(name)
    if kind is None:
        with watched(root) as file:
            head = file.read(512)
        if head[16:20] in (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde"):  # LMDB's magic number, in either byte order
            return _lmdb(root, "", info, layout)
        kind = "tar" if is_tar(head, name) else "parquet" if head.startswith(b"PAR1") else "picture"
    return _known(root, [("", info)], layout, kind)


def _below(root: Place, top: str, layout: Layout) -> Iterator[Unit]:
    pending = [top]
    while pending:
        folder = pending.pop()
        inside = (root / folder).entries()
        data = next((info for info in inside if base_name(info) == "data.mdb"), None)
        if data is not None:
            yield from _lmdb(root, folder, data, layout)
            continue
        prefix = f"{folder}/" if folder else ""
        files = [(prefix + base_name(info), info) for info in inside if info["type"] == "file"]
        yield from _known(root, files, layout)
        pending += [prefix + base_name(info) for info in reversed(inside) if info["type"] == "directory"]


def _known(
    root: Place, files: Iterable[tuple[str, dict[str, Any]]], layout: Layout, kind: Kind | None = None
) -> Iterator[Unit]:
    """The units of files whose kind is given, or shows in the name: pictures and archives before Parquet files."""
    parquet = []
    for name, info in files:
        of = kind or _kind(base_name(info))
        if of == "parquet":
            parquet.append((name, info))
        elif of is not None:
            yield Unit(of, name, 0, 1 if of == "picture" else None, int(info.get("size") or 0), _stamp(info))
    if parquet:
        with ThreadPoolExecutor(_FOOTERS) as pool:
            for units in pool.map(partial(_row_groups, root, layout), parquet):
                yield from units


def _kind(name: str) -> Kind | None:
    name = name.lower()
    if name.endswith(SUFFIXES):
        return "picture"
    if name.endswith(TAR_SUFFIXES):
        return "tar"
    return "parquet" if name.endswith(".parquet") else None


def _stamp(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in _STAMPS if info.get(key)), "")


def _row_groups(root: Place, layout: Layout, file: tuple[str, dict[str, Any]]) -> list[Unit]:
    """The row groups of a Parquet file, so many together that they have ``layout.words`` rows, if there are."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    name, info = file
    where, stamp = root / name, _stamp(info)
    with watched(where) as opened:
        try:
            parquet = ParquetFile(opened)
            schema, metadata = parquet.schema_arrow, parquet.metadata
            image_column(where.url, schema, layout.image_column)
        except (pa.ArrowException, ValueError, OSError):
            opened.check()  # or else it is damaged: reading it says so, in a row
            return [Unit("parquet", name, 0, None, int(info.get("size") or 0), stamp)]
    if layout.source_column is not None and layout.source_column not in schema.names:
        raise OptionError(f"--source-column {layout.source_column}: {where} has {', '.join(schema.names)}")
    units: list[Unit] = []
    first = rows = size = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        if rows >= layout.words or (rows and i == metadata.num_row_groups - 1):
            units.append(Unit("parquet", name, first, rows, size, stamp))
            first, rows, size = first + rows, 0, 0
    return units


def _lmdb(root: Place, name: str, info: dict[str, Any], layout: Layout) -> Iterator[Unit]:
    where = root / name
    if not where.local:
        what = "an LMDB data set can only be read from this machine's own disks"
        raise OptionError(f"{where}: {what}; copy it here, or pack its words into tar archives")
    count = len(LmdbReader(where.path))
    for first in range(0, count, layout.words):
        words = min(layout.words, count - first)
        yield Unit("lmdb", name, first, words, int(info["size"]) * words // count, _stamp(info))
