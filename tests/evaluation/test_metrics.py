from __future__ import annotations

import random
from functools import cache

import pytest

from crnn.evaluation.metrics import score, wilson


def distance(a: str, b: str) -> int:
    """Levenshtein's, straight from its definition."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (a[i] != b[j]))

    return rest(0, 0)


def test_by_hand() -> None:
    scores = score(["kitten", "abc", "ab"], ["sitting", "abc", ""])
    assert scores.accuracy == pytest.approx(1 / 3)
    assert scores.ned == pytest.approx((1 - 3 / 7 + 1 + 0) / 3)
    assert scores.cer == pytest.approx((3 + 0 + 2) / 11)


def test_against_the_definitions() -> None:
    rng = random.Random(5)
    labels = ["".join(rng.choices("abc", k=rng.randint(1, 7))) for _ in range(200)]
    texts = ["".join(rng.choices("abc", k=rng.randint(0, 7))) for _ in range(200)]
    texts[:50] = labels[:50]
    distances = [distance(a, b) for a, b in zip(labels, texts, strict=True)]
    scores = score(labels, texts)
    assert scores.accuracy == sum(a == b for a, b in zip(labels, texts, strict=True)) / 200
    similarity = [1 - d / max(len(a), len(b)) for d, a, b in zip(distances, labels, texts, strict=True)]
    assert scores.ned == pytest.approx(sum(similarity) / 200)
    assert scores.cer == pytest.approx(sum(distances) / sum(map(len, labels)))


def test_corners() -> None:
    assert score(["a"], ["bcd"]).cer == 3
    assert score([""], [""]).ned == 1
    with pytest.raises(ValueError, match="no words"):
        score([], [])
    with pytest.raises(ValueError, match="zip"):
        score(["a"], ["a", "b"])


def test_wilson_interval() -> None:
    # 81 of 263: Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    low, high = wilson(20, 20)
    assert high == 1.0
    assert low == pytest.approx(1 - 0.1611, abs=5e-5)
