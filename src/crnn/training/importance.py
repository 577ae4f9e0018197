"""Training words drawn by how much there is to learn from them.

A network that reads well has learnt what half of its training words can teach it: their gradients are next to nothing.
So candidates are drawn, finished weights read them, and each is kept with a probability that grows with the loss that
these have on it. A word that is kept weighs the inverse of its probability, so that the mean gradient stays that of all
candidates, and varies less than with as many words drawn alike (importance sampling; for deep networks Katharopoulos
and Fleuret, "Not All Samples Are Created Equal", ICML 2018). To read a word takes about a fifth of the time that
training on it does.

The finished weights stay as they are during a run: what is drawn is then a function of (seed, sample), as it is without
them, and a run that was stopped goes on with the same words.
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
    """Keeps words by the loss of the model in ``path`` (ONNX). Each process opens its own, on one thread.

    Raises OptionError where the model writes other characters than ``spec``, or takes other pictures.
    """

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path, self.spec = path, spec
        self._engine: Engine | None = None  # opened where words are drawn, which is in other processes
        theirs = open_engine(path, threads=1).spec
        for name in ("charset", "height", "width", "channels", "steps", "resampling", "mean", "std", "aipp"):
            if getattr(theirs, name) != getattr(spec, name):
                raise OptionError(
                    f"{path}: its {name} is not that of the network to be trained, so it cannot say which words are "
                    "hard: give weights of the same spec for --importance (crnn describe), or none"
                )
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def losses(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """CTC loss in nats a character of each (image uint8[height, width], label): float64[N]."""
        if self._engine is None:
            self._engine = open_engine(self.path, threads=1)
        logp = self._engine.run(normalise(np.stack([image for image, _ in samples]), self.spec))
        lengths = np.array([len(label) for _, label in samples])
        return np.asarray(-log_probability(logp, [label for _, label in samples], self.spec.charset) / lengths)

    def draw(self, ids: range, sample: Callable[[int], Sample], seed: int) -> Drawn:
        """Of each of ``ids`` the first candidate that is kept; its k-th is ``sample(i + (k << 40))``.

        Raises what ``sample`` raises.
        """
        kept: dict[int, tuple[Sample, float]] = {}
        candidates = 0
        for k in range(ROUNDS):
            left = [i + (k << 40) for i in ids if i not in kept]
            if not left:
                break
            samples = [sample(i) for i in left]
            candidates += len(left)
            for i, one, chance in zip(left, samples, chances(self.losses(samples)).tolist(), strict=True):
                if Random((seed << 65) + (3 << 63) + i).random() < chance:  # never a seed that draws a word
                    kept[i - (k << 40)] = one, chance
        else:
            raise DatasetError(f"of {ROUNDS} words in a row none was kept by the loss of {self.path}")
        inverse = np.array([1 / kept[i][1] for i in ids])
        # The mean of the inverse is the number of candidates for each sample, but for chance.
        weights = inverse * (len(ids) / candidates)
        return Drawn([kept[i][0] for i in ids], weights.astype(np.float32), candidates)


def chances(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities of keeping words with these losses, in nats a character.

    The best probability is proportional to the length of the word's gradient. That grows with the loss at first, then
    less; and a loss by other weights than those in training only guesses it. The root is between the two.
    """
    return np.clip(np.sqrt(np.maximum(losses, 0) / SURE), LEAST, 1)
