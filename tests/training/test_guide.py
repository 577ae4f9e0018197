"""The attention branch guides the convolutions, and nothing of it is left in what a run releases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.begin import losses, trainer

from crnn.spec import ModelSpec
from crnn.training import guide as guide_module
from crnn.training.checkpoints import load_state, load_weights
from crnn.training.guide import Guide
from crnn.training.network import CRNN


def test_what_it_is_given_and_is_to_write() -> None:
    given, wanted = guide_module._written(torch.tensor([5, 6, 7, 9]), torch.tensor([3, 1]), 37)
    assert wanted.T.tolist() == [[5, 6, 7, 0], [9, 0, -1, -1]]
    assert all(
        seen in (letter, 37 if letter else 0)
        for row, letters in zip(given.T.tolist(), [[0, 5, 6, 7], [0, 9, 0, 0]], strict=True)
        for seen, letter in zip(row, letters, strict=True)
    )
    some = torch.full((4000,), 3)
    hidden = (guide_module._written(some, torch.tensor([4000]), 37)[0] == 37).float().mean()
    assert 0.2 < hidden < 0.3


def test_it_does_not_look_at_the_letter_it_is_to_write() -> None:
    """Without dropout and hidden letters, what comes first in a word has the same scores whatever follows."""
    network = CRNN().eval()
    guide = Guide(network, ModelSpec(), 0).eval()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(guide_module, "HIDDEN", 0.0)
        seen: list[torch.Tensor] = []
        guide.scores.register_forward_hook(lambda _m, _i, scores: seen.append(scores))
        for word in ([1, 2, 3], [1, 2, 9]):
            network(torch.zeros(1, 1, 32, 100))
            guide.losses(torch.tensor(word), torch.tensor([3]), 0)
    assert torch.allclose(seen[0][:3], seen[1][:3], atol=1e-6) and not torch.allclose(seen[0][3], seen[1][3], atol=1e-3)


def test_at_first_it_only_looks_and_then_it_guides(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide_module, "ALONE", 3)
    for name, weight in (("without", 0.0), ("with", 1.0)):
        trainer(tmp_path / name, words, guide=weight, steps=5).train()
    without, guided = losses(tmp_path / "without"), losses(tmp_path / "with")
    assert without[:4] == guided[:4] and without[4] != guided[4]
    weights, spec = load_weights(tmp_path / "with")
    assert weights.keys() == CRNN().state_dict().keys() and spec.charset == ModelSpec().charset


def test_it_learns(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path / "run", words, guide=1.0, steps=60, rate=1e-3)
    assert run.guide is not None
    found: list[float] = []
    of_words = run.guide.losses

    def noted(targets: torch.Tensor, lengths: torch.Tensor, first: int) -> torch.Tensor:
        each = of_words(targets, lengths, first)
        found.append(float(each.detach().mean()))
        return each

    monkeypatch.setattr(run.guide, "losses", noted)
    run.train()
    assert run.guide.steps == 60
    assert sum(found[-10:]) < 0.75 * sum(found[:10])


def test_a_stopped_run_goes_on_bit_for_bit(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_module, "ALONE", 1)
    trainer(tmp_path / "whole", words, guide=0.5, steps=6, accumulate=2).train()
    first = trainer(tmp_path / "parts", words, guide=0.5, steps=6, accumulate=2)
    first.report = lambda progress: first.stop() if progress.step == 3 else None
    first.train()
    torch.rand(7)  # what else draws numbers here does not matter
    trainer(tmp_path / "parts", words, guide=0.5, steps=6, accumulate=2).train()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, other = (load_state(tmp_path / name) for name in ("parts", "whole"))
    for part in ("network", "average", "guide"):
        assert all(value.equal(other[part][key]) for key, value in one[part].items())


def test_branches_take_it_up_and_leave_it(words: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "plain", words, steps=2).train()
    trainer(tmp_path / "guided", words, tmp_path / "plain", guide=1.0, steps=4).train()
    again = trainer(tmp_path / "again", words, tmp_path / "guided", guide=1.0, steps=5)
    assert again.guide is not None and again.guide.steps == 2
    saved = load_state(tmp_path / "guided")["optimizer"]["state"]
    (group,) = again.optimizer.param_groups[1:]
    taken = [again.optimizer.optimizer.state[parameter]["exp_avg"] for parameter in group["params"]]
    count = len(again.optimizer.param_groups[0]["params"])
    assert all(torch.equal(value, saved[count + k]["exp_avg"]) for k, value in enumerate(taken))
    assert again.train().step == 5
    without = trainer(tmp_path / "without", words, tmp_path / "guided", steps=5)
    assert without.guide is None and len(without.optimizer.param_groups) == 1
    assert without.train().step == 5 and load_state(tmp_path / "without")["guide"] is None
