"""The learning rate at each step of a run, and the step after which it ends."""

from __future__ import annotations

from crnn.training.config import TrainConfig
from crnn.training.stopping import Best


def learning_rate(config: TrainConfig, step: int, first_step: int, seconds: float) -> float:
    """The rate of the update after ``step``, in a run that began at ``first_step`` and has trained for ``seconds``.

    Warm-up, which a run that is branched off does without, then constant; with ``decay`` or ``minutes`` both times a
    straight line to nothing, over so many steps or minutes. Of ``decay`` steps a tenth at most are warm-up.
    """
    done = step - first_step
    warm_up = config.warm_up if first_step == 0 else 0
    if config.decay:
        warm_up = min(warm_up, config.decay // 10)
    rate = config.rate * min(1.0, (done + 1) / (warm_up + 1))
    if config.decay:
        rate *= max(0.0, 1 - done / config.decay)
    if config.minutes:
        rate *= max(0.0, 1 - seconds / (60 * config.minutes))
    return rate


def finished(config: TrainConfig, step: int, first_step: int, seconds: float, best: Best) -> bool:
    """Whether the run ends after ``step``: by ``decay``, ``minutes``, ``stop_after`` or ``steps``."""
    if config.decay and step - first_step >= config.decay:
        return True
    if config.minutes and seconds >= 60 * config.minutes:
        return True
    if config.stop_after and best.since >= config.stop_after:
        return True
    return bool(config.steps) and step >= config.steps
