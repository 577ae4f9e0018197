from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crnn.errors import OptionError
from crnn.training import replay as replay_module
from crnn.training import trainer as trainer_module
from crnn.training.checkpoints import load_state
from crnn.training.config import TrainConfig
from crnn.training.data import Batch
from crnn.training.progress import LOG
from crnn.training.replay import CAPACITY, EASY, HOPELESS, LEAST, USES, Replay
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer


def batch(first: int, count: int = 4) -> Batch:
    """Samples first, first + 1, ...: their pictures hold their number, their labels have 1, 2, 3, 1, ... characters."""
    ids = torch.arange(first, first + count)
    lengths = ids % 3 + 1
    targets = torch.cat([torch.full((int(n),), int(i) % 37) for i, n in zip(ids, lengths, strict=True)])
    return Batch((ids % 251).to(torch.uint8).view(-1, 1, 1).expand(-1, 32, 100), targets, lengths, ids)


def filled(replay: Replay, batches: int, loss: float = 1.0) -> None:
    for k in range(batches):
        mixed = replay.mixed(batch(4 * k))
        replay.note(mixed, 4, torch.full((len(mixed.ids),), loss))


def stocked(batches: int, seed: int) -> Replay:
    """One whose samples have not come again yet."""
    replay = Replay(1.0, seed)
    for k in range(batches):
        replay.note(batch(4 * k), 4, torch.full((4,), 1.0))
    return replay


def test_what_was_hard_comes_again_as_it_was() -> None:
    replay = Replay(0.5, seed=1)
    for first in range(0, 4 * (LEAST - 1), 4):
        assert len(replay.mixed(batch(first)).ids) == 4  # there are too few to choose from
        replay.note(batch(first), 4, torch.tensor([EASY / 2, 1.0, HOPELESS + 1, float("nan")]))
    assert len(replay) == LEAST - 1 and replay.taken == 0
    replay.note(batch(500), 4, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert len(replay.mixed(batch(504)).ids) == 5
    filled(replay, LEAST)
    mixed = replay.mixed(batch(1000))
    assert mixed.ids[:4].tolist() == [1000, 1001, 1002, 1003] and len(mixed.ids) == 6
    assert mixed.images.shape == (6, 32, 100) and mixed.images.dtype == torch.uint8
    for image, target, number in zip(
        mixed.images, torch.split(mixed.targets, mixed.lengths.tolist()), mixed.ids.tolist(), strict=True
    ):
        alone = batch(number, 1)
        assert torch.equal(image, alone.images[0]) and torch.equal(target, alone.targets)


def test_it_goes_when_it_is_read_or_has_come_often_enough() -> None:
    replay = stocked(2 * LEAST, seed=2)
    kept = len(replay)
    mixed = replay.mixed(batch(5000))
    old = mixed.ids[4:].tolist()
    assert len(old) == 4
    replay.note(mixed, 4, torch.tensor([EASY / 2] * 6 + [1.0, float("nan")]))  # two of them are read now
    assert len(replay) == kept - 2 and replay.taken == 4
    assert not set(old[:2]) & set(replay._kept) and set(old[2:]) <= set(replay._kept)
    counts: dict[int, int] = {}
    for k in range(400):
        mixed = replay.mixed(batch(6000 + 4 * k))
        for number in mixed.ids[4:].tolist():
            counts[number] = counts.get(number, 0) + 1
        replay.note(mixed, 4, torch.full((len(mixed.ids),), 1.0))
    assert max(counts.values()) == USES


def test_two_batches_of_a_step_may_take_the_same_one() -> None:
    replay = stocked(2 * LEAST, seed=5)
    mixed, again = replay.mixed(batch(5000)), replay.mixed(batch(5000))
    assert torch.equal(mixed.ids, again.ids)
    replay.note(mixed, 4, torch.full((8,), EASY / 2))
    kept = len(replay)
    replay.note(again, 4, torch.full((8,), EASY / 2))
    assert len(replay) == kept


def test_the_oldest_make_room() -> None:
    replay = Replay(0.01, seed=3)
    for first in range(0, CAPACITY + 512, 64):
        new = batch(first, 64)
        replay.note(new, 64, torch.full((64,), 1.0))
    assert len(replay) == CAPACITY
    assert min(replay._kept) == 512


def test_its_state_is_all_of_it() -> None:
    one, two = Replay(1.0, seed=4), Replay(1.0, seed=4)
    filled(one, 3 * LEAST)
    two.load_state_dict(one.state_dict())
    assert two.taken == one.taken > 0
    for k in range(8):
        mine, theirs = one.mixed(batch(9000 + 4 * k)), two.mixed(batch(9000 + 4 * k))
        assert torch.equal(mine.ids, theirs.ids) and torch.equal(mine.images, theirs.images)
        losses = torch.linspace(0, 2 * HOPELESS, len(mine.ids))
        one.note(mine, 4, losses)
        two.note(theirs, 4, losses)
    empty = Replay(1.0, seed=4)
    two.load_state_dict(empty.state_dict())
    assert (len(two), two.taken) == (0, 0)


def run(folder: Path, words: Path, origin: Path | None = None, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {"batch": 4, "workers": 0, "warm_up": 4, "precision": "no", "validate_every": 1000}
    settings["replay"] = 0.5
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, **(settings | changes))
    stream, real, _ = open_sources(config)
    return Trainer(folder, config, stream, real, origin=origin)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def test_a_run_that_was_stopped_takes_the_same_ones_again(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "HOPELESS", 1000.0)  # a network that can do nothing yet finds all words hard
    monkeypatch.setattr(replay_module, "LEAST", 2)
    whole = run(tmp_path / "whole", words, steps=8)
    end = whole.train()
    assert whole.replay.taken > 0
    assert (end.position, end.images) == (32, 32 + whole.replay.taken)
    run(tmp_path / "stopped", words, steps=5).train()
    assert load_state(tmp_path / "stopped")["replay"]["taken"] > 0
    again = run(tmp_path / "stopped", words, steps=8)
    again.train()
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert again.replay.taken == whole.replay.taken


def test_a_branch_begins_without_those_of_its_origin(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "HOPELESS", 1000.0)
    run(tmp_path / "run", words, steps=2).train()
    assert "images" in load_state(tmp_path / "run")["replay"]
    branch = run(tmp_path / "branch", words, origin=tmp_path / "run", replay=0.0, decay=2)
    assert len(branch.replay) == 0
    branch.train()
    assert load_state(tmp_path / "branch")["replay"] == {"taken": 0}


def test_it_is_for_one_process(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = SimpleNamespace(count=2, check_same=lambda config: None)
    monkeypatch.setattr(trainer_module, "start", lambda: two)
    with pytest.raises(OptionError, match="--replay is for training in one process"):
        run(tmp_path / "run", words, steps=1)


def test_impossible_shares_are_refused() -> None:
    for share, message in ((-1.0, "replay must not be negative"), (float("inf"), "replay must be at most 4, not inf")):
        with pytest.raises(OptionError, match=message):
            TrainConfig(train=(("a", 1.0),), replay=share)
