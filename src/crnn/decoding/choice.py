"""Which text is chosen for each picture, and how sure that is: among the words of a lexicon, or among all texts.

``plain`` and ``tempered`` are both float[T, N, C] log-probabilities: the text is chosen by the first, and its
confidence computed with the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.charset import Charset
from crnn.ctc import Indices, Scores
from crnn.decoding.alignment import states_of
from crnn.decoding.automaton import Automaton, free, trie
from crnn.decoding.search import UNIT, Found, best_texts, search

RIVAL = 0.01
"""Words that count for less than this beside the best one are not looked for when confidences are worked out."""

_LOST = 1e-200  # a score, in the search's unit, below which sums may have lost what is too small for a number
_ONCE = 1 << 22  # probabilities that are copied at once, those of a text being its picture's


class Chosen(NamedTuple):
    """The classes of the text of each picture, intp[N, T] padded with 0; its confidence and the share of the network's
    probability that possible texts have, float64[N].
    """

    codes: Indices
    confidences: NDArray[np.float64]
    kept: NDArray[np.float64]


class Words(NamedTuple):
    """Texts to choose from, with what each counts beside its probability (0 to 1), and their prefix tree; another
    in which all count 1, if they do not all count the same.
    """

    codes: Indices
    weights: NDArray[np.float64]
    automaton: Automaton
    equal: Automaton | None

    @classmethod
    def of(cls, texts: Mapping[str, float], charset: Charset) -> Words:
        """From texts that the charset can write, at least one, none empty, and what they count."""
        classes = str.maketrans({symbol: chr(k) for k, symbol in enumerate(charset.symbols, 1)})
        rows = sorted((text.translate(classes), weight) for text, weight in texts.items())
        weights = np.array([weight for _, weight in rows])
        codes = np.array([row for row, _ in rows]).view(np.uint32).reshape(len(rows), -1).astype(np.intp)
        equal = trie(codes, np.ones(len(rows))) if weights.min() < weights.max() else None
        return cls(codes, weights, trie(codes, weights), equal)


def among(words: Words, plain: Scores, tempered: Scores) -> Chosen:
    """The best word for each picture, exactly; no text where none is possible.

    The confidence is the word's share in all words that are no less than :data:`RIVAL` beside it; what is kept is the
    probability of those that are so by the network alone.
    """
    frames, pictures, _ = plain.shape
    y = np.exp(plain, dtype=np.float64)
    found = best_texts(words.automaton, y, np.zeros(pictures), RIVAL)
    top = np.zeros(pictures)
    np.maximum.at(top, found.pictures, found.scores)
    if (top < _LOST).any():
        lost = [_one_by_one(words, plain, n) for n in np.flatnonzero(top < _LOST).tolist()]
        found = Found.join([found.where(top[found.pictures] >= _LOST), *lost])
    best = found.best()
    logs = _log_probabilities(tempered, found)
    counts = logs + np.log(found.weights)
    highest = np.full(pictures, -np.inf)
    np.maximum.at(highest, found.pictures, counts)
    shares = np.exp(counts - highest[found.pictures])
    total = np.bincount(found.pictures, shares, pictures)
    chosen = Chosen(np.zeros((pictures, frames), np.intp), np.zeros(pictures), np.zeros(pictures))
    owners = found.pictures[best]
    chosen.codes[owners] = found.codes[best]
    chosen.confidences[owners] = shares[best] / total[owners]
    if words.equal is not None:  # a word may be probable and yet count little
        found = best_texts(words.equal, y, np.zeros(pictures), RIVAL)
        logs = _log_probabilities(tempered, found)
    np.minimum(np.bincount(found.pictures, np.exp(logs), pictures), 1.0, out=chosen.kept)
    return chosen


def of_all(
    words: Words | None,
    weights: Mapping[str, float],
    other: float,
    width: int,
    charset: Charset,
    plain: Scores,
    tempered: Scores,
) -> Chosen:
    """The best text for each picture: of the ``words`` exactly, of all others by a beam search of ``width``.

    ``weights`` is what the words count, ``other`` what every other text does. No text is chosen that is worse than the
    best path's.
    """
    frames, pictures, _ = plain.shape
    y = np.exp(plain, dtype=np.float64)
    runs = ctc.greedy(plain)
    start = np.zeros((2 * pictures, frames), np.intp)  # the best paths' texts, and no text at all
    start[runs.words, runs.places] = runs.classes
    counts = np.array([weights.get(text, other) for text in runs.texts(charset)] + [other] * pictures)
    found = Found(np.tile(np.arange(pictures), 2), start, np.empty(0), counts)
    found = found._replace(scores=np.exp(_log_probabilities(plain, found)) * UNIT * counts)
    top = found.scores.reshape(2, pictures).max(axis=0)
    known = found.where(np.zeros(len(counts), bool))
    if words is not None:
        known = best_texts(words.automaton, y, top, RIVAL)
        np.maximum.at(top, known.pictures, known.scores)
    unknown = search(free(y, top / UNIT / other, other), y, top, 1.0, width)
    found = Found.join([found, known, unknown])
    best = found.best()
    chances = np.exp(_log_probabilities(tempered, known))
    listed = np.bincount(known.pictures, chances, pictures)
    total = np.bincount(known.pictures, chances * known.weights, pictures) + np.maximum(1 - listed, 0.0) * other
    chosen = found.where(best)
    chosen.codes[np.isneginf(_log_probabilities(plain, chosen))] = 0  # where no text is possible, none is chosen
    own = np.exp(_log_probabilities(tempered, chosen)) * chosen.weights
    return Chosen(chosen.codes, np.minimum(own / total, 1.0), np.ones(pictures))


def _one_by_one(words: Words, plain: Scores, picture: int) -> Found:
    """What :func:`best_texts` gives for one picture, by logarithms alone: slow, and without a smallest number."""
    every = Found(np.full(len(words.codes), picture), words.codes, words.weights, words.weights)
    counts = _log_probabilities(plain, every) + np.log(words.weights)
    scores = np.exp(counts - max(counts.max(), -1e300))
    good = np.flatnonzero(scores >= RIVAL)
    codes = np.zeros((len(good), len(plain)), np.intp)
    texts = words.codes[good, : len(plain)]
    codes[:, : texts.shape[1]] = texts
    return Found(np.full(len(good), picture), codes, scores[good], words.weights[good])


def _log_probabilities(logp: Scores, found: Found) -> NDArray[np.float64]:
    """The logarithms of the exact CTC probabilities of the texts, float64[K]."""
    logs = np.empty(len(found.pictures))
    step = max(1, _ONCE // (logp.shape[0] * logp.shape[2]))
    for piece in (slice(i, i + step) for i in range(0, len(logs), step)):
        logs[piece] = ctc.forward(logp.take(found.pictures[piece], axis=1), *states_of(found.codes[piece]))
    return logs
