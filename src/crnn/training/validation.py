"""Word accuracy and 1-NED on the held-out tenth of the real training words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crnn.ctc import greedy
from crnn.errors import CrnnError
from crnn.evaluation.metrics import score
from crnn.images import normalise, prepare
from crnn.spec import ModelSpec
from crnn.training.processes import Processes

if TYPE_CHECKING:
    from crnn.training.data import RealWords

BATCH = 128
MOST = 20_000  # words of a set: to a third of a point, and 64 MB


class Validation(NamedTuple):
    """``sets``: (data set, accuracy, 1-NED) for each, and for all words together under the name ``all``.

    ``empty`` is the share of words that nothing but blanks was read in, ``written`` the mean number of characters read,
    and ``labelled`` that of the labels.
    """

    sets: tuple[tuple[str, float, float], ...]
    empty: float = 0.0
    written: float = 0.0
    labelled: float = 0.0

    @property
    def accuracy(self) -> float:
        """Over all held-out words."""
        return self.sets[-1][1] if self.sets else float("nan")


@dataclass
class HeldOut:
    """Held-out words, prepared once: uint8[N, height, width] and labels, with each set's name and size.

    Of a set that holds out more than :data:`MOST` words, so many are taken, evenly over the set. ``unreadable`` words
    cannot be decoded and are not among them.
    """

    images: NDArray[np.uint8]
    labels: list[str]
    sets: list[tuple[str, int]]
    spec: ModelSpec
    unreadable: int

    def __init__(self, words: list[RealWords], spec: ModelSpec) -> None:
        prepared: list[NDArray[np.uint8]] = []
        self.labels, self.sets, self.spec, self.unreadable = [], [], spec, 0
        for each, name in zip(words, names([each.path for each in words]), strict=True):
            before = len(prepared)
            for index in evenly(each.held_out, MOST).tolist():
                try:
                    picture = each.reader.image(index)
                except CrnnError:
                    self.unreadable += 1
                    continue
                prepared.append(prepare(picture, spec))
                self.labels.append(each.label(index))
            self.sets.append((name, len(prepared) - before))
        self.images = np.stack(prepared) if prepared else np.empty((0, spec.height, spec.width), np.uint8)


def names(paths: list[Path]) -> list[str]:
    """What the data sets are called: as their folders, with those above them where that tells them apart from others.

    ``all`` is the name of all of them together. A set that is given again keeps its name and gets a number.
    """
    short: list[str] = []
    for path in paths:
        alike = [other for other in paths if other.name == path.name and other != path]
        short.append("/".join(path.absolute().parts[-2:]) if alike or path.name == "all" else path.name)
    counts = [short[:i].count(name) for i, name in enumerate(short)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(short, counts, strict=True)]


def evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of them, at equal distances: int64[min(N, most)]."""
    if len(indices) <= most:
        return indices
    return indices[np.arange(most, dtype=np.int64) * len(indices) // most]


@torch.no_grad()
def validate(network: nn.Module, held_out: HeldOut, device: torch.device, processes: Processes) -> Validation:
    """Reads every held-out word with ``network`` (float32[N, 1, H, W] -> log-probabilities [T, N, classes]).

    Each of several processes reads a part of the words; all of them get the result.
    """
    texts: list[str] = []
    part = processes.part(len(held_out.labels))
    for start in range(part.start, part.stop, BATCH):
        pixels = held_out.images[start : min(start + BATCH, part.stop)]
        images = torch.from_numpy(normalise(pixels, held_out.spec)).to(device)
        logp = network(images.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
        texts += greedy(logp).texts(held_out.spec.charset)
    texts = processes.gathered(texts)
    rows, ends = [], accumulate(count for _, count in held_out.sets)
    sets = [(name, slice(end - count, end)) for (name, count), end in zip(held_out.sets, ends, strict=True)]
    for name, which in [*sets, ("all", slice(None))]:
        if labels := held_out.labels[which]:
            scores = score(labels, texts[which])
            rows.append((name, scores.accuracy, scores.ned))
    if not texts:
        return Validation(())
    labelled = fmean(map(len, held_out.labels))
    return Validation(tuple(rows), texts.count("") / len(texts), fmean(map(len, texts)), labelled)
