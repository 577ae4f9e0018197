"""Training words drawn by how much there is to learn from them.

A network that reads well has learnt what half of its training words can teach it: their gradients are next to nothing.
So candidates are drawn, finished weights read them, and each is kept with a probability that grows with the loss that
these have on it. A word that is kept weighs the inverse of its probability, so that the mean gradient stays that of all
candidates, and varies less than with as many words drawn alike (importance sampling; for deep networks Katharopoulos
and Fleuret, "Not All Samples Are Created Equal", ICML 2018). Batch normalisation alone sees the words that are kept as
they come, more hard ones than there are.

The finished weights stay as they are during a run. So what is drawn is a function of (seed, sample), as it is without
them, but for what a loss is rounded to: that depends on the engine, the processor and the words that are read together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.ctc import log_probability
from crnn.engines import Engine, open_engine
from crnn.errors import DatasetError, OptionError
from crnn.images import normalise
from crnn.spec import ModelSpec

SURE = 0.15  # nats a character, from which on a word is always kept
LEAST = 0.08  # probability of keeping a word, however well it is read
ROUNDS = 500  # candidates in a row; with LEAST none of them is kept once in 10^18 samples

Sample = tuple[NDArray[np.uint8], str]


@dataclass(frozen=True)
class Drawn:
    """Samples, what their losses weigh (float32[N], about 1 on average), and how many candidates they are of."""

    samples: list[Sample]
    weights: NDArray[np.float32]
    candidates: int


class Importance:
    """Keeps words by the loss of the weights in ``path`` (ONNX). Each process opens its own, on one thread.

    Raises OptionError where these are no ONNX file, write other characters than ``spec``, or take other pictures;
    what :func:`crnn.engines.open_engine` raises.
    """

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        if path.suffix != ".onnx":
            raise OptionError(f"{path}: words are chosen by the loss of an .onnx (crnn export), or of bundled")
        self.path, self.spec = path, spec
        engine = self._opened()
        self._engine: Engine | None = engine
        for name in ("charset", "height", "width", "channels", "steps", "resampling", "mean", "std", "aipp"):
            if getattr(engine.spec, name) != getattr(spec, name):
                raise OptionError(
                    f"{path}: its {name} is not that of the network to be trained, so its loss cannot choose words: "
                    "give --importance an .onnx of the same, or none"
                )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.name = f"{path.name} {digest[:12]} ({engine.name} in {engine.precision})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def _opened(self) -> Engine:
        return open_engine(self.path, threads=1, calls=1)

    def losses(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """CTC loss in nats a character of each (image uint8[height, width], label): float64[N]."""
        if self._engine is None:
            self._engine = self._opened()
        images, labels = zip(*samples, strict=True)
        logp = self._engine.run(normalise(np.stack(images), self.spec))
        return np.asarray(-log_probability(logp, labels, self.spec.charset) / [len(label) for label in labels])

    def draw(self, ids: range, sample: Callable[[int], Sample], seed: int) -> Drawn:
        """Of each of ``ids`` the first candidate that is kept; its k-th is ``sample(i + (k << 40))``.

        Raises what ``sample`` raises.
        """
        kept: dict[int, tuple[Sample, float]] = {}
        candidates = 0
        for k in range(ROUNDS):
            left = [i for i in ids if i not in kept]
            if not left:
                break
            samples = [sample(i + (k << 40)) for i in left]
            candidates += len(left)
            for i, one, chance in zip(left, samples, chances(self.losses(samples)).tolist(), strict=True):
                if Random((seed << 65) + (3 << 63) + i + (k << 40)).random() < chance:  # never a seed that draws a word
                    kept[i] = one, chance
        else:
            raise DatasetError(f"of {ROUNDS} words in a row none was kept by the loss of {self.path}")
        # By the share of candidates that are kept, weights are 1 on average. Less one on both sides, as the last
        # candidate is always kept, the share is unbiased.
        share = (len(ids) - 1) / (candidates - 1) if len(ids) > 1 else 1 / candidates
        weights = np.array([share / kept[i][1] for i in ids], np.float32)
        return Drawn([kept[i][0] for i in ids], weights, candidates)


def chances(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities of keeping words with these losses, in nats a character.

    The best probability is proportional to the length of the word's gradient. That grows with the loss at first, then
    less; and a loss by other weights than those in training only guesses it. The root is between the two.
    """
    return np.clip(np.sqrt(np.maximum(losses, 0) / SURE), LEAST, 1)
