"""From a network's output to text: CTC decoding over NumPy arrays, whole batches at once.

CTC (Graves et al., "Connectionist Temporal Classification", ICML 2006): at each time step (frame) the network names one
class; runs of the same class count once, and blanks (class 0) are dropped. Many paths of T classes give one text, and
the probability of a text is the sum over its paths.

Throughout, ``logp`` is float[T, N, C]: log-probabilities of C classes at T frames of N words, time-major.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crnn.charset import Charset
from crnn.errors import EngineError
from crnn.spec import FRAME_PITCH, TRUNKS, ModelSpec

Scores = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]

HIGHEST = 1e-3
"""What is above this is no log-probability; float16's rounding stays below."""


class Runs(NamedTuple):
    """The characters of the best paths of a batch: K entries, sorted by word and then by time, in parallel arrays.

    Entry k is a character of word ``words[k]``, of class ``classes[k]`` (1 to C - 1), named by the frames
    ``first[k]`` to ``last[k]`` (both included). ``counts``, intp[N], is the number of characters of each word.
    """

    words: Indices
    classes: Indices
    first: Indices
    last: Indices
    counts: Indices

    def texts(self, charset: Charset) -> list[str]:
        """The N texts."""
        symbols = charset.symbols
        joined = "".join([symbols[k - 1] for k in self.classes.tolist()])
        ends = np.cumsum(self.counts).tolist()
        return [joined[start:end] for start, end in pairwise([0, *ends])]

    @property
    def places(self) -> Indices:
        """intp[K], where each character stands in its text, from 0."""
        return np.arange(len(self.words)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)


class Character(NamedTuple):
    """A character of a decoded word.

    ``score`` is the geometric mean of its posterior probability over its frames, 0 to 1; ``frames`` are the first and
    the last frame that named it, both included (:func:`frame_span` turns them into pixels).
    """

    character: str
    score: float
    frames: tuple[int, int]


class Decoded(NamedTuple):
    """A decoded word. ``log_probability`` is the natural logarithm of the exact CTC probability of ``text``."""

    text: str
    characters: tuple[Character, ...]
    log_probability: float

    @property
    def confidence(self) -> float:
        """The CTC probability of ``text``, 0 to 1."""
        return min(1.0, math.exp(self.log_probability))


def greedy(logp: Scores) -> Runs:
    """The best path of each word: the most probable class of every frame, collapsed. On a tie, the lower class.

    Raises:
        EngineError: ``logp`` is not three-dimensional, or holds NaN.
    """
    check(logp)
    best = np.ascontiguousarray(logp.argmax(axis=2).T)  # [N, T]: nonzero() then lists word by word
    differs = best[:, 1:] != best[:, :-1]
    starts = best != 0
    ends = starts.copy()
    starts[:, 1:] &= differs
    ends[:, :-1] &= differs
    words, first = np.nonzero(starts)  # the k-th start and the k-th end are of the same run
    last = np.nonzero(ends)[1]
    return Runs(words, best[words, first], first, last, np.bincount(words, minlength=len(best)))


def decode(logp: Scores, charset: Charset, temperature: float = 1.0) -> list[Decoded]:
    """Greedy text of each of the N words, with its characters' scores and frames and its exact probability.

    The text is that of the best path; now and then another text, spread over several paths, is more probable. It does
    not depend on the ``temperature``, with which :func:`tempered` changes the scores and the probability.

    Raises:
        EngineError: ``logp`` is not float[T, N, charset.classes], holds NaN, or is not log-probabilities.
        ValueError: the temperature is not a finite number above 0.
    """
    check(logp, charset)
    runs = greedy(logp)  # of the array as it came: dividing could round two neighbours to one value
    return describe(tempered(logp, temperature), runs, charset)


def describe(logp: Scores, runs: Runs, charset: Charset) -> list[Decoded]:
    """The N texts of ``runs``, with their characters' scores and frames and their exact probabilities."""
    texts = runs.texts(charset)
    states = np.zeros((len(texts), 2 * int(runs.counts.max(initial=0)) + 1), np.intp)
    states[runs.words, 2 * runs.places + 1] = runs.classes
    probabilities = forward(logp, states, runs.counts).tolist()
    scores, firsts, lasts = _scores(logp, runs).tolist(), runs.first.tolist(), runs.last.tolist()
    decoded = []
    k = 0
    for text, probability in zip(texts, probabilities, strict=True):
        ends = range(k, k := k + len(text))
        characters = tuple([Character(c, scores[j], (firsts[j], lasts[j])) for c, j in zip(text, ends, strict=True)])
        decoded.append(Decoded(text, characters, probability))
    return decoded


def tempered(logp: Scores, temperature: float) -> Scores:
    """The posteriors at another temperature: in each frame, the log-softmax over the classes of ``logp / temperature``.

    That is what dividing the logits by it would have given, as logits and ``logp`` differ by a constant in each frame.
    Above 1 it makes the network less sure of every frame, below 1 surer; the order of the classes stays (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017). float64 of the same shape; ``logp`` itself at 1.

    Raises:
        ValueError: the temperature is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"the temperature must be a finite number above 0, not {temperature}")
    if temperature == 1:
        return logp
    top = logp.max(axis=2, keepdims=True).astype(np.float64)
    top[np.isneginf(top)] = 0.0  # a frame without any possible class stays so
    scaled: npt.NDArray[np.float64] = logp.astype(np.float64)  # in steps: NumPy is slow where types are mixed
    scaled -= top
    with np.errstate(over="ignore"):  # an exponent too small for a float is that of a probability of 0
        scaled /= temperature
    total = np.exp(scaled) @ np.ones(logp.shape[2])  # a sum, at a sixth of the time of sum()
    scaled -= np.log(np.maximum(total, 1.0))[:, :, np.newaxis]  # the largest of them is exp(0)
    return scaled


def log_probability(logp: Scores, texts: Sequence[str], charset: Charset) -> npt.NDArray[np.float64]:
    """The natural logarithm of the exact CTC probability of ``texts[n]`` given word n: float64[N].

    The forward algorithm (section 4.1 of the CTC paper), summed in float64. A text that no path gives has probability
    0, so -inf: one longer than :func:`required_steps` allows, or with a character outside the charset.

    Raises:
        EngineError: ``logp`` is not float[T, N, charset.classes], holds NaN, or is not log-probabilities.
        ValueError: the number of texts is not N.
    """
    check(logp, charset)
    frames, words, _ = logp.shape
    if len(texts) != words:
        raise ValueError(f"{len(texts)} texts for {words} words")
    # Texts that are too long would come out as -inf by themselves, but at the cost of a row of states for each.
    possible = [charset.can_encode(text) and required_steps(text) <= frames for text in texts]
    lengths = np.array([len(text) if ok else 0 for text, ok in zip(texts, possible, strict=True)], np.intp)

    # A path walks through the states blank, c1, blank, c2, ..., blank; shorter texts leave the last states of their row
    # unused, which does no harm, for probability flows rightwards only.
    states = np.zeros((words, 2 * int(lengths.max(initial=0)) + 1), np.intp)
    for row, text, length in zip(states, texts, lengths, strict=True):
        row[1 : 2 * length : 2] = charset.encode(text[:length])
    total = forward(logp, states, lengths)
    total[~np.array(possible, bool)] = -np.inf
    return total


def forward(logp: Scores, states: Indices, lengths: Indices) -> npt.NDArray[np.float64]:
    """Logarithms of the exact CTC probabilities of N texts, float64[N]: :func:`log_probability` of classes.

    Text n has ``lengths[n]`` characters, intp[N]; row n of ``states``, intp[N, S], holds their classes with blanks (0)
    before, between and after them, and more blanks up to an odd S.

    It adds up plain probabilities, which takes a quarter of the time of adding logarithms. What is too small for a
    float64 (under 1e-308) is lost on the way. That cannot show in a sum of at least 1e-200, for a path's probability
    only falls; a smaller sum is worked out anew with logarithms.
    """
    total = _forward_linear(logp, states, lengths)
    with np.errstate(divide="ignore"):
        result: npt.NDArray[np.float64] = np.log(total)
    small = np.flatnonzero(total < 1e-200)
    if len(small):
        result[small] = _forward_logarithmic(logp[:, small], states[small], lengths[small])
    return result


def _forward_linear(logp: Scores, states: Indices, lengths: Indices) -> npt.NDArray[np.float64]:
    frames, words, classes = logp.shape
    rows = np.arange(words)
    wanted = (states + classes * rows[:, None]).T  # [S, N]: then what a step adds up lies in one piece
    emissions = np.exp(logp.reshape(frames, words * classes).take(wanted, axis=1), dtype=np.float64)
    # From one state a path stays, steps to the next, or jumps over the blank between two different characters (from
    # blank to blank it doesn't: they are equal).
    jump = np.zeros(wanted.shape)
    jump[2:] = (states[:, 2:] != states[:, :-2]).T
    alpha = np.zeros((len(wanted) + 2, words))  # two rows in front, for "one state back" and "two back"
    here, one_back, two_back = alpha[2:], alpha[1:-1], alpha[:-2]
    here[:2] = emissions[0, :2]
    arriving = np.empty_like(here)
    for emission in emissions[1:]:
        np.multiply(two_back, jump, out=arriving)
        arriving += one_back
        arriving += here
        np.multiply(arriving, emission, out=here)
    # A path ends on the last character or on the blank after it; an empty text has no last character (row 1: 0).
    total: npt.NDArray[np.float64] = alpha[2 * lengths + 2, rows] + alpha[2 * lengths + 1, rows]
    return total


def _forward_logarithmic(logp: Scores, states: Indices, lengths: Indices) -> npt.NDArray[np.float64]:
    """The same, with logarithms throughout."""
    jump = np.full(states.shape, -np.inf)
    jump[:, 2:][states[:, 2:] != states[:, :-2]] = 0.0
    rows = np.arange(len(states))
    alpha = np.full((len(states), states.shape[1] + 2), -np.inf)
    here, one_back, two_back = alpha[:, 2:], alpha[:, 1:-1], alpha[:, :-2]
    here[:, :2] = logp[0, rows[:, None], states[:, :2]]
    for frame in logp[1:]:
        here[:] = _log_add(here, one_back, two_back + jump) + frame[rows[:, None], states]
    total: npt.NDArray[np.float64] = np.logaddexp(alpha[rows, 2 * lengths + 2], alpha[rows, 2 * lengths + 1])
    return total


def required_steps(text: str) -> int:
    """The fewest frames that can give ``text``: one for each character and one blank between two equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def frame_span(first: int, last: int, spec: ModelSpec, source_width: float) -> tuple[float, float]:
    """Where the frames ``first`` to ``last`` (both included) lie in the source picture: pixels [x0, x1) of its width.

    The receptive field of frame t is centred on input column 4t - 0.5 (the paper's kernels, strides and paddings,
    worked out in ``tests/test_ctc.py``). Column i covers [i, i + 1), so that centre is the point 4t, and the outermost
    frames are centred on the picture's very edges; without the padding of the trunk ``dtrb`` it is 4t + 4. The span
    reaches half-way to the neighbouring frames, clipped to the picture: [4 first - 2, 4 last + 2), or 4 further to the
    right, scaled by ``source_width / spec.width``.

    Raises:
        ValueError: not ``0 <= first <= last < spec.steps``.
    """
    if not 0 <= first <= last < spec.steps:
        raise ValueError(f"frames {first} to {last} are not within 0 to {spec.steps - 1}")
    scale = source_width / spec.width
    _, centre = TRUNKS[spec.trunk]
    left = max(0.0, centre + FRAME_PITCH * (first - 0.5))
    right = min(float(spec.width), centre + FRAME_PITCH * (last + 0.5))
    return left * scale, right * scale


def _scores(logp: Scores, runs: Runs) -> npt.NDArray[np.float64]:
    """float64[K], the geometric mean of each character's posterior over its frames."""
    lengths = runs.last - runs.first + 1
    offsets = np.cumsum(lengths) - lengths
    # Every frame of every run in one flat list, then a sum over each run's stretch of it.
    frames = np.arange(lengths.sum()) + np.repeat(runs.first - offsets, lengths)
    values = logp[frames, np.repeat(runs.words, lengths), np.repeat(runs.classes, lengths)]
    sums: npt.NDArray[np.float64] = np.add.reduceat(values, offsets, dtype=np.float64)
    return np.minimum(np.exp(sums / lengths), 1.0)


def _log_add(a: Scores, b: Scores, c: Scores) -> npt.NDArray[np.float64]:
    """log(exp(a) + exp(b) + exp(c)), where any may be -inf (np.logaddexp twice takes three times as long)."""
    top = np.maximum(np.maximum(a, b), c)
    top[np.isneginf(top)] = 0.0  # -inf - -inf is NaN, and log(0) is the -inf that is wanted
    with np.errstate(divide="ignore"):
        result: npt.NDArray[np.float64] = np.log(np.exp(a - top) + np.exp(b - top) + np.exp(c - top)) + top
    return result


def check(logp: Scores, charset: Charset | None = None) -> None:
    """Raise EngineError if ``logp`` is no array of log-probabilities, of as many classes as the charset needs."""
    if logp.ndim != 3 or 0 in (logp.shape[0], logp.shape[2]):
        raise EngineError(f"the output has shape {list(logp.shape)}; it must be [time steps, words, classes]")
    if charset is not None and logp.shape[2] != charset.classes:
        raise EngineError(
            f"the output has {logp.shape[2]} classes, but the charset's {len(charset)} characters and the blank need "
            f"{charset.classes}; use the spec that belongs to these weights"
        )
    top = logp.max(initial=-np.inf)
    if np.isnan(top):
        raise EngineError("the output holds NaN; the model or the engine is broken")
    if charset is not None and top > HIGHEST:
        raise EngineError(
            f"the output holds {top:.3g}, but log-probabilities are at most 0; end the network in log-softmax"
        )
