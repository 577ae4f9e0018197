"""What a confidence is worth: the expected calibration error, and the temperature that makes it small.

A reader is calibrated if, of the words it reads with confidence 0.8, eight in ten are right. (Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.split import HELD_OUT
from crnn.errors import DatasetError
from crnn.evaluation.words import prepared, usable_labels
from crnn.images import normalise
from crnn.protocols import COMPARED, protocol_of

if TYPE_CHECKING:
    from crnn.engines import Engine

BINS = 15
FEWEST = 100
"""Fewer words than this are not fitted to."""

_STEPS = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64)  # powers of 2: from 1/4 to 4, to about 1 %
_SURE = 1e-6  # a wrong word read with confidence 1 is an odd label more often than not, and must not cost infinity
_TINY = 1e-300  # while a right word that is ever less expected costs ever more, down to what has a logarithm
_BATCH = 64


class Bin(NamedTuple):
    """The words of confidence ``low`` (excluded, but for 0) to ``high`` (included).

    ``confidence`` is their mean confidence, ``accuracy`` the fraction of them read right; None where there are none.
    """

    low: float
    high: float
    words: int
    confidence: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """The expected calibration error and the bins it was computed from (a reliability diagram, as numbers)."""

    ece: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """The keys ``ece`` and ``calibration`` of a report."""
        return {"ece": self.ece, "calibration": [each._asdict() for each in self.bins]}


def calibration(confidences: ArrayLike, right: ArrayLike, bins: int = BINS) -> Calibration:
    """The expected calibration error of N words, with its bins.

    ``confidences`` are float[N] from 0 to 1, ``right`` says whether each word was read right. With the words sorted by
    confidence into M = ``bins`` equal-width bins, of which B_m holds those in ((m - 1)/M, m/M], it is (Guo et al.,
    equation 3)::

        ECE = sum over m of  |B_m| / N * | accuracy(B_m) - confidence(B_m) |

    A small number of words makes it look larger than it is, as chance alone moves a bin's accuracy: with 15 bins, the
    words of a perfectly calibrated reader of scene text show about 0.15 if there are 25 of them, 0.06 if 200, and 0.03
    if 1,200.

    Raises ValueError if there are no words, or as many confidences as verdicts there are not.
    """
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if not len(sure) or sure.shape != hit.shape:
        raise ValueError(f"{len(sure)} confidences and {len(hit)} verdicts: not one of each for at least one word")
    edges = np.arange(bins + 1) / bins
    where = np.searchsorted(edges[1:-1], sure, side="left")
    counts = np.bincount(where, minlength=bins)
    sums, hits = (np.bincount(where, weights=values, minlength=bins) for values in (sure, hit))
    rows = [
        Bin(low, high, n, total / n if n else None, good / n if n else None)
        for low, high, n, total, good in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), sums.tolist(), hits.tolist(), strict=True
        )
    ]
    return Calibration(float(np.abs(sums - hits).sum() / len(sure)), tuple(rows))


@dataclass(frozen=True)
class Fit:
    """A temperature and what it does for the words it was fitted to.

    ``before`` is the expected calibration error at temperature 1. ``after`` is an honest one: the words of each half
    with the temperature fitted to the other half, ``temperature`` itself being fitted to both.
    """

    temperature: float
    before: float
    after: float
    words: int


def calibrate(engine: Engine, datasets: Sequence[str | Path]) -> Fit:
    """The temperature that suits ``engine``'s confidences on the held-out words of LMDB ``datasets``.

    Held out are the words that training leaves alone (:mod:`crnn.datasets.split`); no other word is looked at. What
    ``engine.spec.temperature`` is does not matter. See :func:`fit` for how.

    Raises DatasetError for a data set that cannot be opened, fewer than 100 words in all, or words that were all read
    right or all wrong, which say nothing about confidence; and the engine's errors.
    """
    texts: list[str] = []
    right: list[bool] = []
    second: list[bool] = []
    outputs = []
    charset = engine.spec.charset
    protocol = protocol_of(charset)
    for reader in [LmdbReader(path) for path in datasets]:
        labels, _ = usable_labels(reader, held_out=True, protocol=protocol)
        for indices, pixels, _ in prepared(reader, list(labels), engine.spec, _BATCH):
            if not indices:
                continue
            outputs.append(engine.run(normalise(pixels, engine.spec)))
            read = ctc.greedy(outputs[-1]).texts(charset)
            texts += read
            right += [COMPARED[protocol](text) == labels[i] for i, text in zip(indices, read, strict=True)]
            # By its place: both views of a word that is in IC15's two data sets fall into the same half.
            second += [i // HELD_OUT % 2 == 1 for i in indices]
    if len(texts) < FEWEST:
        raise DatasetError(
            f"calibrating needs at least {FEWEST} held-out words, and there are {len(texts)} (every {HELD_OUT}th of a "
            "data set): give more data sets"
        )
    if all(right) or not any(right):
        what = "right" if right[0] else "wrong"
        raise DatasetError(f"all {len(texts)} held-out words are read {what}: that says nothing about confidence")
    ends = np.cumsum([output.shape[1] for output in outputs]).tolist()

    def confidences(temperature: float) -> NDArray[np.float64]:
        """A batch at a time, as the probabilities of all take ten times the memory of the outputs."""
        logs = [
            ctc.log_probability(ctc.tempered(output, temperature), texts[end - output.shape[1] : end], charset)
            for output, end in zip(outputs, ends, strict=True)
        ]
        return np.exp(np.concatenate(logs))

    return fit(confidences, np.array(right), np.array(second))


def fit(
    confidences: Callable[[float], NDArray[np.float64]], right: NDArray[np.bool_], second: NDArray[np.bool_]
) -> Fit:
    """The temperature with the least negative log likelihood of what happened: N words, each read right or wrong.

    ``confidences(temperature)`` gives the words' confidences c, float64[N]; a right word costs -log c, a wrong one
    -log(1 - c). The likelihood is what is minimised and not the calibration error itself, whose bins make it jump about
    as the temperature changes. ``second`` says which of two halves a word belongs to, for ``Fit.after``.
    """

    @cache
    def at(exponent: float) -> NDArray[np.float64]:
        return np.clip(confidences(2.0**exponent), 0.0, 1.0)

    def best(words: NDArray[np.bool_]) -> float:
        def cost(exponent: float) -> float:
            sure = at(exponent)[words]
            return float(-np.log(np.where(right[words], np.maximum(sure, _TINY), np.maximum(1 - sure, _SURE))).mean())

        found = 0.0
        for step in _STEPS:
            found = min((found, found - step, found + step), key=cost)
        return found

    crossed = np.where(second, at(best(~second)), at(best(second)))
    return Fit(
        temperature=2.0 ** best(np.ones_like(right)),
        before=calibration(at(0.0), right).ece,
        after=calibration(crossed, right).ece,
        words=len(right),
    )
