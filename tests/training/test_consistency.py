"""Words in two views: the views, what their readings differ by, and what is learnt from it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.begin import stopped_is_as_whole, trainer
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from crnn.cli import app
from crnn.errors import OptionError
from crnn.spec import ModelSpec
from crnn.training.config import TrainConfig
from crnn.training.consistency import HIDDEN, NARROWEST, _moved, altered, apart
from crnn.training.data import RealWords, SampleStream, batches
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer, bounded, to_input


def grain() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(60, 190, (32, 100), np.uint8)


def test_views_differ_and_are_functions_of_the_dice() -> None:
    image = grain()
    before = image.copy()
    views = [altered(image, Random(i)) for i in range(40)]
    assert all(view.dtype == np.uint8 and view.shape == image.shape for view in views)
    assert np.array_equal(image, before)
    assert len({view.tobytes() for view in views}) > 35
    assert all(np.array_equal(view, altered(image, Random(i))) for i, view in enumerate(views))


def test_little_is_hidden() -> None:
    """Columns of one shade are hidden ones: none in many views, never more than three pieces."""
    hidden = [int((np.ptp(altered(grain(), Random(i)), axis=0) == 0).sum()) for i in range(300)]
    assert max(hidden) <= 3 * round(HIDDEN * 100)
    assert 0.2 < np.mean(np.array(hidden) == 0) < 0.7
    assert np.median([columns for columns in hidden if columns]) >= NARROWEST  # pieces may cover each other


@pytest.mark.parametrize("width", [16, 400])
def test_other_widths(width: int) -> None:
    image = np.zeros((32, width), np.uint8)
    assert all(altered(image, Random(i)).shape == (32, width) for i in range(50))


def test_letters_stay_in_their_columns() -> None:
    image = np.zeros((32, 100), np.float32)
    image[:, 40:43] = 255
    for i in range(200):
        row = _moved(image, Random(i))[15]
        assert abs((row * np.arange(100)).sum() / row.sum() - 41) < 1.2


def readings(seed: int, words: int) -> Tensor:
    logp: Tensor = torch.randn(26, words, 37, generator=torch.Generator().manual_seed(seed)).log_softmax(2)
    return logp


def test_apart_is_the_divergence_both_ways() -> None:
    one, other = readings(0, 3), readings(1, 3)
    found = apart(torch.cat([one, other], 1))
    p, q = one.exp().double(), other.exp().double()
    wanted = ((p * (p / q).log()).sum((0, 2)) + (q * (q / p).log()).sum((0, 2))) / 2
    assert found.shape == (3,) and torch.allclose(found.double(), wanted, rtol=1e-5)
    assert apart(torch.cat([one, one], 1)).abs().max() < 1e-5


def test_each_learns_from_the_other_as_it_is() -> None:
    logp = torch.cat([readings(0, 2), readings(1, 2)], 1).requires_grad_()
    apart(logp).sum().backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    assert torch.allclose(logp.grad, -logp.detach().exp().roll(2, 1) / 2)


def test_a_batch_holds_the_words_and_then_their_views(words: Path) -> None:
    spec = ModelSpec()
    sources: list[Any] = [(RealWords(words, spec), 1.0)]
    once = next(batches(SampleStream(sources, spec, 5), 8, 4, workers=0))
    twice = SampleStream(sources, spec, 5, twice=True)
    here, there = (next(batches(twice, 8, 4, workers=workers)) for workers in (0, 1))
    assert here.ids.equal(once.ids) and here.candidates == once.candidates == 4
    assert here.images[:4].equal(once.images) and len(here.images) == 8
    assert not any(one.equal(other) for one, other in zip(here.images[:4], here.images[4:], strict=True))
    for name in ("targets", "lengths", "weights"):
        assert getattr(here, name).equal(getattr(once, name).repeat(2)), name
    for name in ("images", "targets", "lengths", "ids", "weights"):
        assert getattr(here, name).equal(getattr(there, name)), name


def test_the_gradient_is_that_of_both_losses(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, consistency=0.3)
    batch = next(batches(run.stream, 0, 4, workers=0))
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    batch = replace(batch, weights=weights.repeat(2))
    network = copy.deepcopy(run.network).train()
    run.network.train()
    mean = run._gradients([batch])
    logp = network(to_input(batch.images, run.spec))
    each = F.ctc_loss(logp, batch.targets, torch.full((8,), 26), batch.lengths, reduction="none") / batch.lengths
    one, other = logp[:, :4], logp[:, 4:]
    between = F.kl_div(one, other.detach(), reduction="none", log_target=True).sum((0, 2)) / 2
    between = between + F.kl_div(other, one.detach(), reduction="none", log_target=True).sum((0, 2)) / 2
    loss = (weights.repeat(2) * bounded(each)).mean() + 0.3 * (weights * bounded(between / batch.lengths[:4])).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(mean) == pytest.approx(float((weights * each[:4].detach()).mean()), rel=1e-5)
    for ours, by_hand in zip(run.network.parameters(), network.parameters(), strict=True):
        assert ours.grad is not None and by_hand.grad is not None
        assert torch.allclose(ours.grad, by_hand.grad, rtol=1e-3, atol=1e-4 * float(by_hand.grad.abs().max()))


def test_a_stopped_run_goes_on_bit_for_bit(words: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"consistency": 0.2, "guide": 0.5, "steps": 4}
    whole = trainer(tmp_path / "whole", words, **options).train()
    assert whole.images == whole.position == 16  # words; each of them is seen twice
    stopped_is_as_whole(tmp_path / "whole", tmp_path / "parts", words, **options)


def test_words_that_are_chosen_keep_their_weights_in_both_views(words: Path) -> None:
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, importance="bundled", consistency=0.2)
    drawn = open_sources(config)[0].draw(range(6))
    assert drawn.samples[0][1] == drawn.samples[len(drawn.samples) // 2][1]
    one, other = np.split(np.asarray(drawn.weights), 2)
    assert np.array_equal(one, other) and len(set(one.tolist())) > 1
    labels = [label for _, label in drawn.samples]
    assert labels[: len(one)] == labels[len(one) :]


def test_the_command(words: Path, tmp_path: Path) -> None:
    command = ["train", str(tmp_path / "run"), "--train", str(words), "--batch", "2", "--steps", "1", "--workers", "0"]
    done = CliRunner().invoke(app, [*command, "--precision", "no", "--consistency", "0.2"])
    assert done.exit_code == 0, done.output
    assert TrainConfig.load(tmp_path / "run").consistency == 0.2


def test_the_stream_has_to_give_both_views(words: Path, tmp_path: Path) -> None:
    stream, real, _ = open_sources(TrainConfig(train=((str(words), 1.0),), synthetic=0))
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, precision="no", consistency=0.2)
    with pytest.raises(OptionError, match="gives each word twice"):
        Trainer(tmp_path / "run", config, stream, real)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(OptionError, match="consistency must not be negative"):
        TrainConfig(train=(("words", 1.0),), consistency=-0.1)
