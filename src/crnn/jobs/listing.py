"""The list of a job's parts, kept beside its results: what each part reads, and what its files looked like then."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crnn.errors import OptionError
from crnn.jobs.storage import Place, reading, replaced
from crnn.jobs.units import Layout, Unit, find_units, parts

_SCHEMA = pa.schema(
    [
        ("part", pa.int64()),
        ("kind", pa.string()),
        ("name", pa.binary()),  # of a file, which need not be a text
        ("first", pa.int64()),
        ("words", pa.int64()),
        ("size", pa.int64()),
        ("stamp", pa.string()),
    ]
)

_NAME = _SCHEMA.get_field_index("name")

_GROUP = 1 << 16  # rows held at a time; a part is never divided between two groups of rows


class Row(NamedTuple):
    """A unit and the number of the part that it belongs to, from 0."""

    part: int
    unit: Unit


class Facts(NamedTuple):
    """What a listing comes to."""

    parts: int
    files: int
    """Picture files, archives, groups of rows, ranges of data sets."""
    words: int | None
    """Pictures in all; None where only reading tells."""
    bytes: int
    sha256: str
    """Of all rows: the same for the same files, with the same times or ETags."""


def scan(root: Place, layout: Layout) -> tuple[Place, Iterator[Row]]:
    """(where names start from, the listing's rows as the storage has them now)."""
    base, units = find_units(root, layout)
    return base, (Row(i, unit) for i, part in enumerate(parts(units, layout.words)) for unit in part)


def write(rows: Iterable[Row], file: Place) -> Facts:
    """Write a listing, whole or not at all; only some thousand rows are held."""
    digest = hashlib.sha256()
    files = size = 0
    words: int | None = 0
    last = -1
    with replaced(file) as opened, pq.ParquetWriter(opened, _SCHEMA) as writer:
        held: list[Row] = []
        for row in rows:
            if len(held) >= _GROUP and row.part != held[-1].part:
                writer.write_table(_table(held), row_group_size=len(held))
                held = []
            held.append(row)
            digest.update("\0".join(map(str, (row.part, *row.unit, ""))).encode("utf-8", "surrogateescape"))
            files, size, last = files + 1, size + row.unit.size, row.part
            words = None if words is None or row.unit.words is None else words + row.unit.words
        writer.write_table(_table(held), row_group_size=max(1, len(held)))
    return Facts(last + 1, files, words, size, digest.hexdigest())


def check(rows: Iterable[Row], file: Place) -> None:
    """Raise OptionError, which names the first difference, unless the listing in ``file`` has these rows."""
    listing = Listing(file)
    for now, then in zip_longest(rows, listing.rows()):
        if now == then:
            continue
        was, is_now = (row.unit.name or "the input" if row else "" for row in (then, now))
        if not was or not is_now:
            what = f"{is_now or was} {'has come' if is_now else 'is gone'}"
        else:
            what = f"{is_now} has changed" if was == is_now else f"{is_now} stands where {was} was"
        raise OptionError(f"the input is not what it was when the job began ({what}); begin anew in another folder")


class Listing:
    """A listing that :func:`write` wrote. Raises DatasetError if it cannot be read."""

    def __init__(self, file: Place) -> None:
        self._place = file
        with reading(file):
            self._file = pq.ParquetFile(file.fs.open(file.path, "rb"))
            metadata = self._file.metadata
            groups = [metadata.row_group(i).column(0).statistics for i in range(metadata.num_row_groups)]
            self._begins = [group.min for group in groups]
        self._held: tuple[int, Any] = (-1, None)

    def part(self, number: int) -> list[Unit]:
        """The units of a part. Cheap if parts are asked for one after the other."""
        group = int(np.searchsorted(self._begins, number, side="right")) - 1
        if group != self._held[0]:
            self._held = group, self._group(group)
        numbers = self._held[1].column("part").to_numpy()
        first, end = np.searchsorted(numbers, [number, number + 1])
        return [row.unit for row in _rows(self._held[1].slice(first, end - first))]

    def rows(self) -> Iterator[Row]:
        """All rows in order."""
        for group in range(len(self._begins)):
            yield from _rows(self._group(group))

    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each part, int64[parts]."""
        sizes: list[NDArray[np.int64]] = []
        for group in range(len(self._begins)):
            table = self._group(group)
            numbers = table.column("part").to_numpy()
            sizes.append(np.add.reduceat(table.column("size").to_numpy(), np.unique(numbers, return_index=True)[1]))
        return np.concatenate(sizes)

    def _group(self, group: int) -> Any:
        with reading(self._place):
            return self._file.read_row_group(group)


def _table(rows: list[Row]) -> Any:
    columns: list[Any] = [[row.part for row in rows], *zip(*(row.unit for row in rows), strict=True)]
    columns[_NAME] = [name.encode("utf-8", "surrogateescape") for name in columns[_NAME]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _rows(table: Any) -> Iterator[Row]:
    columns: list[Any] = [column.to_pylist() for column in table.columns]
    columns[_NAME] = [name.decode("utf-8", "surrogateescape") for name in columns[_NAME]]
    for part, *unit in zip(*columns, strict=True):
        yield Row(part, Unit(*unit))
