"""Samples that were hard to read, taken again: what a network already reads teaches it little.

Most samples of a stream are soon read without a fault, and nearly all of the loss comes from the others. A picture
whose loss is neither small nor hopeless is kept as it is, and comes again, a few times, in later batches. Finding them
costs nothing, as their loss is known from their own training; choosing the hardest of many new samples by a forward
pass would, as in "Accelerating Deep Learning by Focusing on the Biggest Losers" (Jiang et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from crnn.training.data import Batch

EASY = 0.1  # nats: a word read with a probability above 0.9 need not come again
HOPELESS = 12.0  # nats: above it few words can be read by a person
USES = 3  # how often a picture comes again at most
CAPACITY = 8192  # pictures; the oldest make room
LEAST = 8  # pictures there are for each that a batch takes; with fewer it takes fewer


@dataclass
class _Sample:
    image: Tensor  # uint8[height, width]
    target: Tensor  # int64[characters]
    number: int  # in the stream, which tells it from all others
    uses: int = 0


class Replay:
    """The samples that come again, for the batches of one process.

    Args:
        share: samples taken again for each new one, at most.
        seed: of the choice among those there are.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed
        self._kept: dict[int, _Sample] = {}  # by number, the oldest first
        self.taken = 0
        """Samples that have come again so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def mixed(self, batch: Batch) -> Batch:
        """``batch`` with old samples after its own; which ones depends on the seed, its first id and what is kept."""
        count = min(round(self._share * len(batch.ids)), len(self._kept) // LEAST)
        if not count:
            return batch
        dice = Random(f"{self._seed} {int(batch.ids[0])}")
        old = [self._kept[number] for number in dice.sample(list(self._kept), count)]
        return Batch(
            torch.cat((batch.images, torch.stack([sample.image for sample in old]))),
            torch.cat((batch.targets, *(sample.target for sample in old))),
            torch.cat((batch.lengths, torch.tensor([len(sample.target) for sample in old]))),
            torch.cat((batch.ids, torch.tensor([sample.number for sample in old]))),
        )

    def note(self, batch: Batch, new: int, losses: Tensor) -> None:
        """Who comes again and who goes, by the losses (nats, float[N]) of a batch of :meth:`mixed`.

        ``new``: how many samples at its beginning came for the first time.
        """
        values, numbers = losses.tolist(), batch.ids.tolist()
        self.taken += len(numbers) - new
        for number, loss in zip(numbers[new:], values[new:], strict=True):
            sample = self._kept.get(number)
            if sample is not None:  # two batches of a step may take the same one
                sample.uses += 1
                if sample.uses >= USES or loss <= EASY:
                    del self._kept[number]
        targets = torch.split(batch.targets, batch.lengths.tolist())
        for k in range(new):
            if EASY < values[k] < HOPELESS:  # copies: a view would keep the whole batch
                self._kept[numbers[k]] = _Sample(batch.images[k].clone(), targets[k].clone(), numbers[k])
        for number in list(self._kept)[: max(0, len(self._kept) - CAPACITY)]:
            del self._kept[number]

    def state_dict(self) -> dict[str, Any]:
        """What is kept, as tensors and plain values."""
        kept = list(self._kept.values())
        if not kept:
            return {"taken": self.taken}
        return {
            "taken": self.taken,
            "images": torch.stack([sample.image for sample in kept]),
            "targets": torch.cat([sample.target for sample in kept]),
            "lengths": torch.tensor([len(sample.target) for sample in kept]),
            "ids": torch.tensor([sample.number for sample in kept]),
            "uses": torch.tensor([sample.uses for sample in kept]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""
        self.taken, self._kept = int(state.get("taken", 0)), {}
        if "images" not in state:
            return
        targets = state["targets"].split(state["lengths"].tolist())
        rows = zip(state["images"], targets, state["ids"].tolist(), state["uses"].tolist(), strict=True)
        for image, target, number, uses in rows:
            self._kept[number] = _Sample(image.clone(), target.clone(), number, uses)
