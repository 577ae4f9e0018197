"""Where a run is, and what it writes down of its steps: a log, and TensorBoard's curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crnn.files import write_whole
from crnn.training.validation import Validation

LOG = "steps.jsonl"


@dataclass
class Progress:
    """Where a run is. Of this process's ``seconds``, ``waited`` were spent without data; ``elapsed`` are the run's.

    In this go and in all processes ``candidates`` words were drawn, of which ``images`` were trained on; ``unreadable``
    pictures could not be decoded when they were drawn.
    """

    step: int
    position: int
    loss: float
    rate: float
    skipped: int
    seconds: float
    waited: float
    images: int
    elapsed: float = 0.0
    validation: Validation | None = None
    candidates: int = 0
    unreadable: int = 0

    @property
    def speed(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0


def open_log(path: Path, step: int) -> IO[str]:
    """The step log, cut back to ``step``: what was written after the state was saved is run again.

    Raises OptionError if it cannot be written.
    """
    kept = []
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    if json.loads(line)["step"] > step:
                        break
                except ValueError:  # the line that was being written when the process died
                    break
                kept.append(line)
    write_whole(path, "".join(kept))
    return path.open("a", encoding="utf-8", buffering=1)  # a line a step, whatever ends the process


class TensorBoard:
    """TensorBoard's curves."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, progress: Progress, norm: float) -> None:
        """A point of each curve, every 20 steps; ``norm`` is that of the gradient. A validation is always written."""
        if progress.step % 20 == 0:
            self._writer.add_scalar("train/loss", progress.loss, progress.step)
            self._writer.add_scalar("train/gradient_norm", norm, progress.step)
            self._writer.add_scalar("train/rate", progress.rate, progress.step)
            self._writer.add_scalar("train/images_per_second", progress.speed, progress.step)
            self._writer.add_scalar("train/skipped_steps", progress.skipped, progress.step)
        if progress.validation:
            for name, accuracy, ned in progress.validation.sets:
                self._writer.add_scalar(f"validation/accuracy/{name}", accuracy, progress.step)
                self._writer.add_scalar(f"validation/1-NED/{name}", ned, progress.step)
            self._writer.add_scalar("validation/empty", progress.validation.empty, progress.step)
            self._writer.add_scalar("validation/characters_read", progress.validation.written, progress.step)

    def close(self) -> None:
        """Writes what is still in memory."""
        self._writer.close()
