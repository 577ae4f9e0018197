"""The one evaluator: any data set, any artefact, any engine, one report."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine
from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.evaluation.metrics import score
from crnn.evaluation.protocols import ALNUM36, alnum36
from crnn.images import normalise, prepare
from crnn.spec import ModelSpec

SCHEMA = "crnn.evaluation/1"

Progress = Callable[[str, int, int], None]
"""Called with a data set's path, the number of its words that are done, and the number of its words."""


def evaluate(
    datasets: Sequence[str | Path], engine: Engine, batch_size: int = 64, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Read every word of LMDB ``datasets`` and report, as a dictionary ready for JSON::

        {schema, protocol, model: {path, sha256}, engine: {name, version, precision},
         datasets: [{path, sha256, accuracy, interval: [lo, hi], ned, cer, total, used, skipped: [{key, reason}],
                     words_per_second, words: [{key, label, text, confidence}]}]}

    ``accuracy``, ``interval``, ``ned`` and ``cer`` are fractions (:class:`crnn.evaluation.metrics.Scores`) over the
    ``used`` words. Words whose picture or label is missing or cannot be decoded, and words of whose label the protocol
    leaves nothing, are *not* counted as read wrongly: they are listed in ``skipped`` and are no part of ``used``, so
    ``used + len(skipped) == total``. ``label`` and ``text`` are what was compared, after the protocol; ``confidence``
    is the exact CTC probability of the decoded text. ``words_per_second`` covers decoding the picture, the network and
    the CTC decoding, by the wall clock. A data set's ``sha256`` is :meth:`crnn.datasets.lmdb.LmdbReader.sha256`.

    Raises DatasetError for a data set that cannot be opened or has no usable word, and the engine's errors.
    """
    if batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, not {batch_size}")
    readers = [LmdbReader(path) for path in datasets]
    for reader in readers:  # a mistyped path shows now and not after the first data set
        len(reader)
    return {
        "schema": SCHEMA,
        "protocol": ALNUM36,
        "model": {"path": str(engine.path), "sha256": _file_sha256(engine.path)},
        "engine": {"name": engine.name, "version": engine.version, "precision": engine.precision},
        "datasets": [_evaluate_one(reader, engine, batch_size, progress) for reader in readers],
    }


def _evaluate_one(reader: LmdbReader, engine: Engine, batch_size: int, progress: Progress | None) -> dict[str, Any]:
    labels: dict[int, str] = {}
    skipped: dict[int, str] = {}
    for i in range(len(reader)):
        try:
            stored = reader.label(i)
        except CrnnError as error:
            skipped[i] = str(error)
            continue
        labels[i] = alnum36(stored)
        if not labels[i]:
            del labels[i]
            skipped[i] = f"nothing is left of the label {stored!r} under {ALNUM36}"

    words: list[dict[str, Any]] = []
    start = time.perf_counter()
    for indices, pixels, errors in _batches(reader, list(labels), engine.spec, batch_size):
        skipped.update(errors)
        if indices:
            decoded = ctc.decode(engine.run(normalise(pixels, engine.spec)), engine.spec.charset)
            words += [
                {"key": reader.key(i), "label": labels[i], "text": alnum36(word.text), "confidence": word.confidence}
                for i, word in zip(indices, decoded, strict=True)
            ]
        if progress:
            progress(str(reader.path), len(words) + len(skipped), len(reader))
    seconds = time.perf_counter() - start

    if not words:
        reasons = f"; the first: {skipped[min(skipped)]}" if skipped else ""
        raise DatasetError(f"{reader.path}: no word of {len(reader)} can be used{reasons}")
    scores = score([word["label"] for word in words], [word["text"] for word in words])
    return {
        "path": str(reader.path),
        "sha256": reader.sha256(),
        "accuracy": scores.accuracy,
        "interval": list(scores.interval),
        "ned": scores.ned,
        "cer": scores.cer,
        "total": len(reader),
        "used": len(words),
        "skipped": [{"key": reader.key(i), "reason": skipped[i]} for i in sorted(skipped)],
        "words_per_second": len(words) / seconds,
        "words": words,
    }


def _batches(
    reader: LmdbReader, indices: Sequence[int], spec: ModelSpec, batch_size: int
) -> Iterator[tuple[list[int], NDArray[np.uint8], dict[int, str]]]:
    """Words in order as (indices, uint8[len(indices), height, width], reasons of those that cannot be decoded).

    Threads decode the next batches while the caller works on the last one: Pillow lets go of the interpreter lock.
    """

    def load(i: int) -> NDArray[np.uint8] | str:
        try:
            return prepare(reader.image(i), spec)
        except CrnnError as error:
            return str(error)

    empty = np.empty((0, spec.height, spec.width), np.uint8)
    remaining = iter(indices)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode") as pool:

        def submit() -> list[tuple[int, Future[NDArray[np.uint8] | str]]]:
            return [(i, pool.submit(load, i)) for i in islice(remaining, batch_size)]

        ahead = deque([submit(), submit()])
        try:
            while batch := ahead.popleft():
                ahead.append(submit())
                results = [(i, future.result()) for i, future in batch]
                good = [(i, result) for i, result in results if not isinstance(result, str)]
                pixels = np.stack([result for _, result in good]) if good else empty
                yield [i for i, _ in good], pixels, {i: result for i, result in results if isinstance(result, str)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def most_confident_errors(words: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The ``count`` wrongly read words of a report that the network was surest of, surest first."""
    wrong = [word for word in words if word["text"] != word["label"]]
    return sorted(wrong, key=lambda word: -word["confidence"])[:count]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
