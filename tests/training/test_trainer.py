from __future__ import annotations

import errno
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from typer.testing import CliRunner

from crnn.cli import app
from crnn.cli._options import place_and_share
from crnn.cli._train_config import begun_again, branched, new
from crnn.cli._train_screen import Screen
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.errors import CheckpointError, CrnnError, OptionError
from crnn.images import normalise
from crnn.spec import ModelSpec
from crnn.training import precision as precision_module
from crnn.training import trainer as trainer_module
from crnn.training.checkpoints import STATE, load_state, load_weights, save_weights
from crnn.training.config import TrainConfig
from crnn.training.data import RealWords
from crnn.training.network import CRNN
from crnn.training.precision import precision
from crnn.training.processes import start
from crnn.training.progress import LOG, Progress, open_log
from crnn.training.schedule import learning_rate
from crnn.training.sources import open_sources
from crnn.training.trainer import PATIENCE, Trainer, to_input
from crnn.training.validation import HeldOut, Validation, names, validate

QUICKEST = precision_module._quickest  # which the fixture for all tests replaces


def trainer(run: Path, words: Path, **changes: Any) -> Trainer:
    options = {name: changes.pop(name) for name in ("origin", "weights", "report") if name in changes}
    settings: dict[str, Any] = {"batch": 4, "workers": 0, "warm_up": 4, "precision": "no", "validate_every": 1000}
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, **(settings | changes))
    stream, real, _ = open_sources(config)
    return Trainer(run, config, stream, real, **options)


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]


def test_a_killed_run_goes_on_bit_for_bit(words: Path, tmp_path: Path) -> None:
    """SIGKILL at a random step between two saved states; losses and samples of all 32 steps as if nothing had been."""
    command = [sys.executable, "-m", "crnn", "train"]
    options = ["--train", str(words), "--synthetic", "0", "--batch", "2", "--workers", "2", "--warm-up", "10"]
    options += ["--steps", "32", "--save-every", "4", "--validate-every", "1000"]
    options += ["--precision", "no"]  # what auto means is measured once a run, and these are two

    def run(name: str) -> list[str]:
        return [*command, str(tmp_path / name), *options]

    subprocess.run(run("whole"), check=True, stdout=subprocess.DEVNULL)
    after = random.SystemRandom().randrange(3, 13)
    with subprocess.Popen(run("killed"), stdout=subprocess.DEVNULL, start_new_session=True) as process:
        state, lines, deadline = tmp_path / "killed" / "state.pt", tmp_path / "killed" / LOG, time.monotonic() + 240
        seen = 0
        while time.monotonic() < deadline and process.poll() is None:
            if state.exists():
                seen = seen or len(log(tmp_path / "killed"))
                if len(lines.read_text(encoding="utf-8").splitlines()) >= min(seen + after, 28):
                    break
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)  # nothing is saved; its workers notice, and end within seconds
    done, saved = len(log(tmp_path / "killed")), load_state(tmp_path / "killed")["step"]
    assert 0 < saved <= done < 32
    subprocess.run(run("killed"), check=True, stdout=subprocess.DEVNULL)
    whole, killed = log(tmp_path / "whole"), log(tmp_path / "killed")
    assert [entry["step"] for entry in whole] == list(range(1, 33))
    assert killed == whole  # floats compare as bits here: JSON keeps every digit of a float
    ours, theirs = load_state(tmp_path / "whole"), load_state(tmp_path / "killed")
    for part in ("network", "average"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part])


def test_the_first_step_is_adamw_on_the_ctc_loss(words: Path, tmp_path: Path) -> None:
    """One step of the trainer against the same step written out by hand in float32; see ``bounded`` for the loss."""
    run = trainer(tmp_path / "run", words, steps=1, rate=1e-3, warm_up=0, average=0.0)
    before = {name: tensor.clone() for name, tensor in run._state_dict().items()}
    network = CRNN()
    network.load_state_dict(before)
    network.train()
    samples = [run.stream.sample(i) for i in range(4)]
    images = torch.from_numpy(normalise(np.stack([image for image, _ in samples]), ModelSpec()))
    codes = [ModelSpec().charset.encode(label) for _, label in samples]
    logp = network(images)
    targets, lengths = [code for word in codes for code in word], [len(word) for word in codes]
    steps = torch.full((4,), 26)
    each = torch.nn.functional.ctc_loss(logp, torch.tensor(targets), steps, torch.tensor(lengths), reduction="none")
    each = each / torch.tensor(lengths)
    assert (each > 1).all()
    (1 + each.log()).mean().backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01).step()
    end = run.train()
    assert end.loss == pytest.approx(float(each.mean().detach()), rel=1e-5)
    after, compared = run._state_dict(), 0
    for name, parameter in network.named_parameters():
        # Adam's first step is the rate in the gradient's direction: where the gradient is clear, so is the step.
        clear = parameter.grad.abs() > 1e-4 if parameter.grad is not None else torch.zeros(())
        compared += int(clear.sum())
        assert torch.allclose(after[name][clear], parameter[clear], atol=1e-5), name
    assert compared > 10_000


def test_input_is_normalised_as_for_reading() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 100), np.uint8)
    ours = to_input(torch.from_numpy(images), ModelSpec())
    assert np.allclose(ours.numpy(), normalise(images, ModelSpec()), atol=1e-6)


def test_a_loss_that_is_not_finite_changes_nothing_and_ends_the_run(words: Path, tmp_path: Path) -> None:
    weights = CRNN().state_dict()
    weights["rnn.1.embedding.bias"] = torch.full((37,), float("nan"))
    run = trainer(tmp_path / "run", words, weights=weights, batch=2)
    before = {name: parameter.detach().clone() for name, parameter in run.network.named_parameters()}
    with pytest.raises(CrnnError, match=f"not finite for {PATIENCE} steps.*begin again.*--rate"):
        run.train()
    assert run.skipped == run.step == PATIENCE
    assert not (tmp_path / "run" / STATE).exists()
    for name, parameter in run.network.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num())


@pytest.mark.parametrize("where", ["images", "output"])  # before all batch normalisation, and behind it
def test_a_single_bad_step_is_skipped_and_counted(
    where: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", words, steps=3, batch=2)
    good = run.network.forward

    def once_bad(images: torch.Tensor) -> torch.Tensor:
        bad = float("inf") if run.step == 1 else 1.0
        logp: torch.Tensor = good(images * bad if where == "images" else images)
        return logp * bad if where == "output" else logp

    monkeypatch.setattr(run.network, "forward", once_bad)
    end = run.train()
    assert (end.step, end.skipped) == (3, 1)
    assert all(torch.isfinite(tensor).all() for tensor in run.average.values())


def test_a_step_that_is_bad_for_the_guide_alone_is_skipped(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", words, steps=3, batch=2, guide=1.0)
    assert run.guide is not None and run.guide.steps == 0  # it learns alone: no gradient of it reaches the network
    losses = run.guide.losses
    monkeypatch.setattr(run.guide, "losses", lambda *given: losses(*given) * (math.nan if run.step == 1 else 1.0))
    end = run.train()
    assert (end.step, end.skipped) == (3, 1)
    assert all(parameter.isfinite().all() for parameter in run.guide.parameters())


def test_a_run_that_diverges_leaves_the_state_before(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "PATIENCE", 2)
    run = trainer(tmp_path / "run", words, batch=2, save_every=0.0)
    good = run.network.forward
    monkeypatch.setattr(run.network, "forward", lambda images: good(images * (1.0 if run.step < 2 else float("nan"))))
    with pytest.raises(CrnnError, match=f"step 4.*crnn train NEW --from {tmp_path / 'run'}"):
        run.train()
    state = load_state(tmp_path / "run")
    assert (state["step"], state["skipped"]) == (2, 0)
    assert all(torch.isfinite(tensor).all() for part in ("network", "average") for tensor in state[part].values())


def test_the_scale_of_float16_goes_on(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scaling(**options: Any) -> Accelerator:
        accelerator = Accelerator(**options)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        return accelerator

    monkeypatch.setattr(trainer_module, "Accelerator", scaling)
    trainer(tmp_path / "run", words, steps=3, batch=2).train()
    again = trainer(tmp_path / "run", words, steps=3, batch=2).accelerator.scaler
    assert again is not None and again.get_scale() == 8.0 and again.state_dict()["_growth_tracker"] == 1


def test_a_run_goes_on_with_the_data_it_began_with(words: Path, tmp_path: Path) -> None:
    def write(count: int) -> Path:
        with LmdbWriter(tmp_path / "lmdb", overwrite=True) as writer:
            for picture, label in list(LmdbReader(words))[:count]:
                writer.add(picture, label)
        return tmp_path / "lmdb"

    trainer(tmp_path / "run", write(40), steps=1, batch=2).train()
    state = load_state(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"other data.*words to train on in .*lmdb: 36, now 27\).*--from"):
        trainer(tmp_path / "run", write(30))
    del state["sources"]  # as states were before
    torch.save(state, tmp_path / "run" / STATE)
    assert trainer(tmp_path / "run", tmp_path / "lmdb").step == 1


def test_the_log_is_cut_back_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / LOG
    text = "".join(f'{{"step": {step}}}\n' for step in (1, 2, 3))
    path.write_text(text, encoding="utf-8")

    def full(self: Path, *_: Any, **__: Any) -> None:
        self.open("w").close()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OptionError, match=f"{LOG}: cannot be written"):
            open_log(path, 2)
    assert path.read_text(encoding="utf-8") == text
    open_log(path, 2).close()
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2]


def test_warm_up_then_constant_then_a_decay_branched_off(words: Path, tmp_path: Path) -> None:
    rates: list[float] = []
    trainer(tmp_path / "run", words, steps=6, rate=1e-3, batch=2, report=lambda now: rates.append(now.rate)).train()
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])
    branch: list[float] = []
    end = trainer(
        tmp_path / "release", words, decay=4, rate=1e-3, batch=2, origin=tmp_path / "run",
        report=lambda now: branch.append(now.rate),
    ).train()  # fmt: skip
    assert branch == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert end.step == 10 and end.position == 20
    assert load_state(tmp_path / "run")["step"] == 6  # the run itself is untouched, and can be gone on with
    _, spec = load_weights(tmp_path / "release")
    assert spec.charset == ModelSpec().charset


def test_a_decay_from_the_start_warms_up() -> None:
    config = TrainConfig(train=(("a", 1.0),), rate=1.0, decay=40, warm_up=10)
    begun = [learning_rate(config, step, 0, 0.0) for step in range(40)]
    assert begun == pytest.approx([min(1, (step + 1) / 5) * (1 - step / 40) for step in range(40)])
    assert learning_rate(config, 7, 7, 0.0) == 1.0  # branched off there


def test_the_average_follows_the_weights(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, steps=3, batch=2, average=0.9)
    start = run.average["rnn.1.embedding.bias"].clone()
    trail = []
    run.report = lambda now: trail.append(run._state_dict()["rnn.1.embedding.bias"].clone())
    run.train()
    expected = start
    for step, weights in enumerate(trail, 1):
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * weights
    assert torch.allclose(run.average["rnn.1.embedding.bias"], expected, atol=1e-7)


def test_validation_reads_the_held_out_words(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, steps=1)
    found = run.validate()
    assert [name for name, _, _ in found.sets] == ["lmdb", "all"]
    assert len(run.held_out.labels) == 4
    assert 0 <= found.accuracy <= 1


def test_a_run_keeps_its_configuration(words: Path, tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path / "run"), "--train", str(words), "--synthetic", "0", "--workers", "0"]
    arguments += ["--batch", "2", "--precision", "no"]
    first = CliRunner().invoke(app, [*arguments, "--steps", "2"])
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(app, [*arguments, "--steps", "3"])
    assert again.exit_code == 0 and "step 3, 6 samples in all" in again.output
    for seed in ("-1", str(2**63)):
        assert CliRunner().invoke(app, [*arguments, "--seed", seed]).exit_code == 2
    other = CliRunner().invoke(app, [*arguments, "--rate", "0.1"])
    assert other.exit_code == 2 and "--rate" in other.stderr and "--from" in other.stderr


def test_a_run_without_a_saved_state_begins_again_otherwise(words: Path, tmp_path: Path) -> None:
    """What it was begun with was too much for the machine, or made it diverge."""
    run = tmp_path / "run"
    run.mkdir()
    begun = TrainConfig(train=((str(words), 1.0),), synthetic=0, batch=64, rate=0.5, precision="no", workers=0)
    begun.save(run)
    done = CliRunner().invoke(app, ["train", str(run), "--batch", "2", "--steps", "1"])
    assert done.exit_code == 0 and "step 1, 2 samples in all" in done.output
    assert TrainConfig.load(run) == replace(begun, batch=2, steps=1)
    other = tmp_path / "other"
    other.mkdir()
    replace(begun, rate=0.25, lineage=("branched off nothing",)).save(other)
    arguments = ["train", str(other), "--from", str(run), "--steps", "2"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    config = TrainConfig.load(other)
    assert config.rate == 0.5 and config.lineage[-1] == "branched off run"
    assert begun_again(replace(begun, decay=9), {"minutes": 5.0}, tmp_path / "new").decay == 0
    drawn = replace(begun, fonts=("a",), synthetic=0.5, words="b")
    assert begun_again(drawn, {"synthetic": 0.0}, tmp_path / "new").fonts == ()
    (run / STATE).unlink()
    lost = CliRunner().invoke(app, ["train", str(run), "--rate", "1e-4"])
    assert lost.exit_code == 2 and "has weights and no state.pt" in lost.stderr


def test_a_loss_that_is_no_number_does_not_stay_on_the_screen(words: Path, tmp_path: Path) -> None:
    out, err = (Console(file=io.StringIO(), width=200) for _ in range(2))
    with Screen(out, err, trainer(tmp_path, words)) as screen:
        for step, loss in enumerate([2.0, float("nan"), *[1.0] * 98], 1):
            screen.show(Progress(step, 0, loss, 1e-3, 0, 1.0, 0.0, 1))
        screen.show(Progress(101, 0, 1.0, 1e-3, 0, 1.0, 0.0, 1, validation=Validation(())))
    shown = cast(io.StringIO, out.file).getvalue()
    assert "step 100: loss 1.1" in shown and "nan" not in shown and "accuracy" not in shown


def test_a_network_that_reads_nothing_is_said_to(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, words)
    out, err = (Console(file=io.StringIO(), width=500) for _ in range(2))
    network = CRNN().eval()
    with torch.no_grad():
        network.get_parameter("rnn.1.embedding.bias")[0] = 1e3  # blanks everywhere
    nothing = validate(network, run.held_out, torch.device("cpu"), start())
    assert (nothing.empty, nothing.written) == (1.0, 0.0) and 5 < nothing.labelled < 8
    with Screen(out, err, run) as screen:
        for step in range(1, 6):
            screen.show(Progress(step, 0, 1.0, 1e-3, 0, 1.0, 0.0, 1, validation=nothing))
    shown = cast(io.StringIO, out.file).getvalue()
    assert shown.count("empty 100.0%, 0.0 of") == 5 and shown.count("nothing but blanks is read") == 1
    assert shown.index("step 3: ") < shown.index("nothing but blanks") < shown.index("step 4: ")
    assert run.device.startswith("cpu (") and run.device.endswith("in float32")


def test_two_processes_do_not_train_in_one_folder(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, steps=2)
    with run._own(), pytest.raises(OptionError, match="run: another process trains in it"):
        trainer(tmp_path / "run", words, steps=2).train()
    late = trainer(tmp_path / "run", words, steps=3)
    assert run.train().step == 2 and run.train().step == 2
    with pytest.raises(OptionError, match="another process has trained on in it meanwhile"):
        late.train()
    assert load_state(tmp_path / "run")["step"] == 2


def test_weights_without_a_state_are_not_replaced(words: Path, tmp_path: Path) -> None:
    command = [
        "train",
        str(tmp_path / "run"),
        "--train",
        str(words),
        "--synthetic",
        "0",
        "--steps",
        "1",
        "--batch",
        "2",
    ]
    for name in ("weights.safetensors", "best.safetensors"):
        (tmp_path / "run").mkdir()
        save_weights(tmp_path / "run" / name, CRNN().state_dict(), ModelSpec())
        for more in ([], ["--init", "bundled"], ["--init", str(tmp_path / "run" / name)]):
            refused = CliRunner().invoke(app, [*command, *more])
            assert refused.exit_code == 2 and "no state to go on from" in refused.stderr, refused.output
        assert os.listdir(tmp_path / "run") == [name]
        shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()  # a run that was killed after its first validation, before its first state
    trainer(tmp_path / "run", words).config.save(tmp_path / "run")
    save_weights(tmp_path / "run" / "best.safetensors", CRNN().state_dict(), ModelSpec())
    begun = CliRunner().invoke(app, [*command, "--init", "bundled", "--workers", "0"])
    assert begun.exit_code == 0, begun.output


def test_a_full_disk_is_one_error_and_the_state_is_tried(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, text: str = "") -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = write

    monkeypatch.setattr(trainer_module, "open_log", lambda path, step: Full())
    with pytest.raises(OptionError, match=r"steps\.jsonl: cannot be written \(No space left on device\)"):
        trainer(tmp_path, words, steps=3).train()
    assert load_state(tmp_path)["step"] == 1


def test_stop_after_needs_a_word_to_validate_on(words: Path, tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "lmdb") as writer:
        reader = LmdbReader(words)
        for i in range(9):
            writer.add(reader.image_bytes(i), "-" if i == 0 else reader.label(i))
    with pytest.raises(OptionError, match="--stop-after needs words to validate on"):
        trainer(tmp_path / "run", tmp_path / "lmdb", stop_after=1)


def test_a_go_without_a_step_has_no_share_of_waiting(words: Path, tmp_path: Path) -> None:
    command = ["train", str(tmp_path / "run"), "--train", str(words), "--synthetic", "0", "--pause", "0"]
    done = CliRunner().invoke(app, [*command, "--steps", "3", "--batch", "2", "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "0 samples in all; none in this go; 0 steps skipped" in done.stdout and "computing on cpu" in done.stdout


def test_names_tell_data_sets_apart() -> None:
    paths = [Path("iiit/train"), Path("svt/train"), Path("ic15"), Path("old/all"), *[Path("svt/train")] * 2]
    assert names(paths) == ["iiit/train", "svt/train", "ic15", "old/all", "svt/train (2)", "svt/train (3)"]
    assert names([Path("all")]) == [f"{Path.cwd().name}/all"]


def test_a_data_set_called_all_is_one_of_the_others(words: Path, tmp_path: Path) -> None:
    shutil.copytree(words, tmp_path / "all")
    sets = [RealWords(path, ModelSpec(), validation=True) for path in (words, tmp_path / "all", words)]
    held_out = HeldOut(sets, ModelSpec())
    held_out.labels[:40] = ["0"] * 40  # so that the first set has other figures than the others
    network = CRNN().eval()
    with torch.no_grad():
        network.get_parameter("rnn.1.embedding.bias")[1] = 1e3  # which reads "0" everywhere
    found = validate(network, held_out, torch.device("cpu"), start())
    assert [(name, accuracy) for name, accuracy, _ in found.sets] == [
        ("lmdb", 1.0), (f"{tmp_path.name}/all", 0.0), ("lmdb (2)", 0.0), ("all", 1 / 3)
    ]  # fmt: skip


def test_a_run_that_cannot_be_kept_is_refused_before_anything_is_opened(words: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        refused = CliRunner().invoke(app, ["train", str(run), "--train", str(tmp_path / "none")])
        assert refused.exit_code == 2 and f"{tmp_path / 'file'} is no folder" in refused.stderr
    with pytest.raises(OptionError, match="file: cannot be made"):
        trainer(tmp_path / "file", words).train()


def test_a_branch_says_what_its_parent_was_trained_on(tmp_path: Path) -> None:
    run = tmp_path / "first"
    run.mkdir()
    TrainConfig(train=(("data/signs", 1.0),), fonts=("a",), lineage=("begun with b",)).save(run)
    lineage = ("begun with b", "trained by crnn train on signs and synthetic words", "branched off first")
    assert branched(run, {"decay": 9}).lineage == lineage


def test_synthetic_words_can_be_left_out_of_a_branch(words: Path, tmp_path: Path) -> None:
    TrainConfig(train=((str(words), 1.0),), fonts=("a",), words="b", backgrounds="c").save(tmp_path)
    config = branched(tmp_path, {"synthetic": 0.0})
    assert (config.fonts, config.words, config.backgrounds) == ((), "", "")
    useless: list[dict[str, Any]] = [{"words": "b"}, {"backgrounds": "c"}]
    for given in useless:
        with pytest.raises(OptionError, match="--words and --backgrounds are for synthetic words"):
            new({"train": config.train, **given})


@pytest.mark.parametrize("share", ["0", "-1", "nan", "inf"])
def test_shares_that_are_none_are_refused(share: str) -> None:
    with pytest.raises(OptionError, match=f"--train a:b:{share}: the share must be"):
        place_and_share(f"a:b:{share}")
    assert place_and_share("a:b:0.5") == ("a:b", 0.5)
    assert place_and_share("a:b") == ("a:b", 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ()}, "nothing to train on"),
        ({"precision": "int3"}, "precision"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"rate": 0.0}, "rate must be above 0"),
        ({"average": 1.0}, "average"),
        ({"decay": -1}, "decay must not be negative"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(TrainConfig(train=(("a", 1.0),)), **change)


def test_a_configuration_with_an_unknown_entry_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(train=(("a", 1.0),), fonts=("b",))
    config.save(tmp_path)
    assert TrainConfig.load(tmp_path) == config
    path = tmp_path / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"rate"', '"learning_rate"'), encoding="utf-8")
    with pytest.raises(OptionError, match="unknown entries: learning_rate"):
        TrainConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": "64"}, 'batch cannot be "64"'),
        ({"batch": 64.0}, "batch cannot be"),
        ({"steps": True}, "steps cannot be"),
        ({"rate": None}, "rate cannot be null"),
        ({"train": [["a"]]}, "train cannot be"),
        ({"train": [["a", "b"]]}, "train cannot be"),
        ({"fonts": ["a", 1]}, "fonts cannot be"),
        ({"words": 3}, "words cannot be"),
    ],
)
def test_a_malformed_configuration_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    TrainConfig(train=(("a", 1.0),)).save(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | change), encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        TrainConfig.load(tmp_path)
    del values["rate"], values["freeze"], values["mean"]  # the last came later, and may be missing
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(OptionError, match="missing entries: freeze, rate"):
        TrainConfig.load(tmp_path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(OptionError, match="no JSON object"):
        TrainConfig.load(tmp_path)


def test_a_state_of_another_network_is_refused(words: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", words, steps=1, batch=2)
    run.train()
    state = load_state(tmp_path / "run")
    state["network"]["rnn.1.embedding.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "run" / "state.pt")
    with pytest.raises(CheckpointError, match="not one of this network"):
        trainer(tmp_path / "run", words)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_precision_is_what_is_asked_for_or_an_error(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "device_type", lambda: device)
    monkeypatch.setattr(precision_module, "_quickest", QUICKEST)
    assert [precision(kind) for kind in ("no", "bf16")] == ["no", "bf16"]
    assert precision("no", "bf16") == "no"
    if device == "cuda":
        assert precision("fp16") == precision("auto", "fp16") == "fp16"
        return
    assert precision("auto") in ("bf16", "no")
    with pytest.raises(OptionError, match=r"precision fp16 needs a CUDA device.*choose bf16 or no"):
        precision("fp16")
    with pytest.raises(OptionError, match=r"the run computes in fp16.*--from"):
        precision("auto", "fp16")


def test_auto_is_settled_at_the_start_of_a_run(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on in what it has computed in so far, whatever would be measured now."""
    options: dict[str, Any] = {"precision": "auto", "batch": 2, "steps": 1}
    monkeypatch.setattr(precision_module, "_quickest", lambda: "no")
    trainer(tmp_path / "run", words, **options).train()
    assert load_state(tmp_path / "run")["precision"] == "no"
    monkeypatch.setattr(precision_module, "_quickest", lambda: "bf16")
    assert trainer(tmp_path / "run", words, **options).accelerator.mixed_precision == "no"
    with pytest.raises(OptionError, match="precision bf16 is not to be had here"):  # one precision a process
        trainer(tmp_path / "another", words, **options)
    state = load_state(tmp_path / "run")
    del state["precision"]  # as states were before
    torch.save(state, tmp_path / "run" / "state.pt")
    monkeypatch.setattr(precision_module, "_quickest", lambda: "no")
    assert trainer(tmp_path / "run", words, **options).step == 1
