"""The one evaluator: any data set, any artefact, any engine, one report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine
from crnn.errors import DatasetError, OptionError
from crnn.evaluation.calibration import calibration
from crnn.evaluation.metrics import score
from crnn.evaluation.protocols import ALNUM36, alnum36
from crnn.evaluation.words import prepared, usable_labels
from crnn.images import normalise

SCHEMA = "crnn.evaluation/1"

Progress = Callable[[str, int, int], None]
"""Called with a data set's path, the number of its words that are done, and the number of its words."""


def evaluate(
    datasets: Sequence[str | Path],
    engine: Engine,
    batch_size: int = 64,
    *,
    held_out: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read every word of LMDB ``datasets`` and report, as a dictionary ready for JSON::

        {schema, protocol, subset, model: {path, sha256}, engine: {name, version, precision}, temperature,
         datasets: [{path, sha256, accuracy, interval: [lo, hi], ned, cer, ece, calibration: [bin], total, used,
                     skipped: [{key, reason}], words_per_second, words: [{key, label, text, confidence}]}],
         overall: {accuracy, interval, ned, cer, ece, calibration: [bin], total, used}}

    where a bin is ``{low, high, words, confidence, accuracy}``.

    ``accuracy``, ``interval``, ``ned`` and ``cer`` are fractions (:class:`crnn.evaluation.metrics.Scores`) over the
    ``used`` words. Words whose picture or label is missing or cannot be decoded, and words of whose label the protocol
    leaves nothing, are *not* counted as read wrongly: they are listed in ``skipped`` and are no part of ``used``, so
    ``used + len(skipped) == total``. ``label`` and ``text`` are what was compared, after the protocol; ``confidence``
    is the exact CTC probability of the decoded text at the spec's ``temperature``, and ``ece`` the expected calibration
    error of these confidences, ``calibration`` its bins (:func:`crnn.evaluation.calibration.calibration`).
    ``overall`` takes the words of all data sets together, as many times as they are given. ``held_out`` looks only at
    the words of training sets that training leaves alone (:mod:`crnn.datasets.split`): ``total`` is then their number
    and ``subset`` "held-out" instead of "all". ``words_per_second`` covers decoding the picture, the network and
    the CTC decoding, by the wall clock. A data set's ``sha256`` is :meth:`crnn.datasets.lmdb.LmdbReader.sha256`.

    Raises DatasetError for a data set that cannot be opened or has no usable word, and the engine's errors.
    """
    if batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, not {batch_size}")
    readers = [LmdbReader(path) for path in datasets]
    for reader in readers:  # a mistyped path shows now and not after the first data set
        len(reader)
    reports = [_evaluate_one(reader, engine, batch_size, held_out, progress) for reader in readers]
    return {
        "schema": SCHEMA,
        "protocol": ALNUM36,
        "subset": "held-out" if held_out else "all",
        "model": {"path": str(engine.path), "sha256": _file_sha256(engine.path)},
        "engine": {"name": engine.name, "version": engine.version, "precision": engine.precision},
        "temperature": engine.spec.temperature,
        "datasets": reports,
        "overall": {
            **_figures([word for report in reports for word in report["words"]]),
            "total": sum(report["total"] for report in reports),
            "used": sum(report["used"] for report in reports),
        },
    }


def _evaluate_one(
    reader: LmdbReader, engine: Engine, batch_size: int, held_out: bool, progress: Progress | None
) -> dict[str, Any]:
    labels, skipped = usable_labels(reader, held_out)
    total = len(labels) + len(skipped)
    words: list[dict[str, Any]] = []
    start = time.perf_counter()
    for indices, pixels, errors in prepared(reader, list(labels), engine.spec, batch_size):
        skipped.update(errors)
        if indices:
            logp = engine.run(normalise(pixels, engine.spec))
            decoded = ctc.decode(logp, engine.spec.charset, engine.spec.temperature)
            words += [
                {"key": reader.key(i), "label": labels[i], "text": alnum36(word.text), "confidence": word.confidence}
                for i, word in zip(indices, decoded, strict=True)
            ]
        if progress:
            progress(str(reader.path), len(words) + len(skipped), total)
    seconds = time.perf_counter() - start

    if not words:
        reasons = f"; the first: {skipped[min(skipped)]}" if skipped else ""
        raise DatasetError(f"{reader.path}: no word of {total} can be used{reasons}")
    return {
        "path": str(reader.path),
        "sha256": reader.sha256(),
        **_figures(words),
        "total": total,
        "used": len(words),
        "skipped": [{"key": reader.key(i), "reason": skipped[i]} for i in sorted(skipped)],
        "words_per_second": len(words) / seconds,
        "words": words,
    }


def _figures(words: Sequence[dict[str, Any]]) -> dict[str, Any]:
    labels, texts = [word["label"] for word in words], [word["text"] for word in words]
    scores = score(labels, texts)
    right = [label == text for label, text in zip(labels, texts, strict=True)]
    return {
        "accuracy": scores.accuracy,
        "interval": list(scores.interval),
        "ned": scores.ned,
        "cer": scores.cer,
        **calibration([word["confidence"] for word in words], right).as_json(),
    }


def most_confident_errors(words: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The ``count`` wrongly read words of a report that the network was surest of, surest first."""
    wrong = [word for word in words if word["text"] != word["label"]]
    return sorted(wrong, key=lambda word: -word["confidence"])[:count]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
