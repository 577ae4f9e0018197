"""The learning-rate range test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from crnn.cli import app
from crnn.training import finder
from crnn.training.finder import find_rate

Losses = Callable[[Iterable[float]], Iterator[float]]


def descent(curvatures: Iterable[float], noise: float, seed: int) -> Losses:
    """Gradient descent on a quadratic bowl, whose largest stable rate is known: 2 / the largest curvature."""
    dice = np.random.default_rng(seed)
    steep = np.array(list(curvatures))

    def losses(rates: Iterable[float]) -> Iterator[float]:
        place = np.ones_like(steep)
        for rate in rates:
            yield float(0.5 * (steep * place**2).sum() * (1 + noise * dice.standard_normal()))
            place = place - rate * steep * place

    return losses


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("steepest", [1e3, 1e4, 1e5])
def test_the_rate_is_one_at_which_training_is_stable_and_quick(steepest: float, seed: int) -> None:
    curvatures = np.geomspace(steepest / 30, steepest, 12)
    found = find_rate(descent(curvatures, 0.1, seed))
    assert found.suggestion is not None
    assert found.suggestion < 2 / steepest
    assert found.suggestion > 0.02 / steepest
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < finder.STEPS  # it ended as the loss rose


def test_no_rate_is_suggested_where_the_loss_never_falls() -> None:
    dice = np.random.default_rng(0)
    found = find_rate(lambda rates: (3 + 0.05 * dice.standard_normal() for _ in rates))
    assert found.suggestion is None


def test_a_loss_that_is_not_finite_ends_the_test() -> None:
    found = find_rate(lambda rates: (1 / (1 + 1e3 * rate) if rate < 1e-2 else math.nan for rate in rates))
    assert max(found.rates) < 1e-2 and all(map(math.isfinite, found.smoothed))
    assert found.suggestion is not None and len(list(found.lines())) == 20
    nothing = find_rate(lambda rates: (math.nan for _ in rates))
    assert nothing.suggestion is None and not list(nothing.lines())


def test_the_command_leaves_the_run_as_it_was(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "STEPS", 5)
    run = tmp_path / "run"
    options = ["--train", str(words), "--batch", "2", "--workers", "0", "--precision", "no", "--steps", "1"]
    looked = CliRunner().invoke(app, ["train", str(run), *options, "--find-rate"])
    assert looked.exit_code in (0, 1), looked.output  # five updates of an untrained network may not lower the loss
    assert not run.exists()
    assert CliRunner().invoke(app, ["train", str(run), *options]).exit_code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = CliRunner().invoke(
        app, ["train", str(run), *options, "--find-rate", "--json", str(tmp_path / "rates.json")]
    )
    assert again.exit_code in (0, 1), again.output
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    curve = json.loads((tmp_path / "rates.json").read_text(encoding="utf-8"))
    assert curve["rates"][0] == pytest.approx(1e-6) and len(curve["losses"]) == len(curve["rates"]) <= 5
    assert f"{curve['rates'][0]:.1e}" in again.output
