"""The calls of the network: how many run at once, in which lane, and whether they come back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import BoundedSemaphore, get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.engines.lanes import Lanes

_log = logging.getLogger("crnn.serve")


class Calls:
    """Turns at the network, each for one batch. Any thread may take one, and has to run something in it."""

    def __init__(self, lanes: Lanes) -> None:
        self.count = lanes.calls
        """How many run at once."""
        self.failing = False
        """Whether the last one failed."""
        self._lanes = lanes
        self._turns = BoundedSemaphore(self.count)
        self._running: dict[int, float] = {}  # when those that are under way began, by thread

    def open(self) -> None:
        """Open what crowds need, which otherwise the first of them waits for."""
        self._lanes.stream()

    def take_turn(self, wait: bool) -> bool:
        """Whether there was a turn to be had; if ``wait``, once there is."""
        return self._turns.acquire(blocking=wait)

    def run(self, words: int, batch: Callable[[], NDArray[Any]], alone: bool) -> NDArray[np.float32]:
        """One call on what ``batch`` makes, in a turn that was taken; it is given back, whatever fails.

        Input and output are those of :meth:`crnn.engines.Engine.run`, for so many words. A batch that is ``alone``,
        with no other in sight, gets all threads for its one call. Raises what making it or the engine raises.
        """
        self._running[get_ident()] = time.monotonic()
        try:
            lane = self._lanes.single if alone and len(self._running) == 1 else self._lanes.stream()
            logp = lane.run(batch())
            self.failing = False
        except Exception:
            if not self.failing:  # said once, until it works again
                _log.exception("crnn: a batch of %d words failed", words)
            self.failing = True
            raise
        finally:
            del self._running[get_ident()]
            self._turns.release()
        return logp

    def longest(self) -> float:
        """Seconds since the oldest call that is under way began; 0 if none is."""
        now = time.monotonic()
        return now - min(list(self._running.values()), default=now)  # a copy: threads change it
