"""A network that costs nothing: it reads numbers drawn as bars, so that every picture can be told from the others."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crnn.engines import bundled_model
from crnn.spec import DELIVERABLE

DIGITS = 6
STEP = 7  # gray levels from one class to the next
COLUMNS = np.array([*range(0, 100, 4), 99])  # where time step t looks


def numbered(number: int) -> bytes:
    """A PNG that shows a number of six digits to the network below."""
    picture = np.zeros((32, 100), np.uint8)
    for i, index in enumerate(DELIVERABLE.charset.encode(f"{number:0{DIGITS}}")):
        picture[:, 8 * i : 8 * i + 4] = index * STEP
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Light:
    """Reads :func:`numbered`; appends a byte a word to ``log``, and takes ``seconds`` a batch."""

    name, version, precision, device, threads = "light", "1", "float32", "CPU", 1
    spec = DELIVERABLE
    notes: tuple[str, ...] = ()

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.path = bundled_model()
        self._log, self._seconds = log, seconds

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self._seconds)
        if self._log is not None:
            with open(self._log, "ab") as file:
                file.write(b"." * len(batch))
        classes = np.rint((batch[:, 0, 16, COLUMNS] * 0.5 + 0.5) * 255 / STEP).astype(int)
        logp = np.full((26, len(batch), 37), -20.0, np.float32)
        words, steps = np.indices(classes.shape)
        logp[steps, words, classes] = 0
        return logp


class Uneven(Light):
    """One process, the first that reads, takes ``seconds`` a batch, all others nothing; see :meth:`read`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self._folder = folder

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        mine = self._folder / f"{os.getpid()}"
        try:
            (self._folder / "slow").symlink_to(mine)
        except FileExistsError:
            if os.readlink(self._folder / "slow") != str(mine):
                self._seconds = 0.0
        with mine.open("ab") as file:
            file.write(b"." * len(batch))
        return super().run(batch)

    @staticmethod
    def read(folder: Path) -> tuple[int, int]:
        """How many words the slow process has begun to read, and all others."""
        slow = os.readlink(folder / "slow")
        sizes = {str(file): file.stat().st_size for file in folder.iterdir() if not file.is_symlink()}
        return sizes.pop(slow), sum(sizes.values())


class Deadly(Light):
    """Ends its process, as a bug in a library of C does."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        os._exit(1)


def words_read(log: Path) -> int:
    """How many words the network has read."""
    return os.path.getsize(log) if log.exists() else 0
