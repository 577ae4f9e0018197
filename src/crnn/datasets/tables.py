"""Words listed in a table beside their pictures: labels.csv and its kind, ICDAR's gt.txt.

Which column names the pictures and which holds the labels is recognised by the names in the header or, where there is
none, by which column names files that exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from crnn.datasets import rows as table_rows
from crnn.datasets.files import LABEL_KEYS
from crnn.datasets.rows import Row, Table
from crnn.datasets.words import Entry, ReadOptions, Unusable, WordSource, is_picture, one_line, read_picture
from crnn.errors import DatasetError, OptionError

# fmt: off
IMAGE_NAMES = frozenset((
    "file", "filename", "file_name", "filepath", "file_path", "path", "picture",
    "image", "image_name", "imagename", "image_path", "image_file", "img", "img_path",
))
# fmt: on
"""What the field calls the column of pictures; lower case, with _ for spaces and hyphens."""

LABEL_NAMES = frozenset((*LABEL_KEYS, "labels", "words", "string"))
"""What the field calls the column of labels."""


class _Layout(NamedTuple):
    image: int
    label: int
    header: bool
    folder: Path


def from_table(path: Path, options: ReadOptions, *, icdar: bool = False) -> WordSource:
    """The words of a table; ``icdar``: it is ICDAR's word list, whether that shows or not.

    Raises DatasetError if it cannot be read or does not say which column is which, OptionError for a column that it
    does not have.
    """
    table = table_rows.open_table(path, icdar)
    sample = [row for _, row in islice(table.rows(), table_rows.SAMPLE)]
    layout = _recognise(path, table, sample, options)
    first = table.names or sample[0]
    if layout.header or table.names:
        how = f"pictures in {first[layout.image]!r}, labels in {first[layout.label]!r}"
    else:
        how = f"no header: pictures in column {layout.image + 1}, labels in column {layout.label + 1}"
    where = f", pictures from {layout.folder}" if layout.folder != path.parent else ""
    name = "icdar" if table.form.startswith("ICDAR") else "table"
    decided = f"{path.name}, {table.form}, {how}{where}"
    return WordSource(path, name, decided, partial(_entries, path, table, layout))


def _entries(path: Path, table: Table, layout: _Layout) -> Iterator[Entry]:
    width = None
    for index, (number, row) in enumerate(table.rows()):
        if index == 0:
            width = len(row)
            if layout.header:
                continue
        name = row[layout.image] if layout.image < len(row) else None
        text = row[layout.label] if layout.label < len(row) else None
        if name is None or not name.strip():
            nothing = Unusable("missing", f"line {number} of {path.name} names no picture")
            yield Entry(f"line {number}", nothing, one_line(text or ""))
            continue
        label = Unusable("missing", f"line {number} of {path.name} has no label") if text is None else one_line(text)
        if width is not None and len(row) > width:
            what = f"line {number} of {path.name} has {len(row)} columns, not {width}"
            label = Unusable("unreadable", f"{what} (quotation marks around labels?)")
        yield Entry(name.strip(), read_picture(layout.folder / name.strip()), label)


def _recognise(path: Path, table: Table, sample: Sequence[Row], options: ReadOptions) -> _Layout:
    first = [str(cell or "") for cell in sample[0]]
    columns = table.names or first
    folder, hits = _folder(path, sample, options.images, len(columns))
    may_be_header = table.names is None and not any(is_picture(cell) or _is_file(folder / cell) for cell in first)
    plain = [_plain(name) for name in columns] if may_be_header or table.names else []

    asked = _asked(path, columns, options.image_column, "--image-column")
    images = [asked] if asked is not None else [k for k, name in enumerate(plain) if name in IMAGE_NAMES]
    if len(images) != 1:
        image = max(images or range(len(columns)), key=hits.__getitem__)
        if not images and not hits[image]:
            raise DatasetError(
                f"{path}: no column names pictures that are there (first row: {_shown(first)}); say where they are with"
                " --images DIR, or which column it is with --image-column"
            )
    else:
        image = images[0]
    asked = _asked(path, columns, options.label_column, "--label-column")
    labels = [asked] if asked is not None else [k for k, name in enumerate(plain) if name in LABEL_NAMES and k != image]
    header = may_be_header and bool(images or labels or hits[image])
    if not labels and len(columns) == 2:
        labels = [1 - image]
    if len(labels) != 1:
        which = " or ".join(repr(columns[k]) for k in labels) or f"which of {_shown(columns)}"
        raise DatasetError(f"{path}: which column holds the labels: {which}? Say it with --label-column NAME or NUMBER")
    return _Layout(image, labels[0], header, folder)


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _asked(path: Path, columns: Sequence[str], column: str | None, option: str) -> int | None:
    """The index of a column that the user named, or numbered from 1."""
    if column is None:
        return None
    if column in columns:
        return list(columns).index(column)
    if column.isdecimal() and 1 <= int(column) <= len(columns):
        return int(column) - 1
    raise OptionError(f"{option} {column}: {path} has the columns {_shown(columns)}")


def _folder(path: Path, sample: Sequence[Row], given: Path | None, columns: int) -> tuple[Path, list[int]]:
    """The folder that the pictures' names start from, and how many cells of each column name files there.

    It is the table's, or a folder in that, if it is not given.
    """

    def hits(folder: Path) -> list[int]:
        counts = [0] * columns
        for row in sample:
            for k, cell in enumerate(row[:columns]):
                counts[k] += bool(cell) and _is_file(folder / str(cell).strip())
        return counts

    if given is not None:
        if not given.is_dir():
            raise OptionError(f"--images {given}: there is no such folder")
        return given, hits(given)
    here = hits(path.parent)
    if any(here):
        return path.parent, here
    try:
        below = sorted(entry for entry in path.parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{path.parent}: cannot be opened ({error.strerror})") from None
    found = [(folder, counts) for folder in below if any(counts := hits(folder))]
    if len(found) > 1:
        names = ", ".join(str(folder.name) for folder, _ in found[:5])
        raise DatasetError(f"{path}: several folders have pictures of these names ({names}); say which: --images DIR")
    return found[0] if found else (path.parent, here)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(cells: Sequence[str]) -> str:
    return ", ".join(repr(cell[:40]) for cell in cells[:8])
