from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]


@pytest.fixture(scope="session")
def posterior() -> Callable[..., Array]:
    """posterior(frames, words, classes, sharpness=2, seed=0): log-probabilities of a network that guesses."""

    def make(frames: int, words: int, classes: int, sharpness: float = 2.0, seed: int = 0) -> Array:
        logits = np.random.default_rng(seed).normal(size=(frames, words, classes)) * sharpness
        result: Array = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return result

    return make


@pytest.fixture(scope="session")
def texts_by_paths() -> Callable[[Array, str], dict[str, float]]:
    """texts_by_paths(logp[T, C], symbols): every text's probability, as the sum over all paths."""

    def add_up(logp: Array, symbols: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
            text = "".join(symbols[k - 1] for k, _ in itertools.groupby(path) if k)
            total[text] = total.get(text, 0.0) + float(np.exp(sum(logp[t, k] for t, k in enumerate(path))))
        return total

    return add_up
