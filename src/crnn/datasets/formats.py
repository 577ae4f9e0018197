"""Opening labelled words of any format: what lies at a path is recognised, or said."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from crnn.datasets import arrow, rows
from crnn.datasets.files import Contents, contents, from_names, from_pairs, paired
from crnn.datasets.lmdb import LmdbReader, is_lmdb
from crnn.datasets.scenes import from_scenes, is_ground_truth, scene_files
from crnn.datasets.tables import from_table
from crnn.datasets.tar import TAR_SUFFIXES
from crnn.datasets.webdataset import from_archives
from crnn.datasets.words import Entry, ReadOptions, Unusable, WordSource
from crnn.errors import CrnnError, DatasetError, OptionError

Format = Literal["lmdb", "table", "icdar", "scenes", "pairs", "names", "webdataset", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)
"""``lmdb``; ``table``: labels.csv, .tsv, .jsonl or .txt beside pictures; ``icdar``: such a table in ICDAR's form for
word pictures; ``scenes``: ICDAR's ground truth of whole scenes; ``pairs``: a text file beside each picture; ``names``:
labels in file names; ``webdataset``: tar archives; ``parquet``: Parquet, or a folder that ``datasets`` saved."""

_MARK = 3  # bytes of UTF-8's byte-order mark: the file of a scene without text has no more

_TABLE_STEMS = ("labels", "label", "gt", "metadata", "annotations", "annotation", "words")  # the one meant of several


def open_words(path: Path, format: Format | None = None, options: ReadOptions | None = None) -> WordSource:
    """The labelled words at ``path``, in ``format`` or in the one that is recognised there.

    Raises DatasetError if there is nothing, or nothing that can be read or recognised; OptionError for options that do
    not fit.
    """
    options = options or ReadOptions()
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such data set")
    if options.images is not None and not os.path.isdir(options.images):
        raise OptionError(f"--images {options.images}: there is no such folder")
    try:
        found = _folder(path, format, options) if os.path.isdir(path) else _file(path, format, options)
    except OSError as error:
        raise DatasetError(f"{error.filename or path}: cannot be opened ({error.strerror})") from None
    return dataclasses.replace(found, path=path)


def _file(path: Path, format: Format | None, options: ReadOptions) -> WordSource:
    if not path.is_file():
        raise DatasetError(f"{path}: neither a file nor a folder")
    found = format or _format_of(path)
    if found in ("table", "icdar"):
        return from_table(path, options, icdar=found == "icdar")
    if found == "parquet":
        return arrow.from_files(path, [path], options)
    if found == "webdataset":
        return from_archives(path, [path])
    if found == "lmdb":
        return from_lmdb(path)
    raise OptionError(f"{path}: --format {found} reads a folder, and this is a file")


def _format_of(path: Path) -> Format:
    name = path.name.lower()
    if name.endswith(rows.SUFFIXES):
        return "table"
    if name.endswith(arrow.SUFFIXES):
        return "parquet"
    if name.endswith(TAR_SUFFIXES):
        return "webdataset"
    with open(path, "rb") as file:
        head = file.read(512)
    if is_lmdb(head):
        return "lmdb"
    if head[257:262] == b"ustar":
        return "webdataset"
    raise DatasetError(f"{path}: not a data set that is known; --format takes one of {', '.join(FORMATS)}")


def _folder(path: Path, format: Format | None, options: ReadOptions) -> WordSource:
    if format in ("lmdb", None) and ((path / "data.mdb").is_file() or format):
        return from_lmdb(path)
    if format in ("parquet", None) and arrow.is_saved_dataset(path):
        return arrow.from_saved(path, options)
    inside = contents(path)
    tables = _tables(path, inside)
    archives = [path / name for name in inside.others if name.lower().endswith(TAR_SUFFIXES)]
    files = [path / name for name in inside.others if name.lower().endswith(arrow.SUFFIXES)]
    pictures = contents(options.images).pictures if options.images else inside.pictures
    scenes = scene_files(pictures, inside.others)
    chosen = format or _recognised(path, inside, tables, archives, files, scenes)
    if chosen in ("table", "icdar"):
        return from_table(_one_table(path, tables), options, icdar=chosen == "icdar")
    if chosen == "scenes":
        return from_scenes(path, scenes, options.images)
    if chosen == "webdataset":
        if not archives:
            raise DatasetError(f"{path}: no tar archive in this folder")
        return from_archives(path, archives)
    if chosen == "parquet":
        return arrow.from_files(path, files, options)
    if chosen == "pairs":
        return from_pairs(path, inside.pictures, inside.others)
    return from_names(path, inside.pictures, options)


def _recognised(
    path: Path, inside: Contents, tables: list[Path], archives: list[Path], files: list[Path], scenes: dict[str, str]
) -> Format:
    if any(table.suffix.lower() != ".txt" for table in tables):
        return "table"
    if files:
        return "parquet"
    if archives and not inside.pictures:
        return "webdataset"
    first = next((file for name in scenes.values() if _says_something(file := path / name)), None)
    if first is not None and is_ground_truth(first):
        return "scenes"
    if paired(*inside):
        return "pairs"
    if tables:
        return "table"
    if inside.pictures:
        return "names"
    raise DatasetError(
        f"{path}: no labelled words in this folder: no data.mdb, no table of labels (.csv, .tsv, .jsonl, .txt), no"
        " Parquet file, no tar archive, no picture"
    )


def _says_something(file: Path) -> bool:
    try:
        return os.path.getsize(file) > _MARK
    except OSError:  # a link that leads nowhere
        return False


def _tables(path: Path, inside: Contents) -> list[Path]:
    """The text tables in the folder itself, or else in the folders below it; a picture's own text file is none."""
    own = {*paired(*inside).values(), *scene_files(*inside).values()}
    found = [Path(name) for name in inside.others if name.lower().endswith(rows.SUFFIXES) and name not in own]
    here = [name for name in found if name.parent == Path()]
    return [path / name for name in here or found if not name.stem.casefold().startswith(("readme", "license"))]


def _one_table(path: Path, tables: list[Path]) -> Path:
    """The table that is meant: the only one, or the only one with a usual name."""
    if not tables:
        raise DatasetError(f"{path}: no table of labels (.csv, .tsv, .jsonl, .txt) in this folder")
    formal = [table for table in tables if table.suffix.lower() != ".txt"] or tables
    usual = [table for table in tables if table.stem.casefold() in _TABLE_STEMS]
    for among in (formal, usual):
        if len(among) == 1:
            return among[0]
    names = ", ".join(str(table.relative_to(path)) for table in tables[:5])
    raise DatasetError(f"{path}: several tables ({names}); name the one you mean instead of the folder")


def from_lmdb(path: Path) -> WordSource:
    """The words of an LMDB data set."""
    reader = LmdbReader(path)
    return WordSource(path, "lmdb", "LMDB data set", partial(_lmdb_entries, reader), len(reader))


def _lmdb_entries(reader: LmdbReader) -> Iterator[Entry]:
    for i in range(len(reader)):
        key = reader.key(i)
        image: bytes | Unusable
        label: str | Unusable
        try:
            image = reader.image_bytes(i)
        except CrnnError as error:
            text = _short(error, reader, key)
            image = Unusable("missing" if text == "missing" else "unreadable", f"the picture is {text}")
        try:
            label = reader.label(i)
        except CrnnError as error:
            text = _short(error, reader, key)
            label = Unusable("missing" if text.endswith("missing") else "unreadable", text)
        yield Entry(key, image, label)


def _short(error: CrnnError, reader: LmdbReader, key: str) -> str:
    return str(error).removeprefix(f"{reader.path}: ").removeprefix(f"{key}: ")
