"""The most probable texts of an automaton: branch and bound over prefixes, one character more at a time.

The probability that a word's text *begins* with a prefix (Graves, "Supervised Sequence Labelling with Recurrent Neural
Networks", 2012, section 7.5.1) bounds that of every text that goes on from there. Prefixes that cannot reach the best
text any more are given up, and with them all of their texts; as the prefixes of one length exclude each other, no more
than 1 / p of them can be as probable as p. So what is found is exact, and most of a large lexicon is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.decoding.automaton import Automaton, Indices

UNIT = 2.0**960
"""What the search calls 1. Probabilities only fall along a text, so this leaves them 1e-597 as the smallest number."""

_SLACK = 1 - 1e-9  # rounding must not cost the best text its last prefix
_BEAM = 8  # prefixes of each length that are followed to a first text; it need not be a good one
_PIECE = 4096  # prefixes at a time: what a step works on stays in the processor's cache
_WIDE = 1 << 16  # prefixes at a time where a beam is followed, whose pictures are not parted
_CROWD = 1 << 22  # probabilities of all prefixes of one length; for more, pictures are searched by halves of them


class Found(NamedTuple):
    """Texts of a batch, K of them: text k is one of picture ``pictures[k]``.

    Its classes are ``codes[k]``, intp[T], padded with 0 on the right; ``scores[k]`` is its probability, in
    :data:`UNIT`, times its weight ``weights[k]``.
    """

    pictures: Indices
    codes: Indices
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def join(cls, parts: Sequence[Found]) -> Found:
        """All of several, in their order."""
        return cls(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def where(self, which: NDArray[Any]) -> Found:
        """Those of a mask, or at places."""
        return Found(*(each[which] for each in self))

    def best(self) -> Indices:
        """The places of the best text of each picture that has one, by picture; on a tie, the first."""
        order = np.lexsort((-self.scores, self.pictures))
        owners = self.pictures[order]
        return order[np.flatnonzero(np.diff(owners, prepend=-1))]


class _Crowded(Exception):
    """More than :data:`_CROWD`."""


class _Prefixes(NamedTuple):
    """K prefixes of one length L.

    Of each: the picture, the node, its last class, and the place of what it goes on from among the prefixes of length
    L - 1. Row i of ``blank`` and ``named``, float64[T - L + 1, K], is the probability that the first L + i frames give
    the prefix and end with a blank or with its last character.
    """

    pictures: Indices
    nodes: Indices
    last: Indices
    before: Indices
    blank: NDArray[np.float64]
    named: NDArray[np.float64]


class _Step(NamedTuple):
    """What is kept of the prefixes of one length: the way back, and where texts end, with their scores and weights."""

    pictures: Indices
    last: Indices
    before: Indices
    ends: Indices
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]


def best_texts(automaton: Automaton, y: NDArray[np.float64], at_least: NDArray[np.float64], ratio: float) -> Found:
    """Every text whose score is ``ratio`` times, or more, that of the best text of its picture. Exact.

    ``y`` is float64[T, N, C], the probabilities of N pictures, one at least; texts below ``ratio * at_least``,
    float64[N], are not found. The texts are those of all pictures (``automaton.roots`` is one node).

    Where pictures show none of many texts that are much alike, nothing can be given up early. So there are as many
    searches as it takes for the prefixes of one to have room; those of a single picture are let have it.
    """
    first = search(automaton, y, at_least, 1.0, _BEAM)
    least = at_least.copy()
    np.maximum.at(least, first.pictures, first.scores)
    pictures = y.shape[1]
    try:
        return search(automaton, y, least, ratio, most=_CROWD if pictures > 1 else None)
    except _Crowded:
        halves = (slice(None, pictures // 2), slice(pictures // 2, None))
        one, other = (best_texts(automaton, y[:, half], least[half], ratio) for half in halves)
        return Found.join([one, other._replace(pictures=other.pictures + pictures // 2)])


def search(
    automaton: Automaton,
    y: NDArray[np.float64],
    at_least: NDArray[np.float64],
    ratio: float,
    width: int | None = None,
    most: int | None = None,
) -> Found:
    """:func:`best_texts`, or with ``width`` a beam search: of a picture's prefixes of one length only so many are
    followed, those with the highest bounds.

    Raises _Crowded if the prefixes of one length have more than ``most`` probabilities.
    """
    best, frames = at_least.copy(), len(y)
    now = _roots(automaton, y)
    history: list[_Step] = []
    while len(now.pictures) and len(y):
        now = _longer(automaton, y, now, best * (ratio * _SLACK), width, most)
        y = y[1:]
        weights = automaton.final[now.nodes]
        scores = (now.blank[-1] + now.named[-1]) * weights
        ends = np.flatnonzero(scores > 0)
        np.maximum.at(best, now.pictures[ends], scores[ends])
        history.append(_Step(now.pictures, now.last, now.before, ends, scores[ends], weights[ends]))
    return _collect(history, frames, best * (ratio * _SLACK))


def _roots(automaton: Automaton, y: NDArray[np.float64]) -> _Prefixes:
    frames, pictures, _ = y.shape
    blank = np.empty((frames + 1, pictures))
    blank[0] = UNIT
    np.cumprod(y[:, :, 0], axis=0, out=blank[1:])
    blank[1:] *= UNIT
    each = np.arange(pictures)
    nodes = np.broadcast_to(automaton.roots, pictures)
    return _Prefixes(each, nodes, np.zeros_like(each), each, blank, np.zeros_like(blank))


def _longer(
    automaton: Automaton,
    y: NDArray[np.float64],
    now: _Prefixes,
    least: NDArray[np.float64],
    width: int | None,
    most: int | None,
) -> _Prefixes:
    """The prefixes one character longer that may still reach ``least``; ``y`` begins with the first frame of it."""
    frames, _, classes = y.shape
    flat, blanks = y.reshape(frames, -1), y[:, :, 0]
    places, arcs = automaton.leaving(now.nodes)
    pictures, named = now.pictures[places], automaton.classes[arcs]
    targets = automaton.targets[arcs]
    # What a new character can follow: any end of the prefix; of an equal character only the blank.
    ahead = np.concatenate([now.blank[:-1], now.blank[:-1] + now.named[:-1]], axis=1)
    follows = places + len(now.nodes) * (named != now.last[places])
    wanted = pictures * classes + named
    limits, bounds = least[pictures], automaton.bound[targets]
    ones = np.ones(frames)
    parts: list[_Prefixes] = []
    for piece in _pieces(pictures, _PIECE if width is None else _WIDE, whole=width is not None):
        emission = flat.take(wanted[piece], axis=1)
        starts = ahead.take(follows[piece], axis=1)
        starts *= emission
        reach = (ones @ starts) * bounds[piece]  # of all the texts that begin so, none is more
        kept = np.flatnonzero((reach >= limits[piece]) & (reach > 0))
        if width is not None:
            kept = _widest(kept, reach, pictures[piece], width)
        if most is not None and frames * (len(kept) + sum(len(part.pictures) for part in parts)) > most:
            raise _Crowded
        which = kept + piece.start
        parts.append(
            _Prefixes(
                pictures[which],
                targets[which],
                named[which],
                places[which],
                *_ends(starts.take(kept, axis=1), emission.take(kept, axis=1), blanks.take(pictures[which], axis=1)),
            )
        )
    if len(parts) == 1:
        return parts[0]
    rows = [np.concatenate([part[i] for part in parts]) for i in range(4)]
    return _Prefixes(*rows, *(np.concatenate([part[i] for part in parts], axis=1) for i in (4, 5)))


def _pieces(pictures: Indices, size: int, whole: bool) -> list[slice]:
    """Slices of about ``size``, one at least; with ``whole`` none ends within a picture. These are in order."""
    cuts = np.arange(0, len(pictures), size)
    if whole:
        cuts = np.unique(np.searchsorted(pictures, pictures[cuts]))
    ends = [*cuts.tolist()[1:], len(pictures)]
    return [slice(i, j) for i, j in zip(cuts.tolist() or [0], ends, strict=True)]


def _ends(
    starts: NDArray[np.float64], emission: NDArray[np.float64], blanks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    blank, named = np.zeros_like(starts), starts  # the first character comes with the first of these frames
    for i in range(1, len(starts)):
        np.add(blank[i - 1], named[i - 1], out=blank[i])
        blank[i] *= blanks[i]
        emission[i] *= named[i - 1]
        named[i] += emission[i]
    return blank, named


def _widest(kept: Indices, reach: NDArray[np.float64], pictures: Indices, width: int) -> Indices:
    """Of each picture, the ``width`` of the farthest reach."""
    order = kept[np.lexsort((-reach[kept], pictures[kept]))]
    owners = pictures[order]
    return np.sort(order[np.arange(len(order)) - np.searchsorted(owners, owners) < width])


def _collect(history: list[_Step], frames: int, least: NDArray[np.float64]) -> Found:
    """The texts that are good enough, with their classes, followed back to the root."""
    found = []
    for depth, step in enumerate(history):
        good = step.scores >= least[step.pictures[step.ends]]
        ends = step.ends[good]
        codes = np.zeros((len(ends), frames), np.intp)
        places = ends
        for level in range(depth, -1, -1):
            codes[:, level] = history[level].last[places]
            places = history[level].before[places]
        found.append(Found(step.pictures[ends], codes, step.scores[good], step.weights[good]))
    return Found.join(found)
