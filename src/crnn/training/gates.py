"""The order of an LSTM's four gates in a checkpoint, and which of two orders is the right one.

PyTorch stacks them input, forget, cell, output. Networks trained on Ascend NPUs with its first PyTorch (1.5, Apex) have
input, cell, forget, output, since the device's fused LSTM took the parameters as they were. Nothing in a file says
which it is, and the wrong order raises no error: it only reads nothing right. So the way to know is to read words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crnn.ctc import greedy
from crnn.datasets.lmdb import LmdbReader
from crnn.errors import CrnnError, DatasetError
from crnn.images import normalise, prepare
from crnn.protocols import COMPARED, protocol_of
from crnn.spec import ModelSpec
from crnn.training.folding import network_of

ORDERS = ("pytorch", "npu")
WORDS = 300
_BATCH = 64
_SURE = 3.0  # standard deviations


def swap(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the forget and the cell gate exchanged in every LSTM tensor: each order into the other."""
    return {key: _swapped(value) if "w_rnn." in key else value for key, value in weights.items()}


def _swapped(stacked: Tensor) -> Tensor:
    first, second, third, fourth = stacked.chunk(4)
    return torch.cat((first, third, second, fourth))


@dataclass(frozen=True)
class Verdict:
    """How many of the same ``words`` are read right with the order that was ``chosen`` and with the other one.

    ``sure``: by how many standard deviations the better of the two is better, counting the words that only one of them
    reads right (McNemar's test); 3 or more is no accident.
    """

    chosen: str
    words: int
    right: Mapping[str, int]
    sure: float

    @property
    def better(self) -> str | None:
        """The order that is clearly the right one, or None if these words do not tell."""
        return max(self.right, key=lambda order: self.right[order]) if self.sure >= _SURE else None


def compare(weights: Mapping[str, Tensor], spec: ModelSpec, chosen: str, words: Path) -> Verdict:
    """Read up to 300 words of an LMDB, spread over all of it, with the gates as ``chosen`` and the other way round.

    ``weights`` are ours, made by the ``chosen`` order; a word is right if it equals its label under the protocol
    of the spec's charset. Raises DatasetError if the data set cannot be opened or no word of it can be used.
    """
    images, labels = _sample(words, spec)
    (other,) = set(ORDERS) - {chosen}
    hits, compared = {}, COMPARED[protocol_of(spec.charset)]
    for order, state in ((chosen, weights), (other, swap(weights))):
        network = network_of(state, spec.trunk)
        texts: list[str] = []
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                texts += greedy(network(images[start : start + _BATCH]).numpy()).texts(spec.charset)
        hits[order] = np.array([compared(text) == label for text, label in zip(texts, labels, strict=True)])
    only_one, both_ways = int((hits[chosen] != hits[other]).sum()), int(hits[chosen].sum()) - int(hits[other].sum())
    sure = abs(both_ways) / math.sqrt(only_one) if only_one else 0.0
    return Verdict(chosen, len(labels), {order: int(hit.sum()) for order, hit in hits.items()}, sure)


def _sample(path: Path, spec: ModelSpec) -> tuple[Tensor, list[str]]:
    """(float32[N, channels, height, width], labels under the protocol); words that cannot be read are left out."""
    reader = LmdbReader(path)
    pictures, labels, compared = [], [], COMPARED[protocol_of(spec.charset)]
    for i in np.unique(np.linspace(0, len(reader) - 1, WORDS).astype(int)).tolist() if len(reader) else []:
        try:
            picture, label = prepare(reader.image(i, spec.picture_mode), spec), compared(reader.label(i))
        except CrnnError:
            continue
        if label:
            pictures.append(picture)
            labels.append(label)
    if not pictures:
        raise DatasetError(f"{path} holds no word to compare gate orders on: give another set with --check")
    return torch.from_numpy(normalise(np.stack(pictures), spec)), labels
