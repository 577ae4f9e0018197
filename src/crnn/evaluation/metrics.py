"""Figures over pairs of label and predicted text. All are fractions, not percentages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Scores:
    """The figures of one data set.

    ``accuracy``: words read without a fault; ``interval``: its 95 % Wilson interval. ``ned``: the 1-N.E.D. of the ICDAR
    2019 ArT and LSVT challenges, the mean over words of ``1 - distance / length of the longer string``. ``cer``: edit
    operations over all words, divided by the labels' characters; it may exceed 1. Distances are Levenshtein's.
    """

    accuracy: float
    interval: tuple[float, float]
    ned: float
    cer: float


def score(labels: Sequence[str], texts: Sequence[str]) -> Scores:
    """Scores of predicted ``texts`` against ``labels``; at least one pair, else ValueError."""
    if not labels:
        raise ValueError("no words to score")
    distances = [Levenshtein.distance(label, text) for label, text in zip(labels, texts, strict=True)]
    correct = distances.count(0)
    similarity = [1 - d / max(len(a), len(b), 1) for d, a, b in zip(distances, labels, texts, strict=True)]
    return Scores(
        accuracy=correct / len(labels),
        interval=wilson(correct, len(labels)),
        ned=math.fsum(similarity) / len(labels),
        cer=sum(distances) / max(sum(map(len, labels)), 1),
    )


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), within 0..1."""
    p, z2 = correct / total, _Z95 * _Z95
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)
