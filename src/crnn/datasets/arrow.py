"""Words in Parquet files and in folders that Hugging Face's ``datasets`` has saved (``save_to_disk``), with pyarrow.

Pictures are in a column of binary values, or of structures with ``bytes`` and ``path`` as the ``Image`` feature of
``datasets`` stores them; labels are in a column of texts. Only one batch of rows is held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from crnn.datasets.tables import IMAGE_NAMES, LABEL_NAMES
from crnn.datasets.words import Entry, ReadOptions, Unusable, WordSource, one_line, read_picture, within_limit
from crnn.errors import DatasetError, OptionError

SUFFIXES = (".parquet", ".arrow")

_BATCH = 64  # rows held at a time


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` of ``datasets`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def from_saved(folder: Path, options: ReadOptions) -> WordSource:
    """The words of a folder that ``save_to_disk`` wrote. Raises DatasetError if it holds several splits."""
    splits = _json(folder / "dataset_dict.json", "splits")
    if splits:
        if len(splits) > 1:
            raise DatasetError(f"{folder}: has the splits {', '.join(splits)}; name one: {folder / splits[0]}")
        folder = folder / splits[0]
    files = [folder / str(file["filename"]) for file in _json(folder / "state.json", "_data_files")]
    return from_files(folder, files, options)


def from_files(path: Path, files: Sequence[Path], options: ReadOptions) -> WordSource:
    """The words of Parquet or Arrow files, one after the other. ``path`` is what they were found at.

    Raises OptionError without pyarrow, DatasetError if a file is damaged, does not say which columns are meant, or if
    the files are of several splits.
    """
    splits = {match[1] for file in files if (match := re.fullmatch(r"(.+?)-\d+-of-\d+", file.stem))}
    if len(splits) > 1 and path.is_dir():
        one = files[0].parent / f"{min(splits)}-*"
        raise DatasetError(f"{path}: has the splits {', '.join(sorted(splits))}; name the files of one: {one}")
    if not files:
        raise DatasetError(f"{path}: no Parquet or Arrow file in it")
    schema, count = None, 0
    for file in files:
        found, rows = _look(file)
        schema, count = schema or found, count + rows
    try:
        image, label = _columns(files[0], schema, options)
    except UnicodeDecodeError as error:  # pyarrow decodes names when they are asked for
        raise _damaged(files[0], error) from None
    kind = "Parquet" if _is_parquet(files[0]) else "Arrow"
    more = f", {len(files):,} files" if len(files) > 1 else ""
    decided = f"{kind}{more}, pictures in {image!r}, labels in {label!r}"
    return WordSource(path, "parquet", decided, partial(_entries, path, files, image, label, options), count or None)


def _entries(path: Path, files: Sequence[Path], image: str, label: str, options: ReadOptions) -> Iterator[Entry]:
    for file in files:
        start = 1
        prefix = "" if file == path else f"{file.name}/"
        for pictures, labels in _batches(file, image, label):
            for k, (picture, text) in enumerate(zip(pictures, labels, strict=True)):
                found = _picture(picture, options.images or file.parent)
                words = one_line(text) if isinstance(text, str) else Unusable("missing", "the label is null")
                yield Entry(f"{prefix}row {start + k}", found, words)
            start += len(pictures)


def _picture(value: Any, folder: Path) -> bytes | Unusable:
    name = None
    if isinstance(value, dict):
        value, name = value.get("bytes"), value.get("path")
    if isinstance(value, bytes):
        return within_limit(value)
    return read_picture(folder / name) if isinstance(name, str) else Unusable("missing", "the picture is null")


def _batches(file: Path, image: str, label: str) -> Iterator[tuple[list[Any], list[Any]]]:
    pa = _pyarrow(file)
    try:
        if _is_parquet(file):
            with pa.parquet.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_BATCH, columns=[image, label]):
                    yield batch.column(image).to_pylist(), batch.column(label).to_pylist()
            return
        # Not memory_map and unchecked, though faster: offsets in a damaged file would lead outside of it (SIGBUS).
        with pa.OSFile(str(file)) as source:
            for whole in _record_batches(pa, source):
                chosen = whole.select([image, label])
                chosen.validate(full=True)
                for start in range(0, chosen.num_rows, _BATCH):
                    batch = chosen.slice(start, _BATCH)
                    yield batch.column(image).to_pylist(), batch.column(label).to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:  # ValueError: a text that is not UTF-8
        raise _damaged(file, error) from None


def _record_batches(pa: Any, source: Any) -> Iterator[Any]:
    if source.read(6) == b"ARROW1":  # the format with an index at its end
        reader = pa.ipc.open_file(source)
        yield from (reader.get_batch(k) for k in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


def _look(file: Path) -> tuple[Any, int]:
    """A file's schema and its number of rows, 0 where only reading it would tell."""
    pa = _pyarrow(file)
    try:
        if _is_parquet(file):
            with pa.parquet.ParquetFile(file) as parquet:
                return parquet.schema_arrow, parquet.metadata.num_rows
        with pa.OSFile(str(file)) as source:
            indexed = source.read(6) == b"ARROW1"
            source.seek(0)
            return (pa.ipc.open_file if indexed else pa.ipc.open_stream)(source).schema, 0
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _is_parquet(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(4) == b"PAR1"


def _columns(file: Path, schema: Any, options: ReadOptions) -> tuple[str, str]:
    types = _pyarrow(file).types

    def text(kind: Any) -> bool:
        return bool(types.is_string(kind) or types.is_large_string(kind))

    label = _column(file, schema, "labels", text, LABEL_NAMES, options.label_column)
    return image_column(file, schema, options.image_column), label


def image_column(file: Path | str, schema: Any, asked: str | None = None) -> str:
    """The column of pictures in a schema (of pyarrow): the one ``asked`` for, or the only one that can be meant.

    Raises OptionError if there is none of that name, DatasetError if the schema does not say which is meant; ``file``
    is what messages call it.
    """
    types = _pyarrow(file).types

    def binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def picture(kind: Any) -> bool:
        return binary(kind) or (types.is_struct(kind) and any(f.name == "bytes" and binary(f.type) for f in kind))

    return _column(file, schema, "pictures", picture, IMAGE_NAMES, asked)


def _column(
    file: Path | str, schema: Any, what: str, fits: Callable[[Any], bool], names: Collection[str], asked: str | None
) -> str:
    option = "--image-column" if what == "pictures" else "--label-column"
    if asked is not None and asked not in schema.names:
        raise OptionError(f"{option} {asked}: {file} has the columns {', '.join(schema.names)}")
    fitting = [field.name for field in schema if fits(field.type) and asked in (None, field.name)]
    usual = [name for name in fitting if name.casefold() in names]
    chosen = usual if len(usual) == 1 else fitting
    if len(chosen) != 1:
        kinds = ", ".join(f"{field.name} ({str(field.type)[:40]})" for field in schema)
        raise DatasetError(f"{file}: which column holds the {what}? Say it with {option}. It has: {kinds}")
    column: str = chosen[0]
    return column


def _pyarrow(file: Path | str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise OptionError(f"{file}: reading it needs pyarrow: pip install 'crnn[jobs]'") from None
    return pyarrow


def _json(file: Path, key: str) -> list[Any]:
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_bytes())[key]
        return list(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file}: damaged ({type(error).__name__}: {error})") from None


def _damaged(file: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]})")
