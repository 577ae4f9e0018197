"""Trained weights on other words: other characters, other widths, frozen convolutions, early and timed ends."""

from __future__ import annotations

import io
import json
import random
import re
import shlex
import string
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

import crnn
from crnn.charset import ALNUM36, Charset
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.engines import bundled_model, open_engine
from crnn.errors import DatasetError, ModelError, OptionError
from crnn.evaluation.evaluate import evaluate
from crnn.export.onnx import weights_from_onnx
from crnn.export.parity import export as export_gated
from crnn.export.parity import load_check_set
from crnn.spec import ModelSpec
from crnn.synthesis.corpus import Corpus
from crnn.training import folding, initial
from crnn.training import trainer as trainer_module
from crnn.training.adaptation import HEAD, CharsetChange, adapt
from crnn.training.checkpoints import BEST, load_state, load_weights, save_weights
from crnn.training.config import TrainConfig
from crnn.training.data import RealWords
from crnn.training.network import CRNN
from crnn.training.progress import Progress
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer
from crnn.training.validation import Validation

PRINTABLE = string.digits + string.ascii_letters + string.punctuation


def trainer(run: Path, words: Path, **changes: Any) -> Trainer:
    options = {name: changes.pop(name) for name in ("origin", "weights", "report") if name in changes}
    settings: dict[str, Any] = {"batch": 2, "workers": 0, "warm_up": 0, "precision": "no", "validate_every": 1000}
    config = TrainConfig(train=((str(words), 1.0),), **(settings | changes))
    stream, real, _ = open_sources(config)
    return Trainer(run, config, stream, real, **options)


@pytest.fixture(scope="module")
def bundled() -> tuple[dict[str, torch.Tensor], ModelSpec]:
    return weights_from_onnx(bundled_model())


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch normalisation is measured on so few words that it takes a second."""
    monkeypatch.setattr(initial, "MEASURED", 128)
    monkeypatch.setattr(folding, "MIN_IMAGES", 128)


# Characters


@pytest.mark.parametrize("seed", range(20))
def test_shared_characters_keep_their_scores(seed: int) -> None:
    dice = random.Random(seed)
    old, new = (Charset("".join(dice.sample(PRINTABLE, dice.randint(3, 60)))) for _ in range(2))
    weights = {f"{HEAD}.weight": torch.randn(old.classes, 8), f"{HEAD}.bias": torch.randn(old.classes)}
    adapted = adapt({**weights, "other": torch.ones(1)}, old, new, seed)
    assert adapted["other"] == 1 and len(adapted[f"{HEAD}.bias"]) == new.classes
    change = CharsetChange.between(old, new)
    assert sorted(change.kept + change.recased + change.new) == sorted(new.symbols)
    rows = [(0, 0)]  # the blank
    rows += [(new.encode(c)[0], old.encode(c)[0]) for c in change.kept]
    rows += [(new.encode(c)[0], old.encode(c.swapcase())[0]) for c in change.recased]
    for name, values in weights.items():
        assert all(torch.equal(adapted[name][to], values[source]) for to, source in rows)
    assert set(change.kept) == set(old.symbols) & set(new.symbols)
    assert set(change.dropped) == set(old.symbols) - set(change.kept) - {c.swapcase() for c in change.recased}
    again = adapt(weights, old, new, seed)  # new rows are a function of the seed
    assert torch.equal(again[f"{HEAD}.weight"], adapted[f"{HEAD}.weight"])


def test_what_becomes_of_the_characters_is_said() -> None:
    assert str(CharsetChange.between(ALNUM36, Charset("01AaÅ-"))) == (
        "3 kept (01a), 1 from the other case (A), 2 new (Å-), 33 dropped (23456789bcdefghijklmnopqrstuvwxyz)"
    )


@pytest.mark.parametrize(("charset", "kept"), [(PRINTABLE, "Open-1"), (ALNUM36.symbols, "open1")])
def test_labels_are_as_the_charset_means_them(charset: str, kept: str, tmp_path: Path) -> None:
    path = tmp_path / "lmdb"
    png = io.BytesIO()
    Image.new("L", (60, 20), 200).save(png, "PNG")
    with LmdbWriter(path) as writer:
        for label in ("Open-1", "naïve") * 6:
            writer.add(png.getvalue(), label)
    spec = ModelSpec(charset=Charset(charset))
    words = RealWords(path, spec)
    indices = [*words.training.tolist(), *words.held_out.tolist()]
    assert {words.label(i) for i in indices} == {kept, *(["nave"] if kept == "open1" else [])}
    everything = RealWords(path, spec, validation=True)
    assert not len(everything.training) and len(everything.held_out) == len(indices)


def test_synthetic_words_are_written_in_the_charset() -> None:
    english = {"garden": 3.0, "house": 2.0, "Wien": 1.0}
    corpus, dice = Corpus(english, charset=Charset(string.ascii_uppercase + "-")), random.Random(3)
    labels = {corpus.label(corpus.sample(dice)) for _ in range(300)}
    assert {"GARDEN", "WIEN"} <= labels and set("".join(labels)) <= set(string.ascii_uppercase + "-")
    mixed = Corpus(english, charset=Charset(PRINTABLE))
    labels = {mixed.label(mixed.sample(dice)) for _ in range(300)}
    assert {"garden", "Garden", "GARDEN"} <= labels and "" not in labels
    with pytest.raises(DatasetError, match="--words"):
        Corpus(english, charset=Charset("αβγ"))


# The course of a run


def test_frozen_convolutions_stay_to_the_bit(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, steps=3, freeze=2)
    states = [{name: tensor.clone() for name, tensor in run._state_dict().items()}]
    run.report = lambda now: states.append({name: tensor.clone() for name, tensor in run._state_dict().items()})
    run.train()
    for before, after, frozen in zip(states, states[1:], (True, True, False), strict=False):
        cnn = [torch.equal(before[name], after[name]) for name in before if name.startswith("cnn.")]
        assert all(cnn) if frozen else not any(cnn)
        assert not any(torch.equal(before[name], after[name]) for name in before if name.startswith("rnn."))


def test_a_run_ends_where_nothing_more_is_gained(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([(0.1, 0.5), (0.4, 0.6), (0.4, 0.7), (0.3, 0.9), (0.4, 0.7), (0.9, 0.9)])
    averages = []

    def validate(self: Trainer) -> Validation:
        averages.append(self.average["rnn.1.embedding.bias"].clone())
        return Validation((("all", *next(scores)),))

    monkeypatch.setattr(Trainer, "validate", validate)
    options: dict[str, Any] = {"validate_every": 1, "steps": 9}
    end = trainer(tmp_path / "run", words, stop_after=2, **options).train()
    assert end.step == 5
    best, _ = load_weights(tmp_path / "run" / BEST)
    assert torch.equal(best["rnn.1.embedding.bias"], averages[2])
    again = trainer(tmp_path / "run", words, stop_after=2, **options)
    assert again.train().step == 5 and (again.best.step, again.best.since) == (3, 2)
    more = trainer(tmp_path / "run", words, stop_after=3, **(options | {"steps": 6}))
    assert more.train().step == 6 and more.best.step == 6
    best, _ = load_weights(tmp_path / "run" / BEST)
    assert torch.equal(best["rnn.1.embedding.bias"], averages[5])


def test_minutes_are_those_of_the_run_and_the_rate_falls_with_them(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    rates: list[tuple[float, float]] = []
    runs: list[Trainer] = []

    def note(now: Progress) -> None:
        rates.append((now.elapsed, now.rate))
        if len(runs) == 1 and now.elapsed > 30:
            runs[0].stop()

    options: dict[str, Any] = {"minutes": 1.0, "rate": 1e-3, "report": note}
    runs.append(first := trainer(tmp_path / "run", words, **options))
    assert 30 < first.train().elapsed < 60
    assert load_state(tmp_path / "run")["seconds"] == pytest.approx(rates[-1][0])
    split = len(rates)
    runs.append(second := trainer(tmp_path / "run", words, **options))
    end = second.train()
    assert end.elapsed >= 60 and len(rates) > split > 2
    elapsed = [0.0] + [seconds for seconds, _ in rates]
    assert elapsed == sorted(elapsed) and elapsed[split + 1] - elapsed[split] < 20  # goes on from where it was
    for before, (_, rate) in zip(elapsed, rates, strict=False):
        assert rate == pytest.approx(1e-3 * (1 - before / 60))


def test_ends_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(OptionError, match="give one of them"):
        TrainConfig(train=(("a", 1.0),), decay=10, minutes=5)
    with pytest.raises(OptionError, match="words to validate on"):
        TrainConfig(fonts=("a",), stop_after=3)
    with pytest.raises(ModelError, match="more than once"):
        TrainConfig(train=(("a", 1.0),), charset="aa")


@pytest.mark.usefixtures("few_pictures")
def test_bundled_weights_begin_a_run_on_other_characters(words: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--train", str(words), "--workers", "0", "--precision", "no", "--batch", "2", "--init", "bundled"]
    options += ["--validate", str(words), "--charset", ALNUM36.symbols + "-"]
    first = CliRunner().invoke(app, ["train", str(run), *options, "--steps", "1", "--width", "120"])
    assert first.exit_code == 0, first.output
    assert "36 kept" in first.output and "1 new (-), 0 dropped" in first.output
    assert "40 words to validate on" in first.output
    _, spec = load_weights(run)
    assert (spec.charset.symbols, spec.width, spec.steps) == (ALNUM36.symbols + "-", 120, 31)
    assert len(spec.lineage) > 1 and spec.licence == open_engine().spec.licence
    on = CliRunner().invoke(app, ["train", str(run), *options, "--steps", "2"])
    assert on.exit_code == 0 and "goes on from its own state" in on.output and "step 2, 4 samples" in on.output
    other = CliRunner().invoke(app, ["train", str(run), "--charset", "abc"])
    assert other.exit_code == 2 and "--charset" in other.stderr
    branch = CliRunner().invoke(app, ["train", str(tmp_path / "b"), "--from", str(run), "--charset", "abc"])
    assert branch.exit_code == 2 and "--init" in branch.stderr
    for name in ("state.pt", "weights.safetensors"):
        (run / name).rename(tmp_path / name)
    lost = CliRunner().invoke(app, ["train", str(run)])
    assert lost.exit_code == 2 and "give the whole command again, with --init or --from" in lost.stderr
    (tmp_path / "weights.safetensors").rename(run / "weights.safetensors")
    heir = ["train", str(tmp_path / "heir"), "--train", str(words), "--workers", "0", "--precision", "no"]
    heir += ["--init", str(run), "--batch", "2", "--steps", "1"]
    assert CliRunner().invoke(app, heir).exit_code == 0
    assert load_weights(tmp_path / "heir")[1].charset == spec.charset  # without --charset, that of the weights


def test_pictures_stay_prepared_as_the_weights_know_them(words: Path, tmp_path: Path) -> None:
    spec = ModelSpec(mean=0.588, std=0.193, resampling="bilinear")
    save_weights(tmp_path / "own.safetensors", CRNN().state_dict(), spec)
    run = ["train", str(tmp_path / "run"), "--init", str(tmp_path / "own.safetensors"), "--train", str(words)]
    done = CliRunner().invoke(app, [*run, "--workers", "0", "--precision", "no", "--batch", "2", "--steps", "1"])
    assert done.exit_code == 0, done.output
    kept = load_weights(tmp_path / "run")[1]
    assert (kept.mean, kept.std, kept.resampling) == (0.588, 0.193, "bilinear")


def test_lstms_of_another_width_are_refused_in_one_line(words: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "wide.safetensors", CRNN(hidden=320).state_dict(), ModelSpec())
    run = ["train", str(tmp_path / "run"), "--init", str(tmp_path / "wide.safetensors"), "--train", str(words)]
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 2 and "its LSTMs have 320 units, and training is of 256" in done.stderr


# Other widths


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clear words with capitals."""
    path = tmp_path_factory.mktemp("signs") / "lmdb"
    font = ImageFont.load_default(24)
    with LmdbWriter(path) as writer:
        for text in ("Museum", "HOTEL", "Coffee", "street", "Garden", "BAKERY", "Station", "exit", "Open", "Taxi") * 2:
            picture = Image.new("L", (round(font.getlength(text)) + 12, 36), 230)
            ImageDraw.Draw(picture).text((6, 3), text, fill=20, font=font)
            data = io.BytesIO()
            picture.save(data, "PNG")
            writer.add(data.getvalue(), text)
    return path


@pytest.mark.parametrize("width", [160, 200])
def test_another_width_goes_all_the_way(
    width: int, bundled: tuple[dict[str, torch.Tensor], ModelSpec], signs: Path, tmp_path: Path
) -> None:
    """Export, every engine, evaluation and the places of characters, with weights of width 100 and other characters."""
    weights, spec = bundled
    charset = Charset(string.ascii_letters + "-")
    steps = width // 4 + 1
    wide = ModelSpec(charset=charset, width=width, steps=steps)
    adapted = adapt(weights, spec.charset, charset, 0)
    path = tmp_path / "wide.onnx"
    report = export_gated(adapted, wide, path, load_check_set(signs, wide))
    assert report.read == report.words == 20
    save_weights(tmp_path / "wide.safetensors", adapted, wide)
    texts: dict[str, list[str]] = {}
    for name in ("onnxruntime", "openvino", "torch"):
        engine = open_engine(path if name != "torch" else tmp_path / "wide.safetensors", name, precision="float32")
        assert engine.spec.steps == steps
        result = evaluate([signs], engine)
        assert result["protocol"] == "raw"
        texts[name] = [word["text"] for word in result["datasets"][0]["words"]]
        assert evaluate([signs], engine, protocol="alnum36")["overall"]["accuracy"] >= 0.5
    assert texts["onnxruntime"] == texts["openvino"] == texts["torch"]
    reader = crnn.Reader(path)
    picture = LmdbReader(signs).image(0)
    word = reader.read(picture)
    assert word.text and word.text == texts["onnxruntime"][0]
    edges = [edge for character in word.characters for edge in character.span]
    assert edges[0] >= 0 and 0.6 * picture.width < edges[-1] <= picture.width
    assert edges[::2] == sorted(edges[::2])


def test_labels_that_only_a_wider_network_has_steps_for(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("L", (300, 20), 200).save(png, "PNG")
    with LmdbWriter(tmp_path / "lmdb") as writer:
        for _ in range(3):
            writer.add(png.getvalue(), "abcdefghij" * 3)
    with pytest.raises(DatasetError, match="needs 30 time steps, the network has 26"):
        RealWords(tmp_path / "lmdb", ModelSpec())
    config = TrainConfig(train=((str(tmp_path / "lmdb"), 1.0),), width=160)
    assert len(RealWords(tmp_path / "lmdb", config.spec).training) == 2


# The page


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
SMALL = {
    "--count 1500": "--count 200 --digits 2",
    "--count 500": "--count 60 --digits 2",
    "--minutes 15": "--steps 60 --batch 16 --freeze 60 --rate 2e-3 --warm-up 10 --average 0.9 --workers 0",
}


@pytest.mark.usefixtures("few_pictures")
def test_the_page_from_pictures_to_a_better_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/fine-tuning.md, in one folder, at small size: short readings, few words, few steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
    for full, small in SMALL.items():
        assert full in blocks
        blocks = blocks.replace(full, small)
    accuracies = []
    for command in map(shlex.split, blocks.splitlines()):
        if command[0] == "python":
            subprocess.run([sys.executable, *command[1:]], check=True)
            continue
        report = ["--json", "result.json"] if command[1] == "evaluate" else []
        result = CliRunner().invoke(app, [*command[1:], *report])
        assert result.exit_code == 0, (command, result.output)
        if report:
            found = json.loads(Path("result.json").read_text(encoding="utf-8"))
            assert found["protocol"] == "raw"
            accuracies.append(found["overall"]["accuracy"])
    before, after = accuracies
    assert before < 0.4 and after > before + 0.4, accuracies
    assert result.stdout.strip()  # what `crnn read` read


def test_what_the_page_says_of_characters() -> None:
    charsets = re.findall(r"^```text\n(0123456789abc.*)\n```$", PAGE, flags=re.MULTILINE)
    assert [sorted(Charset(each).symbols) for each in charsets] == [sorted(PRINTABLE)]
    change = CharsetChange.between(ALNUM36, Charset("0123456789.-"))
    assert f"{bundled_model().name}: {change}\n" in PAGE
