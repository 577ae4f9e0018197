"""Prepared words: ``test_{i}.bin`` (or ``.npy``), the network's input of one word a file.

A ``.bin`` is raw and little-endian, without a header: float32[channels, height, width], 1 x 32 x 100 and so 12,800
bytes by the deliverable's contract; with AIPP uint8[height, width, 1 or 3], 3,200 or 9,600 bytes. A ``.npy`` holds the
same numbers as an array [1, ...]. The original's parse_testdata.py writes the first form.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.datasets.lmdb import LmdbReader
from crnn.errors import DatasetError
from crnn.evaluation.words import prepared, usable_labels
from crnn.files import make_folder, write_whole
from crnn.images import normalise
from crnn.offline.files import Progress, claim, files_in, read_claim, size_of
from crnn.offline.labels import write_labels
from crnn.protocols import ALNUM36, protocol_of
from crnn.spec import ModelSpec

SUFFIXES = (".bin", ".npy")
CLAIM = "crnn-prepare.json"
"""What says, in a folder of prepared words, which data set and which preparation they are of."""

_PREPARATION = ("height", "width", "channels", "resampling", "mean", "std", "aipp")
_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare_words` did. ``skipped`` are the words left out: (key in the data set, reason)."""

    words: int
    """Words in the label file; each has its file."""
    written: int
    """Files that were not there before."""
    skipped: tuple[tuple[str, str], ...]
    mended: tuple[str, ...]
    """Keys of words in whose label line breaks, for which the label file has no place, were written as spaces."""


def prepare_words(
    dataset: str | Path,
    out: Path,
    labels_file: Path,
    spec: ModelSpec,
    *,
    npy: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write the words of an LMDB ``dataset`` as ``out/test_{i}.bin``, then their labels.

    ``i`` is the number in the data set's keys, which count from 1. A word whose picture cannot be decoded, or of whose
    label the protocol of the spec's charset (:func:`crnn.protocols.protocol_of`) leaves nothing, gets neither file nor
    label; with ``strict`` the first of them is an error. Under alnum36 the labels are lower-cased. Files that are
    there, complete and of the same work are kept: a run that was killed goes on where it was. The label file appears at
    the end.

    Raises DatasetError: ``dataset`` cannot be opened, ``out`` holds words of other work, no word can be used.
    OptionError: something cannot be written.
    """
    reader = LmdbReader(dataset)
    protocol = protocol_of(spec.charset)
    labels, unusable = usable_labels(reader, protocol=protocol)
    skipped = {i: _reason(reader, i, text) for i, text in unusable.items()}

    def refuse_skipped() -> None:
        if strict and skipped:
            first = min(skipped)
            raise DatasetError(f"{reader.path}: {reader.key(first)}: {skipped[first]} (and --strict is set)")

    refuse_skipped()
    suffix = SUFFIXES[npy]
    make_folder(out)
    _claim(out, reader, spec, suffix)
    size = len(encode(np.zeros(spec.input_shape, spec.input_dtype), suffix))
    files = {i: out / f"test_{_number(reader, i)}{suffix}" for i in labels}
    missing = [i for i in labels if size_of(files[i]) != size]
    done, written = len(labels) - len(missing), 0
    for indices, pixels, errors in prepared(reader, missing, spec, _BATCH):
        skipped.update({i: _reason(reader, i, text) for i, text in errors.items()})
        refuse_skipped()
        if indices:
            for i, values in zip(indices, normalise(pixels, spec), strict=True):
                write_whole(files[i], encode(values, suffix))
        written += len(indices)
        done += len(indices) + len(errors)
        if progress:
            progress(done, len(labels))
    kept = {i: reader.label(i) for i in labels if i not in skipped}
    if not kept:
        first = f"; the first: {reader.key(min(skipped))}: {skipped[min(skipped)]}" if skipped else ""
        raise DatasetError(f"{reader.path}: no word of {len(reader)} can be used{first}")
    if protocol == ALNUM36:
        kept = {i: label.lower() for i, label in kept.items()}
    lines = {i: label.replace("\r", " ").replace("\n", " ") for i, label in kept.items()}
    write_labels(labels_file, {files[i].name: line for i, line in lines.items()})
    return Prepared(
        words=len(kept),
        written=written,
        skipped=tuple((reader.key(i), skipped[i]) for i in sorted(skipped)),
        mended=tuple(reader.key(i) for i in kept if "\n" in kept[i] or "\r" in kept[i]),
    )


def prepared_words(folder: Path) -> list[Path]:
    """The ``.bin`` and ``.npy`` files of a folder, in natural order. Raises DatasetError if there is none."""
    return files_in(folder, SUFFIXES)


def check_preparation(folder: Path, spec: ModelSpec) -> None:
    """Raise DatasetError if ``folder`` says that its words were prepared otherwise than ``spec`` wants them.

    A folder from elsewhere says nothing; then only the size of the files can be checked.
    """
    found = (read_claim(folder, CLAIM) or {}).get("preparation")
    if isinstance(found, dict):
        wanted = _preparation(spec)
        for key in wanted:
            if found.get(key) != wanted[key]:
                what = f"prepared with {key} {found.get(key)!r}, but the model wants {wanted[key]!r}"
                raise DatasetError(f"{folder}: {what}; prepare them again: crnn prepare DATASET OUT --model MODEL")


def problem(path: Path, spec: ModelSpec) -> str | None:
    """What is wrong with one prepared word, None if nothing is. Only its size and header are looked at."""
    count = math.prod(spec.input_shape)
    if path.suffix.lower() == ".npy":
        try:
            array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # NumPy raises almost anything on a damaged header
            return f"no NumPy array ({' '.join(str(error).split())[:100]})"
        # Axes of size 1 may be there or not, or one alone; the others in another order are another picture.
        fits = array.shape == (count,) or _longer(array.shape) == _longer(spec.input_shape)
        if array.dtype != spec.input_dtype or not fits:
            wanted = f"{spec.input_dtype} values of {_times(spec.input_shape)}"
            return f"holds {array.dtype}{list(array.shape)}, but the model takes {wanted}"
        return None
    size, wanted_size = size_of(path), count * spec.input_dtype.itemsize
    if size < 0:
        return "missing"
    if size != wanted_size:
        wanted = f"{wanted_size:,}, {_times(spec.input_shape)} {spec.input_dtype}"
        hint = "; was it prepared for a model compiled with AIPP?" if size in (count, 3 * count) else ""
        return f"has {size:,} bytes, but the model takes {wanted}{hint}"
    return None


def read_word(path: Path, spec: ModelSpec) -> NDArray[Any]:
    """One prepared word as the network takes it: ``spec.input_shape`` of ``spec.input_dtype``.

    Raises DatasetError if the file cannot be read or has another size.
    """
    try:
        if path.suffix.lower() == ".npy":
            array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        else:
            array = np.fromfile(path, dtype=spec.input_dtype)
        word: NDArray[Any] = array.reshape(spec.input_shape)
    except Exception as error:  # as above
        raise DatasetError(f"{path}: {problem(path, spec) or error}") from None
    return word


def encode(values: NDArray[Any], suffix: str) -> bytes:
    """The bytes of a prepared word's file."""
    if suffix == ".bin":
        return values.tobytes()
    file = io.BytesIO()
    np.save(file, values[np.newaxis])
    return file.getvalue()


def read_batch(paths: Sequence[Path], spec: ModelSpec) -> NDArray[Any]:
    """Prepared words as one batch, [N, *spec.input_shape]."""
    return np.stack([read_word(path, spec) for path in paths])


def _claim(out: Path, reader: LmdbReader, spec: ModelSpec, suffix: str) -> None:
    content = {
        "data set": {"path": str(reader.path), "sha256": reader.sha256()},
        "preparation": _preparation(spec),
        "format": suffix,
    }
    there = next((path for path in sorted(out.iterdir()) if path.suffix in SUFFIXES and path.name[0] != "."), None)
    claim(out, CLAIM, content, there)


def _preparation(spec: ModelSpec) -> dict[str, Any]:
    values = json.loads(spec.to_json())
    return {key: values[key] for key in _PREPARATION}


def _number(reader: LmdbReader, i: int) -> int:
    return int(reader.key(i).removeprefix("image-"))


def _reason(reader: LmdbReader, i: int, text: str) -> str:
    return text.removeprefix(f"{reader.path}: ").removeprefix(f"{reader.key(i)}: ")


def _longer(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
