"""A learning rate, found by trying: the range test.

From "Cyclical Learning Rates for Training Neural Networks" (Smith 2017): training begins with a rate too small to do
anything, which grows from update to update until the loss rises. Rates grow by a constant factor here, not by a
constant amount, as what matters about them is their order of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LOW, HIGH = 1e-6, 1e-1
STEPS = 120
_WIDTH = 4.0  # steps, standard deviation of the bell curve that losses are smoothed with
_RISEN = 2.0  # times the lowest loss (and 0.5 more): no larger rate is tried then
_FALL = 0.05  # the share of the loss that has to go, or no rate was of any use
_BELOW = 10.0  # the suggestion is so many times smaller than the rate at which the loss was lowest
_ROWS, _BAR = 20, 50


@dataclass(frozen=True)
class Finding:
    """What a range test saw: the loss at each rate, as measured and smoothed.

    ``lowest``: the rate at which the smoothed loss was lowest; beyond it training becomes unstable. ``suggestion``: the
    rate to train with, or None if the loss never fell.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    suggestion: float | None

    def lines(self) -> Iterator[str]:
        """The curve as text, at about twenty of the rates."""
        if not self.rates:
            return
        top = max(self.smoothed)
        for k in np.unique(np.linspace(0, len(self.rates) - 1, _ROWS).round().astype(int)).tolist():
            bar = "#" * max(1, round(_BAR * self.smoothed[k] / top))
            yield f"{self.rates[k]:8.1e}  {self.smoothed[k]:7.3f}  {bar}"


def find_rate(
    losses: Callable[[Iterable[float]], Iterable[float]],
    low: float = LOW,
    high: float = HIGH,
    steps: int = STEPS,
    report: Callable[[int, float, float], None] = lambda step, rate, loss: None,
) -> Finding:
    """Try rates from ``low`` to ``high``, ``steps`` of them.

    ``losses`` makes an update at each rate it is given, and gives the loss before it
    (:meth:`crnn.training.trainer.Trainer.losses`). The test ends early where the loss has risen far above its lowest
    value or is not finite. ``report`` is called with the number of rates tried, the last one and its loss.
    """
    rates = np.geomspace(low, high, steps).tolist()
    seen: list[float] = []
    running = best = math.inf
    for loss in losses(rates):
        if not math.isfinite(loss):
            break
        seen.append(loss)
        report(len(seen), rates[len(seen) - 1], loss)
        running = loss if len(seen) == 1 else 0.8 * running + 0.2 * loss
        best = min(best, running)
        if running > _RISEN * best + 0.5:
            break
    return judge(rates[: len(seen)], seen)


def judge(rates: Sequence[float], losses: Sequence[float]) -> Finding:
    """The finding from rates, each a constant factor above the one before, and the loss at each."""
    smooth = _smoothed(np.asarray(losses, np.float64))
    k = int(smooth.argmin()) if len(smooth) else 0
    fell = len(smooth) > 0 and smooth[k] < (1 - _FALL) * smooth[: k + 1].max()
    return Finding(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smooth.tolist()),
        lowest=rates[k] if rates else math.nan,
        suggestion=float(f"{rates[k] / _BELOW:.2g}") if fell else None,
    )


def _smoothed(losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Each loss averaged with its neighbours; near the ends with those there are."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places[None, :]) / _WIDTH) ** 2)
    smooth: np.ndarray[tuple[int], np.dtype[np.float64]] = weights @ losses / weights.sum(axis=1)
    return smooth
