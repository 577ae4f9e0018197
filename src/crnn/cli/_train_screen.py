"""What ``crnn train`` says as it goes."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.training.progress import Progress
    from crnn.training.trainer import Trainer


_FEW, _NEARLY_ALL = 0.02, 0.99  # shares of words that nothing is read in
_BLANK_VALIDATIONS = 3
_NOTHING_READ = (
    "nothing but blanks is read so far. A new network does so for its first tens of thousands of pictures; if the loss "
    "has stopped falling, look at the labels and their characters (crnn data check SET --charset ...), at the rate "
    "(--find-rate), and whether 32 words alone can be learnt"
)


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True)


class Screen:
    """Progress: a live line on a terminal; elsewhere a plain line now and then, which a log file can keep."""

    def __init__(self, out: Console, err: Console, trainer: Trainer) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._out, self._live = out, err.is_terminal
        config = trainer.config
        self._ends = trainer.first_step + config.decay if config.decay else config.steps
        self._minutes = config.minutes
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=err,
            disable=not self._live,
            redirect_stdout=out.is_terminal,  # lines go above the bar; into a file they go as they are
        )
        self._task = self._bar.add_task("", total=None)
        self._loss = 0.0
        self._blank = 0  # validations in a row that read nothing

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, now: Progress) -> None:
        """Shows a step. A validation is printed as a line of its own, wherever."""
        if isfinite(now.loss):  # a step that is left out does not count here either
            self._loss = now.loss if not self._loss else 0.98 * self._loss + 0.02 * now.loss
        text = f"loss {self._loss:.3f}  {now.speed:.0f} images/s  rate {now.rate:.1e}"
        done, total = (now.elapsed, 60 * self._minutes) if self._minutes else (now.step, self._ends)
        self._bar.update(self._task, completed=done, total=total or None, description=f"step {now.step}  {text}")
        if now.validation and now.validation.sets:
            sets = "  ".join(f"{name} {accuracy:.1%} ({ned:.3f})" for name, accuracy, ned in now.validation.sets)
            found = now.validation
            much = f"  empty {found.empty:.1%}" if found.empty > _FEW else ""
            if much:
                much += f", {found.written:.1f} of {found.labelled:.1f} characters read"
            say(self._out, f"step {now.step}: {text}  accuracy (1-NED): {sets}{much}")
            self._blank = self._blank + 1 if found.empty > _NEARLY_ALL else 0
            if self._blank == _BLANK_VALIDATIONS:
                say(self._out, _NOTHING_READ)
        elif not self._live and now.step % 100 == 0:
            waiting = now.waited / max(now.seconds, 1e-9)
            say(self._out, f"step {now.step}: {text}  waiting {waiting:.1%}")
