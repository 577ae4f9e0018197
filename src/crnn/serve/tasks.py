"""What clients want done: pictures to be read, or the network's own input to be run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn.decoding.decoder import Decoder
from crnn.word import Word


@dataclass(slots=True, frozen=True)
class Seen:
    """What was read in a picture.

    ``size`` is its width and height, upright; ``posterior``, float[steps, classes], has the probability of each class
    in each frame at the spec's temperature, if that was asked for.
    """

    word: Word
    size: tuple[int, int]
    posterior: NDArray[np.floating[Any]] | None = None


Result: TypeAlias = "Seen | NDArray[np.float32] | Exception | None"
"""Of a task; None if nobody waits for it any more."""


@dataclass(slots=True, eq=False)
class Request:
    """Tasks that are answered together. It lives in the event loop, but for ``dropped``, which any thread may read."""

    results: list[Result]
    left: int
    answered: asyncio.Future[None]
    dropped: bool = False
    """Nobody waits for the answer any more."""


@dataclass(slots=True, eq=False)
class Task:
    """Words that go through the network in one call; ``place`` is the task's among the results of its request."""

    request: Request
    place: int
    arrived: float = field(default_factory=time.monotonic, init=False)


@dataclass(slots=True, eq=False)
class PictureTask(Task):
    """One encoded picture, or once it is prepared (:func:`crnn.images.prepare`) its pixels."""

    data: bytes
    decoder: Decoder
    posterior: bool
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)
    count = 1


@dataclass(slots=True, eq=False)
class TensorTask(Task):
    """Words as the network takes them: [words, ``*spec.input_shape``]. Its result is the network's own."""

    rows: NDArray[Any]

    @property
    def count(self) -> int:
        """The number of words."""
        return len(self.rows)
