"""What a trained network takes along to other words: its last layer for another charset, its convolutions frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crnn.charset import Charset
from crnn.training.network import CRNN

HEAD = "rnn.1.embedding"  # the layer that scores the classes: a row of weights and a bias for each

FINE_TUNING = {"batch": 32, "rate": 4e-4, "warm_up": 30, "validate_every": 100}
"""Where a run that begins with trained weights has other defaults than :class:`crnn.training.config.TrainConfig`."""


@dataclass(frozen=True)
class CharsetChange:
    """What becomes of a network's characters on the way to another charset; each field lists characters.

    ``kept``: in both. ``recased``: only in the new one, but their other case is in the old one and not the new
    character itself: a network that was taught `a` for every A and a begins there. ``new``: without a forerunner.
    ``dropped``: neither in the new charset nor the forerunner of a character there.
    """

    kept: str
    recased: str
    new: str
    dropped: str

    @classmethod
    def between(cls, old: Charset, new: Charset) -> CharsetChange:
        """The change from ``old`` to ``new``."""
        origin = _origins(old, new)
        return cls(
            kept="".join(c for c in new.symbols if origin.get(c) == c),
            recased="".join(c for c in new.symbols if origin.get(c, c) != c),
            new="".join(c for c in new.symbols if c not in origin),
            dropped="".join(c for c in old.symbols if c not in origin.values()),
        )

    def __str__(self) -> str:
        parts = [("kept", self.kept), ("from the other case", self.recased), ("new", self.new)]
        listed = [f"{len(characters)} {what}{_shown(characters)}" for what, characters in parts if characters]
        return ", ".join([*listed, f"{len(self.dropped)} dropped{_shown(self.dropped)}"])


def _shown(characters: str) -> str:
    return f" ({characters})" if characters else ""


def _origins(old: Charset, new: Charset) -> dict[str, str]:
    """Each character of the new charset that has a forerunner in the old one -> that one."""
    origins = {}
    for character in new.symbols:
        for candidate in (character, character.swapcase()):
            if len(candidate) == 1 and old.can_encode(candidate):
                origins[character] = candidate
                break
    return origins


def adapt(weights: Mapping[str, Tensor], old: Charset, new: Charset, seed: int) -> dict[str, Tensor]:
    """The weights with the rows of the last layer as ``new`` orders its classes (:class:`CharsetChange`).

    The blank and characters that have a forerunner keep their rows; the other rows are drawn as PyTorch draws those of
    a new layer, by ``seed`` alone. Tensors that stay the same are shared, not copied.
    """
    if old == new:
        return dict(weights)
    matrix, bias = weights[f"{HEAD}.weight"], weights[f"{HEAD}.bias"]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = nn.Linear(matrix.shape[1], new.classes)
    origins = _origins(old, new)
    to, source = [0], [0]
    for character, origin in origins.items():
        to += new.encode(character)
        source += old.encode(origin)
    adapted = dict(weights)
    for name, values, trained in (("weight", fresh.weight, matrix), ("bias", fresh.bias, bias)):
        rows = values.detach().to(trained.dtype)
        rows[to] = trained[source]
        adapted[f"{HEAD}.{name}"] = rows
    return adapted


def freeze(network: CRNN, frozen: bool) -> None:
    """Leaves the convolutions out of training, or takes them in again. ``network`` is in training mode.

    Frozen, neither their weights nor the statistics of their batch normalisation move, and it normalises by these
    statistics, as in evaluation.
    """
    network.cnn.requires_grad_(not frozen)
    network.cnn.train(not frozen)
