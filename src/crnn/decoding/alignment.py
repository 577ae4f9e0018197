"""Where the characters of a given text stand: the most probable path of all those that give it (forced alignment)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crnn.ctc import Indices, Runs, Scores


def states_of(codes: Indices) -> tuple[Indices, Indices]:
    """What :func:`crnn.ctc.forward` takes: (states intp[N, 2 L + 1], lengths intp[N]) of ``codes``, intp[N, L], classes
    padded with 0 on the right. L is then the longest text's.
    """
    lengths = (codes != 0).sum(axis=1)
    longest = int(lengths.max(initial=0))
    states = np.zeros((len(codes), 2 * longest + 1), np.intp)
    states[:, 1::2] = codes[:, :longest]
    return states, lengths


def align(logp: Scores, codes: Indices) -> Runs:
    """The frames of each character of the texts ``codes``, intp[N, L] (padded with 0), on their best paths through N
    words' ``logp``, float[T, N, C].

    Text n must be possible for word n: no longer than :func:`crnn.ctc.required_steps` allows, and of classes that are
    not at -inf throughout.
    """
    states, lengths = states_of(codes)
    rows = np.arange(len(states))
    skip = np.full(states.shape, -np.inf)
    skip[:, 2:][states[:, 2:] != states[:, :-2]] = 0.0  # from one character to a different next one
    score = np.full((len(states), states.shape[1] + 2), -np.inf)  # two columns in front: see crnn.ctc
    here, one_back, two_back = score[:, 2:], score[:, 1:-1], score[:, :-2]
    here[:, :2] = logp[0, rows[:, None], states[:, :2]]
    came: NDArray[np.int8] = np.zeros((len(logp), *states.shape), np.int8)  # how many states back
    for t in range(1, len(logp)):
        ways = np.stack([here, one_back, two_back + skip])
        came[t] = ways.argmax(axis=0)
        here[:] = ways.max(axis=0) + logp[t, rows[:, None], states]
    path = np.empty((len(states), len(logp)), np.intp)
    end = 2 * lengths
    path[:, -1] = end - (score[rows, end + 1] > score[rows, end + 2])  # on the last character, or the blank after it
    for t in range(len(logp) - 1, 0, -1):
        path[:, t - 1] = path[:, t] - came[t, rows, path[:, t]]
    differs = path[:, 1:] != path[:, :-1]
    starts = path % 2 == 1
    ends = starts.copy()
    starts[:, 1:] &= differs
    ends[:, :-1] &= differs
    words, first = np.nonzero(starts)
    return Runs(words, states[words, path[words, first]], first, np.nonzero(ends)[1], lengths)
