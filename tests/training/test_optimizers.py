"""Muon moves the large matrices as published, AdamW everything else, and a run changes from one to the other."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.training.begin import trainer
from torch import Tensor

from crnn.errors import OptionError
from crnn.training import optimizers
from crnn.training.checkpoints import load_state
from crnn.training.config import TrainConfig
from crnn.training.network import CRNN
from crnn.training.optimizers import Muon, orthogonal, orthogonal_in_bf16
from crnn.training.progress import LOG

ROOT = Path(__file__).resolve().parents[2]
CONV, BIAS, FIRST = "cnn.conv3.weight", "cnn.conv3.bias", "cnn.conv0.weight"
GATES, RECURRENT, SCORES = "rnn.0.fw_rnn.weight_ih_l0", "rnn.1.bw_rnn.weight_hh_l0", "rnn.1.embedding.weight"


def published(matrix: Tensor) -> Tensor:
    """The five steps as they are written in the publication, in float64."""
    x: Tensor = matrix.double()
    x = x / x.norm()
    for _ in range(5):
        square = x @ x.T
        x += 2.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize(("rows", "columns"), [(32, 200), (200, 32), (64, 64)])
def test_orthogonal_is_the_published_iteration(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, rows, columns, generator=generator) * torch.logspace(0, -2, columns)
    found = orthogonal(matrices)
    for matrix, ours in zip(matrices, found, strict=True):
        assert (ours - published(matrix)).abs().max() < 1e-4
    u, values, v = torch.linalg.svd(matrices[0].double(), full_matrices=False)
    seen = (u.T @ found[0].double() @ v.T).diagonal()[values > values[0] / 50]
    assert len(seen) > 10 and seen.min() > 0.65 and seen.max() < 1.16


@pytest.mark.parametrize(("rows", "columns"), [(64, 600), (600, 64), (256, 256)])
def test_in_bf16_it_is_nearly_the_same(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, rows, columns, generator=generator) * torch.logspace(0, -2, columns)
    found = orthogonal_in_bf16(matrices)
    assert found.dtype == matrices.dtype and found.shape == matrices.shape
    for matrix, ours in zip(matrices, found, strict=True):
        wanted = published(matrix)
        assert (ours - wanted).norm() < 0.02 * wanted.norm()


def test_the_precision_says_which() -> None:
    for kind, products in (("no", orthogonal), ("bf16", orthogonal_in_bf16)):
        network = CRNN()
        muon = optimizers.optimizer(network, TrainConfig(fonts=("x",), optimizer="muon"), "cpu", kind)
        assert isinstance(muon, Muon) and muon.orthogonal is products


@pytest.mark.parametrize("kind", [orthogonal, orthogonal_in_bf16])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e-26, 1e-24, 1e-22, 1e-20, 1e-10])
def test_hardly_anything_stays_finite(size: float, kind: Callable[[Tensor], Tensor]) -> None:
    small = kind(torch.full((1, 512, 1024), size))
    assert small.isfinite().all() and torch.linalg.matrix_norm(small, 2) < 1.2


def gradients(network: CRNN, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_which_weights_move_how() -> None:
    """Two steps: the size and direction of Muon's by hand, the others to the last bit as AdamW moves them."""
    torch.manual_seed(0)
    network = CRNN().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = copy.deepcopy(network)
    config = TrainConfig(fonts=("x",), optimizer="muon", rate=1e-3)
    muon = optimizers.optimizer(network, config, "cpu")
    adamw = torch.optim.AdamW(plain.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    assert isinstance(muon, Muon)
    first = {name: value.detach().clone() for name, value in network.named_parameters()}
    given: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        for each, optimizer in ((network, muon), (plain, adamw)):
            gradients(each, seed)
            optimizer.step()
        given.append({name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None})
        assert given[-1].keys() == first.keys()  # gradients are as they were after a step
    now, other = dict(network.named_parameters()), dict(plain.named_parameters())
    moved = {name for name in now if not now[name].equal(other[name])}
    assert {CONV, GATES, RECURRENT} <= moved and not {BIAS, FIRST, SCORES} & moved
    assert len(moved) == 6 + 8  # the convolutions but the first; two matrices of each of four LSTMs

    for name in (CONV, GATES):
        expected, momentum = first[name].double(), torch.zeros_like(first[name]).double()
        for step in given:
            gradient = step[name].double()
            momentum = 0.95 * momentum + 0.05 * gradient
            ahead = 0.05 * gradient + 0.95 * momentum
            parts = ahead.chunk(4) if name == GATES else [ahead.flatten(1)]
            update = torch.cat([published(part) * 0.2 * max(part.shape) ** 0.5 for part in parts])
            expected = expected * (1 - 1e-3 * 0.01) - 1e-3 * update.view_as(expected)
        assert (now[name].double() - expected).abs().max() < 1e-6, name
        assert 0.1e-3 < (first[name] - now[name]).square().mean().sqrt() < 0.6e-3  # of two steps at rate 1e-3


def test_a_run_in_bf16(words: Path, tmp_path: Path) -> None:
    """Muon's products and the guide are in bf16 as well; in a process of its own, as one has one precision."""
    code = f"""if True:
        from pathlib import Path
        import torch
        from tests.training.begin import trainer
        from crnn.training.optimizers import orthogonal_in_bf16
        folder, words = Path({str(tmp_path / "run")!r}), Path({str(words)!r})
        more = dict(precision="bf16", optimizer="muon", guide=1.0, consistency=0.2)
        run = trainer(folder, words, steps=2, **more)
        kinds = []
        run.guide.scores.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
        assert run.optimizer.optimizer.orthogonal is orthogonal_in_bf16
        assert run.train().step == 2
        assert set(kinds) == {{torch.bfloat16}}
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in run.network.parameters())
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_frozen_weights_stay() -> None:
    network = CRNN()
    network.cnn.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    muon = optimizers.optimizer(network, TrainConfig(fonts=("x",), optimizer="muon"), "cpu")
    for parameter in network.rnn.parameters():
        parameter.grad = torch.ones_like(parameter)
    muon.step()
    after = network.state_dict()
    assert after[CONV].equal(before[CONV]) and not after[GATES].equal(before[GATES])


def test_a_stopped_run_goes_on_bit_for_bit(words: Path, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", words, optimizer="muon", guide=1.0, steps=5)
    whole.train()
    first = trainer(tmp_path / "parts", words, optimizer="muon", guide=1.0, steps=5)
    first.report = lambda progress: first.stop() if progress.step == 3 else None
    first.train()
    trainer(tmp_path / "parts", words, optimizer="muon", guide=1.0, steps=5).train()
    logs = [(tmp_path / name / LOG).read_text(encoding="utf-8") for name in ("whole", "parts")]
    assert logs[0] == logs[1] and logs[0].count("\n") == 5
    one, other = (load_state(tmp_path / name)["network"] for name in ("whole", "parts"))
    assert all(value.equal(other[name]) for name, value in one.items())


def test_branches_change_the_optimizer(words: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "adamw", words, steps=2).train()
    saved = load_state(tmp_path / "adamw")["optimizer"]["state"]
    branch = trainer(tmp_path / "muon", words, tmp_path / "adamw", optimizer="muon", steps=4)
    inner = branch.optimizer.optimizer
    names = [name for name, _ in branch.network.named_parameters()]
    conv, bias = (branch.network.get_parameter(name) for name in (CONV, BIAS))
    assert inner.state[conv].keys() == {"exp_avg", "step"}
    assert inner.state[conv]["exp_avg"].equal(saved[names.index(CONV)]["exp_avg"])
    assert inner.state[bias]["exp_avg_sq"].equal(saved[names.index(BIAS)]["exp_avg_sq"])
    assert branch.train().step == 4
    back = trainer(tmp_path / "back", words, tmp_path / "muon", steps=6)
    inner = back.optimizer.optimizer
    assert not isinstance(inner, Muon)
    conv, bias = (back.network.get_parameter(name) for name in (CONV, BIAS))
    assert conv not in inner.state and float(inner.state[bias]["step"]) == 4
    assert back.train().step == 6
    assert {float(entry["step"]) for entry in load_state(tmp_path / "back")["optimizer"]["state"].values()} == {2, 6}


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(OptionError, match="choose adamw or muon"):
        TrainConfig(fonts=("x",), optimizer="sgd")
