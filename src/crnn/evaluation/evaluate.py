"""The one evaluator: any data set, any artefact, any engine, one report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.decoder import Decoder, Reading
from crnn.engines import Engine
from crnn.errors import OptionError
from crnn.evaluation.lists import Lists, decode
from crnn.evaluation.report import dataset_entry, measured_entries, model_entries, report
from crnn.evaluation.words import prepared, usable_labels
from crnn.images import normalise
from crnn.protocols import COMPARED, Protocol, protocol_of
from crnn.second_look import KNOWN, check, look_again
from crnn.spec import ModelSpec

Progress = Callable[[str, int, int], None]
"""Called with a data set's path, the number of its words that are done, and the number of its words."""


def evaluate(
    datasets: Sequence[str | Path],
    engine: Engine,
    batch_size: int = 64,
    *,
    protocol: Protocol | None = None,
    held_out: bool = False,
    decoder: Decoder | None = None,
    lists: tuple[int, int] | None = None,
    second_look: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read every word of LMDB ``datasets`` and report, as a dictionary ready for JSON::

        {schema, protocol, subset, model: {path, sha256}, engine: {name, version, precision}, temperature,
         measured: {crnn, device, processor},
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
    ``protocol`` is one of :data:`crnn.protocols.COMPARED`; None is that of the model's charset
    (:func:`crnn.protocols.protocol_of`).

    ``decoder`` decodes with what is known of the texts, or ``lists`` gives each word a list of its own
    (:class:`crnn.evaluation.lists.Lists`), whose size and seed they are; it is drawn from the labels of all the data
    sets, held out or not. The report then has the key ``knowledge``, which says so, and each word ``kept`` where texts
    were excluded; ``confidence`` and ``kept`` are as :class:`crnn.decoding.decoder.Reading` describes them. With
    ``second_look``, which goes with neither lexicon, prior, beam nor lists, unsure words are looked at again
    (:mod:`crnn.second_look`); ``knowledge`` says which and how, and their confidence is the mean over the views.

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
    protocol = protocol or protocol_of(engine.spec.charset)
    decoder = decoder or Decoder(engine.spec)
    knowledge = decoder.known
    if second_look:
        if lists is not None:
            raise OptionError("a second look is for reading without lists of words; give only one of the two")
        check(decoder.known)
        knowledge = {**knowledge, "second_look": KNOWN}
    drawn: Lists | None = None
    if lists is not None:
        drawn = Lists.of(readers, *lists, protocol)
        knowledge = {**drawn.known, **knowledge}

    def readings(pixels: NDArray[np.uint8], words: list[tuple[str, int]]) -> list[Reading]:
        logp = engine.run(normalise(pixels, engine.spec))
        found = decode(decoder, drawn, logp, words)
        if second_look:
            return [look.reading for look in look_again(pixels, logp, found, decoder, engine.run)]
        return found

    entries = [
        _evaluate_one(reader, engine.spec, batch_size, protocol, held_out, readings, progress) for reader in readers
    ]
    subset = "held-out" if held_out else "all"
    source = model_entries(engine) | measured_entries(engine)
    return report(entries, source, protocol=protocol, subset=subset, knowledge=knowledge)


def _evaluate_one(
    reader: LmdbReader,
    spec: ModelSpec,
    batch_size: int,
    protocol: Protocol,
    held_out: bool,
    readings: Callable[[NDArray[np.uint8], list[tuple[str, int]]], list[Reading]],
    progress: Progress | None,
) -> dict[str, Any]:
    labels, skipped = usable_labels(reader, held_out, protocol)
    compared = COMPARED[protocol]
    total = len(labels) + len(skipped)
    words: list[dict[str, Any]] = []
    start = time.perf_counter()
    for indices, pixels, errors in prepared(reader, list(labels), spec, batch_size):
        skipped.update(errors)
        if indices:
            found = readings(pixels, [(labels[i], i) for i in indices])
            words += [
                _entry(reader.key(i), labels[i], compared(word.text), word)
                for i, word in zip(indices, found, strict=True)
            ]
        if progress:
            progress(str(reader.path), len(words) + len(skipped), total)
    seconds = time.perf_counter() - start
    left_out = [{"key": reader.key(i), "reason": skipped[i]} for i in sorted(skipped)]
    return dataset_entry(str(reader.path), reader.sha256(), words, left_out, seconds)


def _entry(key: str, label: str, text: str, word: Reading) -> dict[str, Any]:
    entry = {"key": key, "label": label, "text": text, "confidence": word.confidence}
    return entry if word.kept is None else {**entry, "kept": word.kept}
