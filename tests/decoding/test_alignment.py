from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.decoding.alignment import align, states_of

Array = NDArray[Any]


def test_the_text_of_the_best_path_stands_where_the_best_path_says(posterior: Callable[..., Array]) -> None:
    logp = posterior(26, 100, 5, 2.0)
    runs = ctc.greedy(logp)
    codes = np.zeros((100, 26), np.intp)
    for n in range(100):
        own = runs.classes[runs.words == n]
        codes[n, : len(own)] = own
    for mine, theirs in zip(align(logp, codes), runs, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_path_is_the_most_probable_one(posterior: Callable[..., Array]) -> None:
    texts = [(1,), (1, 1), (2, 1), (1, 2, 1), (2, 2), ()]
    codes = np.array([text + (0,) * (3 - len(text)) for text in texts])
    for seed in range(10):
        logp = posterior(5, len(texts), 3, 1.0, seed)
        runs = align(logp, codes)
        assert runs.counts.tolist() == [len(text) for text in texts]
        for n, text in enumerate(texts):
            paths = [
                path
                for path in itertools.product(range(3), repeat=5)
                if tuple(k for k, _ in itertools.groupby(path) if k) == text
            ]
            best = max(paths, key=lambda path: sum(logp[t, n, k] for t, k in enumerate(path)))
            expected = [
                (k, [t for t, _ in g]) for k, g in itertools.groupby(enumerate(best), lambda pair: pair[1]) if k
            ]
            mine = runs.words == n
            assert runs.classes[mine].tolist() == [k for k, _ in expected]
            assert list(zip(runs.first[mine], runs.last[mine], strict=True)) == [(f[0], f[-1]) for _, f in expected]


def test_states() -> None:
    states, lengths = states_of(np.array([[3, 1, 0, 0], [0, 0, 0, 0]]))
    assert states.tolist() == [[0, 3, 0, 1, 0], [0, 0, 0, 0, 0]] and lengths.tolist() == [2, 0]
    assert states_of(np.zeros((1, 4), np.intp))[0].shape == (1, 1)
