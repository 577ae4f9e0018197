"""The endless stream of training samples, and the real words held out from it.

Sample i of a stream is a pure function of (seed, i): which source it comes from, which word, how it is distorted. A
stream's position is therefore one integer, and workers, batches and restarts cannot change what is trained on. (Where
words are chosen by their loss, :mod:`crnn.training.importance`, what they weigh depends on their batch as well.)
"""

from __future__ import annotations

import signal
import sys
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crnn.datasets.check import Usable, usable
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.pictures import Pictures
from crnn.datasets.split import is_held_out
from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.images import prepare
from crnn.protocols import COMPARED, protocol_of
from crnn.spec import ModelSpec
from crnn.synthesis.generator import Photographs, WordGenerator
from crnn.training.augment import augment
from crnn.training.consistency import altered
from crnn.training.importance import Drawn, Importance, Sample

DECODED = 200_000  # words; a minute or two of decoding when a set is opened
TRIES = 100  # pictures of a larger set, in a row
KEPT_BYTES = 256 << 20  # of decoded pictures, of each data set in each process


class RealWords:
    """The words of one labelled data set that a network of ``spec`` can learn, split into training and held-out words.

    ``training`` and ``held_out`` are their indices, int64[N]; of a set for ``validation`` all are held out. Each
    process keeps decoded pictures, gray (a few kilobytes each), up to :data:`KEPT_BYTES` of them.

    Pictures are decoded once when the set is opened, and those that cannot be are left out. Of a set of more than
    :data:`DECODED` words, which would take long each time, only the labels are looked at; where a picture that is drawn
    cannot be decoded, another is drawn, and ``unreadable`` counts it.

    ``advance`` is told how many of how many words were looked at. Raises DatasetError where no word is left.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        validation: bool = False,
        advance: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        self.path, self.spec = path, spec
        self.reader = LmdbReader(path)
        self._protocol = COMPARED[protocol_of(spec.charset)]
        self._all_decoded = len(self.reader) <= DECODED
        found: Usable = usable(self.reader, spec, self._protocol, decode=self._all_decoded, advance=advance)
        self.skipped = found.skipped
        self.unreadable = 0
        indices = np.array(found.indices, np.int64)
        held_out = np.array([validation or is_held_out(i) for i in found.indices], bool)
        self.training, self.held_out = indices[~held_out], indices[held_out]
        if not len(self.held_out if validation else self.training):
            what = "validate" if validation else "train"
            first = f", the first because {self.skipped[0].reason}" if self.skipped else ""
            held = f", {len(self.held_out)} held out, as every tenth is" if len(self.held_out) else ""
            left = f"{len(self.skipped)} were left out{first}{held}"
            raise DatasetError(f"{path} has no usable word to {what} on: {left}")
        self.pictures = Pictures(self._decoded, KEPT_BYTES)

    def label(self, index: int) -> str:
        """The label at ``index`` of the data set, as the protocol of the spec's charset leaves it."""
        return self._protocol(self.reader.label(index))

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(self.reader.image(index))

    def sample(self, dice: Random) -> tuple[NDArray[np.uint8], str]:
        """A training word, distorted at random, and its label."""
        for _ in range(TRIES):
            index = int(self.training[dice.randrange(len(self.training))])
            try:
                picture = self.pictures[index]
            except CrnnError as error:
                if self._all_decoded:  # it could be decoded before: the disk or the file is at fault
                    raise
                self.unreadable += 1
                reason = error
                continue
            label = self.label(index)
            return augment(picture, 5 * len(label), dice), label
        lost = f"{TRIES} pictures in a row cannot be had, the last as {reason}"
        raise DatasetError(f"{lost}: crnn data check {self.path}") from reason


@dataclass(frozen=True)
class Batch:
    """``images`` uint8[N, height, width]; ``targets`` int64, the labels joined; ``lengths`` int64[N].

    ``ids`` int64[N] are the samples; or int64[N/2], where the second half of the images are other views of the same
    words in the same order (:mod:`crnn.training.consistency`). The words' losses weigh ``weights``, float32[N]: 1, or
    what makes up for how they were chosen among so many ``candidates`` (:mod:`crnn.training.importance`).
    ``unreadable`` pictures could not be decoded when they were drawn for it, and others took their places.
    """

    images: Tensor
    targets: Tensor
    lengths: Tensor
    ids: Tensor
    weights: Tensor
    candidates: int
    unreadable: int = 0


class SampleStream:
    """Samples of several sources in fixed proportions.

    Args:
        sources: (source, share) pairs; shares are relative. A :class:`WordGenerator` is asked for word i, so that its
            stream is the one ``crnn synth`` writes; real words are drawn at random, with replacement.
        importance: what chooses among candidates for a batch, or None: the first ones.
        twice: draws another view of each word as well.
    """

    def __init__(
        self,
        sources: list[tuple[RealWords | WordGenerator, float]],
        spec: ModelSpec,
        seed: int,
        importance: Importance | None = None,
        *,
        twice: bool = False,
    ) -> None:
        if not sources or not all(0 < share < inf for _, share in sources):
            raise OptionError("training needs at least one data set or fonts, each with a share above 0")
        self.sources = [source for source, _ in sources]
        self.spec, self.seed, self.importance, self.twice = spec, seed, importance, twice
        self._sums = list(accumulate(share for _, share in sources))

    def sample(self, i: int) -> Sample:
        """Candidate ``i``, and without importance sample ``i``: (uint8[spec.height, spec.width], label)."""
        dice = Random((self.seed << 65) + (1 << 64) + i)  # never a seed that WordGenerator.word(i) uses
        source = self.sources[min(bisect(self._sums, dice.random() * self._sums[-1]), len(self.sources) - 1)]
        if isinstance(source, WordGenerator):
            image, label, _ = source.word(i)
        else:
            image, label = source.sample(dice)
        return prepare(Image.fromarray(image), self.spec), label

    def draw(self, ids: range) -> Drawn:
        """The samples ``ids``, then their other views where ``twice``. Raises CrnnError where one cannot be drawn."""
        if self.importance is not None:
            drawn = self.importance.draw(ids, self.sample, self.seed)
        else:
            drawn = Drawn([self.sample(i) for i in ids], np.ones(len(ids), np.float32), len(ids))
        return self._twice(ids, drawn) if self.twice else drawn

    def _twice(self, ids: range, drawn: Drawn) -> Drawn:
        dice = (Random((self.seed << 65) + (1 << 63) + i) for i in ids)  # never a seed that draws a word
        views = [(altered(image, d), label) for d, (image, label) in zip(dice, drawn.samples, strict=True)]
        return Drawn(drawn.samples + views, np.tile(drawn.weights, 2), drawn.candidates)

    @property
    def unreadable(self) -> int:
        """How many pictures could not be decoded when they were drawn here."""
        return sum(getattr(source, "unreadable", 0) for source in self.sources)

    def sizes(self) -> dict[str, int]:
        """How much there is to draw from, by what it is; and 1 for the weights that choose, if some do.

        With other entries sample i would be another one.
        """
        sizes: dict[str, int] = {}
        for source in self.sources:
            if isinstance(source, WordGenerator):
                sizes |= {"font faces": len(source.fonts.faces), "words in the list": len(source.corpus)}
                if isinstance(source.photograph, Photographs):
                    sizes["backgrounds"] = len(source.photograph)
            else:
                sizes[f"words to train on in {source.path}"] = len(source.training)
        if self.importance is not None:
            sizes[f"importance by {self.importance.name}"] = 1
        return sizes


class _Batches(Dataset[Batch | CrnnError]):
    def __init__(self, stream: SampleStream, start: int, stride: int, offset: int, size: int) -> None:
        self.stream, self.start, self.stride, self.offset, self.size = stream, start, stride, offset, size

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, step: int) -> Batch | CrnnError:
        """The batch, or what has kept it from being drawn: raised here, DataLoader would wrap it in its traceback."""
        first = self.start + step * self.stride + self.offset
        ids = range(first, first + self.size)
        before = self.stream.unreadable
        try:
            drawn = self.stream.draw(ids)
            codes = [self.stream.spec.charset.encode(label) for _, label in drawn.samples]
        except CrnnError as error:
            return error
        return Batch(
            torch.from_numpy(np.stack([image for image, _ in drawn.samples])),
            torch.tensor([code for word in codes for code in word]),
            torch.tensor([len(word) for word in codes]),
            torch.tensor(list(ids)),
            torch.from_numpy(drawn.weights),
            drawn.candidates,
            self.stream.unreadable - before,
        )


class _Steps:
    """The sampler: 0, 1, 2, ... without end."""

    def __iter__(self) -> Iterator[int]:
        step = 0
        while True:
            yield step
            step += 1


def batches(
    stream: SampleStream, start: int, size: int, *, workers: int, rank: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Batches of ``size`` samples from sample ``start`` on, drawn in background processes.

    Of several training processes, process ``rank`` gets the ``rank``-th of every ``processes`` batches. So what all of
    them take in a step, however many batches each, are the samples that follow on those of the step before.

    Raises CrnnError where a sample cannot be drawn, or a background process has died.
    """
    dataset = _Batches(stream, start, size * processes, rank * size, size)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=_Steps(),
        num_workers=workers,
        prefetch_factor=6 if workers else None,
        worker_init_fn=_quiet,
        # Not forked: this process has threads (torch's, OpenCV's), and a fork of it can wait for one of them for ever.
        multiprocessing_context="spawn" if workers else None,
        collate_fn=_as_it_is,
    )
    supply = _begun(loader)
    while True:
        try:
            batch = next(supply)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise CrnnError(
                "a process that draws words has died, most likely because memory ran out: free some, or take fewer "
                f"--workers, and give the same command to go on ({str(error).splitlines()[0]})"
            ) from error
        if isinstance(batch, CrnnError):
            raise batch
        yield batch


def _begun(loader: DataLoader[Batch | CrnnError]) -> Iterator[Batch | CrnnError]:
    """The loader's iterator, without torch's handler of SIGCHLD: it would raise in the middle of a training step.

    So the death of a worker is noticed by who waits for its batch, between steps, where the state can be saved.
    """
    if sys.platform == "win32":
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    supply = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return supply


def joined(ranges: list[tuple[int, int]]) -> list[int]:
    """The first and the last of each unbroken run of numbers in ``ranges`` (first, last), one after the other."""
    ends: list[int] = []
    for first, last in sorted(ranges):
        if ends and first == ends[-1] + 1:
            ends[-1] = last
        else:
            ends += [first, last]
    return ends


def _as_it_is(batch: Any) -> Any:
    return batch


def _quiet(_: int) -> None:
    """A worker draws words on one thread, as the others belong to the network, and leaves signals to its parent."""
    import os

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "win32":  # torchrun ends a training process by a signal to its whole group
        os.setpgrp()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
