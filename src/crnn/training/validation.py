"""Word accuracy and 1-NED on the held-out tenth of the real training words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crnn.ctc import greedy
from crnn.evaluation.metrics import score
from crnn.images import normalise, prepare
from crnn.spec import ModelSpec
from crnn.training.processes import Processes

if TYPE_CHECKING:
    from crnn.training.data import RealWords

BATCH = 128


class Validation(NamedTuple):
    """``sets``: (data set, accuracy, 1-NED) for each, and for all words together under the name ``all``."""

    sets: tuple[tuple[str, float, float], ...]

    @property
    def accuracy(self) -> float:
        """Over all held-out words."""
        return self.sets[-1][1] if self.sets else float("nan")


@dataclass
class HeldOut:
    """Held-out words, prepared once: float32[N, 1, height, width] and labels, with each set's name and size."""

    images: Tensor
    labels: list[str]
    sets: list[tuple[str, int]]
    spec: ModelSpec

    def __init__(self, words: list[RealWords], spec: ModelSpec) -> None:
        prepared = [prepare(each.reader.image(index), spec) for each in words for index, _ in each.held_out]
        shape = (0, spec.height, spec.width)
        self.images = torch.from_numpy(normalise(np.stack(prepared) if prepared else np.empty(shape, np.uint8), spec))
        self.labels = [label for each in words for _, label in each.held_out]
        self.sets = [(each.path.name, len(each.held_out)) for each in words]
        self.spec = spec


@torch.no_grad()
def validate(network: nn.Module, held_out: HeldOut, device: torch.device, processes: Processes) -> Validation:
    """Reads every held-out word with ``network`` (float32[N, 1, H, W] -> log-probabilities [T, N, classes]).

    Each of several processes reads a part of the words; all of them get the result.
    """
    texts: list[str] = []
    part = processes.part(len(held_out.labels))
    for start in range(part.start, part.stop, BATCH):
        images = held_out.images[start : min(start + BATCH, part.stop)].to(device)
        logp = network(images.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
        texts += greedy(logp).texts(held_out.spec.charset)
    texts = processes.gathered(texts)
    rows, ends = [], accumulate(count for _, count in held_out.sets)
    sets = [(name, slice(end - count, end)) for (name, count), end in zip(held_out.sets, ends, strict=True)]
    for name, which in [*sets, ("all", slice(None))]:
        if labels := held_out.labels[which]:
            scores = score(labels, texts[which])
            rows.append((name, scores.accuracy, scores.ned))
    return Validation(tuple(rows))
