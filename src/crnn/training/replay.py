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
LEAST = 8  # pictures are taken again once there are so many times as many as a batch takes


@dataclass
class _Sample:
    image: Tensor  # uint8[height, width]
    target: Tensor  # int64[characters]
    number: int  # in the stream
    uses: int = 0


class Replay:
    """The samples that come again, for the batches of one process.

    Args:
        share: samples taken again for each new one.
        seed: of the choice among those there are.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed
        self._kept: list[_Sample] = []
        self._chosen: list[int] = []
        self._new: Batch | None = None
        self.taken = 0  # samples that came again, so far

    def __len__(self) -> int:
        return len(self._kept)

    def mixed(self, batch: Batch) -> Batch:
        """``batch`` with old samples after its own; which ones depends on the seed, its first id and what is kept."""
        count = round(self._share * len(batch.images))
        self._new, self._chosen = batch, []
        if count and len(self._kept) >= LEAST * count:
            dice = Random(f"{self._seed} {int(batch.ids[0])}")
            self._chosen = dice.sample(range(len(self._kept)), count)
        self.taken += len(self._chosen)
        old = [self._kept[k] for k in self._chosen]
        return Batch(
            torch.cat((batch.images, *(sample.image[None] for sample in old))),
            torch.cat((batch.targets, *(sample.target for sample in old))),
            torch.cat((batch.lengths, torch.tensor([len(sample.target) for sample in old], dtype=torch.long))),
            torch.cat((batch.ids, torch.tensor([sample.number for sample in old], dtype=torch.long))),
        )

    def note(self, losses: Tensor) -> None:
        """Who comes again, and who goes, by the losses (nats, one a sample) of the batch :meth:`mixed` made last."""
        assert self._new is not None, "mixed() comes first"
        batch, values = self._new, losses.tolist()
        gone = set()
        for k, loss in zip(self._chosen, values[len(batch.images) :], strict=True):
            self._kept[k].uses += 1
            if self._kept[k].uses >= USES or not loss > EASY:
                gone.add(k)
        self._kept = [sample for k, sample in enumerate(self._kept) if k not in gone]
        for image, target, number, loss in zip(
            batch.images, batch.targets.split(batch.lengths.tolist()), batch.ids.tolist(), values, strict=False
        ):
            if EASY < loss < HOPELESS:
                self._kept.append(_Sample(image.clone(), target.clone(), number))  # not a view that keeps the batch
        del self._kept[:-CAPACITY]

    def state_dict(self) -> dict[str, Any]:
        """What is kept, as tensors and plain values."""
        if not self._kept:
            return {"taken": self.taken}
        return {
            "taken": self.taken,
            "images": torch.stack([sample.image for sample in self._kept]),
            "targets": torch.cat([sample.target for sample in self._kept]),
            "lengths": torch.tensor([len(sample.target) for sample in self._kept]),
            "ids": torch.tensor([sample.number for sample in self._kept]),
            "uses": torch.tensor([sample.uses for sample in self._kept]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""
        self.taken, self._kept = int(state.get("taken", 0)), []
        if "images" not in state:
            return
        targets = state["targets"].split(state["lengths"].tolist())
        rows = zip(state["images"], targets, state["ids"].tolist(), state["uses"].tolist(), strict=True)
        self._kept = [_Sample(image.clone(), target.clone(), number, uses) for image, target, number, uses in rows]
