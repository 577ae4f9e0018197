"""Words are drawn by the loss of finished weights, and the mean of what is learnt from them stays that of all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.training.begin import stopped_is_as_whole, trainer
from torch.nn import functional as F
from typer.testing import CliRunner

from crnn.charset import Charset
from crnn.cli import app
from crnn.datasets.lmdb import LmdbWriter
from crnn.engines import bundled_model, open_engine
from crnn.errors import CheckpointError, DatasetError, OptionError
from crnn.images import normalise
from crnn.spec import ModelSpec
from crnn.training import importance as module
from crnn.training.checkpoints import load_state
from crnn.training.data import RealWords, SampleStream, batches
from crnn.training.importance import LEAST, SURE, Importance, Sample, chances


@pytest.fixture(scope="module")
def bundled() -> Importance:
    return Importance(bundled_model(), ModelSpec())


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in which no one can read what the labels say."""
    path = tmp_path_factory.mktemp("noise") / "lmdb"
    dice = np.random.default_rng(0)
    with LmdbWriter(path) as writer:
        for i in range(40):
            data = io.BytesIO()
            Image.fromarray(dice.integers(0, 256, (32, 100), np.uint8)).save(data, "PNG")
            writer.add(data.getvalue(), f"noise{i}")
    return path


def test_chances() -> None:
    found = chances(np.array([-1e-9, 0, SURE / 4, SURE, 30, np.inf]))
    assert found.tolist() == [LEAST, LEAST, 0.5, 1, 1, 1]
    assert (np.diff(chances(np.linspace(0, 1, 100))) >= 0).all()


def test_the_loss_is_torchs(words: Path, noise: Path) -> None:
    spec = ModelSpec()
    chosen = Importance(bundled_model(), spec)
    engine = chosen._engine = open_engine(bundled_model(), "onnxruntime")
    stream = SampleStream([(RealWords(words, spec), 1.0), (RealWords(noise, spec), 1.0)], spec, 0)
    samples = [stream.sample(i) for i in range(20)]
    logp = engine.run(normalise(np.stack([image for image, _ in samples]), spec))
    codes = [spec.charset.encode(label) for _, label in samples]
    lengths = torch.tensor([len(word) for word in codes])
    targets = torch.tensor([code for word in codes for code in word])
    wanted = F.ctc_loss(torch.from_numpy(logp), targets, torch.full((20,), 26), lengths, reduction="none") / lengths
    assert wanted.min() < 0.1 and wanted.max() > 1
    assert np.allclose(chosen.losses(samples), wanted.numpy(), rtol=1e-4, atol=1e-5)


class Known(Importance):
    """Words called hard are, and others are not."""

    def losses(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return np.array([1.0 if label.startswith("hard") else 0.0 for _, label in samples])


def sample(i: int) -> Sample:
    """A tenth is hard."""
    return np.zeros((1, 1), np.uint8), ("hard" if Random(i).random() < 0.1 else "easy") + str(i)


def test_the_weighted_mean_is_that_of_all_candidates() -> None:
    """The value of the hard ones is 10 instead of 1, so the mean of all is 1.9."""
    chosen = Known(bundled_model(), ModelSpec())
    values: list[float] = []
    candidates = hard = 0
    for first in range(0, 6400, 64):
        drawn = chosen.draw(range(first, first + 64), sample, 3)
        labels = [label for _, label in drawn.samples]
        values += [float(w) * (10 if label[0] == "h" else 1) for w, label in zip(drawn.weights, labels, strict=True)]
        hard += sum(label[0] == "h" for label in labels)
        candidates += drawn.candidates
    assert drawn.weights.dtype == np.float32
    assert np.mean(values) == pytest.approx(1.9, abs=0.06)  # without weights it would be 6.2
    chance = 0.1 + 0.9 * LEAST
    assert candidates / 6400 == pytest.approx(1 / chance, rel=0.03)
    assert hard / 6400 == pytest.approx(0.1 / chance, abs=0.02)


def test_a_small_batch_is_weighed_without_bias() -> None:
    chosen = Known(bundled_model(), ModelSpec())
    weights = [chosen.draw(range(first, first + 2), sample, 3).weights for first in range(0, 8000, 2)]
    assert np.mean(weights) == pytest.approx(1, abs=0.05)


def test_a_sample_depends_on_its_number_alone() -> None:
    chosen = Known(bundled_model(), ModelSpec())
    whole = chosen.draw(range(1000, 1060), sample, 5)
    parts = [chosen.draw(range(first, first + 3), sample, 5) for first in range(1000, 1060, 3)]
    assert [label for part in parts for _, label in part.samples] == [label for _, label in whole.samples]
    assert sum(part.candidates for part in parts) == whole.candidates > 60


def test_hard_words_come_more_often_and_weigh_less(bundled: Importance, words: Path, noise: Path) -> None:
    spec = ModelSpec()
    stream = SampleStream([(RealWords(words, spec), 1.0), (RealWords(noise, spec), 1.0)], spec, 0, bundled)
    drawn = stream.draw(range(200))
    hard = np.array([label.startswith("noise") for _, label in drawn.samples])
    assert hard.mean() > 0.6
    assert drawn.weights[hard].mean() < 0.8 < drawn.weights[~hard].mean()
    assert drawn.weights[hard].sum() / drawn.weights.sum() == pytest.approx(0.5, abs=0.12)


def test_other_processes_draw_the_same(bundled: Importance, words: Path) -> None:
    spec = ModelSpec()
    stream = SampleStream([(RealWords(words, spec), 1.0)], spec, 0, bundled)
    here, there = (next(batches(stream, 8, 4, workers=workers)) for workers in (0, 1))
    for name in ("images", "targets", "lengths", "ids", "weights"):
        assert getattr(here, name).equal(getattr(there, name)), name
    assert here.candidates == there.candidates > 4


def test_a_stopped_run_goes_on_bit_for_bit(words: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"importance": "bundled", "guide": 0.5, "steps": 4}
    whole = trainer(tmp_path / "whole", words, **options).train()
    assert whole.images == 16 < whole.candidates
    stopped_is_as_whole(tmp_path / "whole", tmp_path / "parts", words, **options)


def test_a_run_goes_on_with_the_weights_that_chose_before(words: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "run", words, importance="bundled", steps=1).train()
    again = trainer(tmp_path / "run", words, importance="bundled", steps=2)
    assert again.stream.importance is not None
    again.stream.importance.name = "other weights"
    with pytest.raises(CheckpointError, match="importance by other weights: 0, now 1"):
        again._check_sources(load_state(tmp_path / "run")["sources"])


def test_the_weights_must_be_of_the_same_spec() -> None:
    with pytest.raises(OptionError, match="its charset is not that of the network to be trained"):
        Importance(bundled_model(), ModelSpec(charset=Charset("0123456789")))
    with pytest.raises(OptionError, match="its width is not that"):
        Importance(bundled_model(), ModelSpec(width=120, steps=31))
    with pytest.raises(OptionError, match=r"weights.safetensors: words are chosen by the loss of an \.onnx"):
        Importance(Path("weights.safetensors"), ModelSpec())


def test_weights_that_keep_nothing(bundled: Importance, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec()
    stream = SampleStream([(RealWords(words, spec), 1.0)], spec, 0, bundled)
    monkeypatch.setattr(module, "ROUNDS", 3)
    monkeypatch.setattr(module, "chances", lambda losses: np.zeros(len(losses)))
    with pytest.raises(DatasetError, match="of 3 words in a row none was kept"):
        next(batches(stream, 0, 2, workers=0))


def test_the_command(words: Path, tmp_path: Path) -> None:
    command = ["train", str(tmp_path / "run"), "--train", str(words), "--batch", "2", "--steps", "2", "--workers", "0"]
    command += ["--precision", "no"]
    wrong = CliRunner().invoke(app, [*command, "--importance", str(tmp_path / "none.onnx")])
    assert wrong.exit_code == 2 and "none.onnx: no such model" in str(wrong.exception) + wrong.output
    done = CliRunner().invoke(app, [*command, "--importance", "bundled"])
    assert done.exit_code == 0, done.output
    assert "4 in this go of " in done.output and " drawn at " in done.output
    without = CliRunner().invoke(
        app, ["train", str(tmp_path / "new"), "--from", *command[1:], "--steps", "3", "--importance", "none"]
    )
    assert without.exit_code == 0 and "2 in this go at " in without.output, without.output
