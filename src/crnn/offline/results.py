"""Folders of result files, from ``benchmark``, ais_bench or `crnn infer`: ``{stem}_{output index}.bin|txt|npy``.

The output index counts from 1 (benchmark) or 0 (ais_bench). A file holds [steps, N, classes], time-major:
one word, or a batch of N.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.ctc import Decoded
from crnn.errors import DatasetError
from crnn.offline.files import Progress, files_in
from crnn.spec import ModelSpec

Dtype = Literal["float32", "float16"]
"""What ``.bin`` files hold. ATC's ``--output_type=FP16`` makes it float16."""

SUFFIXES = (".bin", ".txt", ".npy")
_NAME = re.compile(r"(.+)_[0-9]+")
_NORMALISED = 0.05  # log-probabilities of a frame sum to 1 within this, even as float16 and with six decimals
_BATCH = 256  # words decoded at once


def find_folder(place: Path) -> Path:
    """The folder of result files at ``place``: that itself, or its only ``dumpOutput_device{K}``.

    Raises DatasetError if there are several of these, or one beside results that lie in ``place`` itself.
    """
    try:
        names = sorted(os.listdir(place))
    except OSError as error:
        raise DatasetError(f"{place}: cannot be opened ({error.strerror})") from None
    dumps = [place / name for name in names if name.startswith("dumpOutput_device") and os.path.isdir(place / name)]
    results = [name for name in names if name.lower().endswith(SUFFIXES) and _NAME.fullmatch(Path(name).stem)]
    own = [name for name in results if not name.startswith("perf_")]  # benchmark's figures lie beside its dumps
    if len(dumps) > 1 or (dumps and own):
        several = [path.name for path in dumps] + own[:1]
        raise DatasetError(f"{place}: holds {' and '.join(several)}: results of several runs; name one folder of them")
    return dumps[0] if dumps else place


def result_files(folder: Path) -> dict[Path, str]:
    """The result files in natural order, each with the stem of the input it is named after.

    Raises DatasetError: no such folder, nothing in it, or two results of the same input.
    """
    found: dict[Path, str] = {}
    first: dict[str, Path] = {}
    for path in files_in(folder, SUFFIXES):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            continue
        stem = found[path] = match[1]
        if (other := first.setdefault(stem, path)) != path:
            raise DatasetError(f"{folder}: {other.name} and {path.name} are results of the same word; take one away")
    if not found:
        raise DatasetError(
            f"{folder}: no result file in this folder (they are called like test_1_1.bin or test_1_0.bin)"
        )
    return found


def read_result(path: Path, spec: ModelSpec, dtype: Dtype = "float32") -> NDArray[np.float32]:
    """One result file -> float32[steps, N, classes]. ``dtype`` is what a ``.bin`` holds: float32 or float16.

    Raises DatasetError, whose message does not name the file, if it holds something else.
    """
    frame = spec.steps * spec.charset.classes
    try:
        if path.suffix.lower() == ".npy":
            values = _array(path, spec)
        elif path.suffix.lower() == ".txt":
            values = np.array(path.read_text(encoding="ascii").split(), np.float32)
        else:
            values = _raw(path.read_bytes(), frame, dtype)
    except DatasetError:
        raise
    except Exception as error:  # NumPy raises almost anything on a damaged header
        raise DatasetError(f"cannot be read ({' '.join(str(error).split())[:100]})") from None
    if values.size == 0 or values.size % frame:
        raise DatasetError(f"holds {values.size:,} numbers, which are no whole words of {_shape(spec)}")
    logp = values.astype(np.float32).reshape(spec.steps, -1, spec.charset.classes)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(np.logaddexp.reduce(logp, axis=2)).all()  # -inf, a class of probability 0, is no harm
    if not finite:
        raise DatasetError("holds NaN or infinity")
    return logp


@dataclass
class Reading:
    """What result files hold: their words, or the reason why there is none."""

    words: dict[Path, list[Decoded]] = field(default_factory=dict)
    malformed: dict[Path, str] = field(default_factory=dict)
    logits: bool = False
    """Whether some output was not of log-probabilities; their log-softmax was decoded then."""


def read_results(
    paths: Sequence[Path], spec: ModelSpec, dtype: Dtype = "float32", progress: Progress | None = None
) -> Reading:
    """Read and decode result files, many words at a time."""
    reading = Reading()
    waiting: dict[Path, NDArray[np.float32]] = {}

    def decode() -> None:
        if waiting:
            logp = np.concatenate(list(waiting.values()), axis=1)
            decoded = iter(ctc.decode(logp, spec.charset, spec.temperature))
            for path, values in waiting.items():
                reading.words[path] = [next(decoded) for _ in range(values.shape[1])]
            waiting.clear()
        if progress:
            progress(len(reading.words) + len(reading.malformed), len(paths))

    for path in paths:
        try:
            logp = read_result(path, spec, dtype)
        except DatasetError as error:
            reading.malformed[path] = str(error)
            continue
        sums = np.logaddexp.reduce(logp, axis=2, keepdims=True)
        if not (np.abs(sums) < _NORMALISED).all():
            logp, reading.logits = logp - sums, True
        elif logp.max() > ctc.HIGHEST:  # rounded so that the decoder would refuse it
            logp = logp - sums
        waiting[path] = logp
        if sum(values.shape[1] for values in waiting.values()) >= _BATCH:
            decode()
    decode()
    return reading


def _raw(data: bytes, frame: int, dtype: Dtype) -> NDArray[np.floating]:
    word = frame * np.dtype(dtype).itemsize
    if not data:
        raise DatasetError("empty")
    if len(data) % word:
        half = dtype == "float32" and len(data) % (word // 2) == 0
        hint = "; they may be float16: --dtype float16" if half else ""
        raise DatasetError(f"{len(data):,} bytes are no whole words of {word:,} bytes{hint}")
    return np.frombuffer(data, dtype)


def _array(path: Path, spec: ModelSpec) -> NDArray[np.floating]:
    with path.open("rb") as file:
        values: NDArray[np.floating] = np.lib.format.read_array(file, allow_pickle=False)
    ends = (values.shape[0], values.shape[-1]) if values.ndim in (2, 3) else None
    if values.dtype.kind != "f" or ends != (spec.steps, spec.charset.classes):
        raise DatasetError(f"{values.dtype}{list(values.shape)} instead of {_shape(spec)}")
    return values


def _shape(spec: ModelSpec) -> str:
    return f"[{spec.steps}, N, {spec.charset.classes}]"
