"""How a model's calls share the processors: one call in several threads for one batch, several calls of few for many.

The layers of one batch share threads badly: they wait for each other many times a batch, and longer where other work
(decoding files) takes a processor from one of them. Calls that run beside each other don't wait: on two processors,
files came through int8 at 430 words/s in two calls of one thread, and at 310 in calls of two.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import quantization
from crnn.engines import Engine, open_engine
from crnn.engines.processors import usable_processors

_THREADS_FOR_ONE = 4
"""More threads than this don't share the small layers of one batch well."""

_MOST_CALLS = 8
"""Each call holds a batch with all that the layers make of it, some 50 to 150 MB for 64 words."""

_SHARE_PROCESSORS = frozenset(("onnxruntime", "openvino"))
"""Engines with threads of their own for each model that is opened. torch has one number for the process, and a device
has its own ways."""


class Lane:
    """An opened engine, and how many of its calls run at once; further ones wait."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self.engine = engine
        self.calls = max(1, threads // engine.threads)
        self._turns = BoundedSemaphore(self.calls)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`."""
        with self._turns:
            return self.engine.run(batch)


class Lanes:
    """A model opened for single batches, and for streams of them when the first one comes.

    ``threads`` is how many processors both may use; by default all that this process may, and torch's own number is
    left as it is. Raises what :func:`crnn.engines.open_engine` does.
    """

    def __init__(self, path: Path, name: str, threads: int | None, precision: str | None) -> None:
        self._threads = usable_processors() if threads is None else threads
        self._files = _files(path)
        if name in _SHARE_PROCESSORS:
            threads = min(self._threads, _THREADS_FOR_ONE)
        self.single = Lane(open_engine(path, name, threads, precision), self._threads)
        self._per_call = -(-self._threads // _MOST_CALLS)
        self._stream: Lane | None = None
        self._opening = Lock()
        if name not in _SHARE_PROCESSORS or self._per_call >= self.single.engine.threads:
            self._stream = self.single

    @classmethod
    def of(cls, engine: Engine, threads: int) -> Lanes:
        """The lanes of an engine that somebody else has opened: it is used as it is."""
        lanes = cls.__new__(cls)
        lanes.single = lanes._stream = Lane(engine, threads)
        return lanes

    @property
    def calls(self) -> int:
        """How many calls of a stream run at once."""
        return self._stream.calls if self._stream else self._threads // self._per_call

    def stream(self) -> Lane:
        """The lane for a stream of batches; opened the first time, from the same file and in the same precision.

        It is the one for single batches if the file is no longer what that was opened from: slower, but what it reads
        does not change with the number of pictures.
        """
        if self._stream is None:
            with self._opening:
                if self._stream is None:
                    self._stream = self._opened_again() or self.single
        return self._stream

    def _opened_again(self) -> Lane | None:
        single = self.single.engine
        if _files(single.path) != self._files:
            return None
        engine = open_engine(single.path, single.name, self._per_call, single.precision)
        return Lane(engine, self._threads) if _files(single.path) == self._files else None


def _files(model: Path) -> list[tuple[int, ...] | None]:
    """What lies at the places of a model and of its ranges for int8: another value once it is replaced."""
    found: list[tuple[int, ...] | None] = []
    for path in (model, quantization.place(model)):
        try:
            at = os.stat(path)
            found.append((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns))
        except (OSError, ValueError):  # ValueError: a NUL character
            found.append(None)
    return found
