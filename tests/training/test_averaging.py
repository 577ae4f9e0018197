from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from crnn.charset import Charset
from crnn.cli import app
from crnn.engines import bundled_model, open_engine
from crnn.errors import CheckpointError, OptionError
from crnn.spec import ModelSpec
from crnn.training.averaging import average
from crnn.training.checkpoints import load_weights, save_weights
from crnn.training.folding import network_of
from crnn.training.network import CRNN


def lively(seed: int, classes: int = 37, hidden: int = 256) -> dict[str, Tensor]:
    """Weights whose batch normalisation does something."""
    torch.manual_seed(seed)
    weights = CRNN(classes, hidden=hidden).state_dict()
    for name, tensor in weights.items():
        if "batchnorm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return weights


def crnn(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_mean_of_what_is_computed_with(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_weights(one, lively(0), ModelSpec(licence="MIT", temperature=2.0, lineage=("begun",)))
    save_weights(other, lively(1), ModelSpec(licence="Apache-2.0"))
    mean, spec = average([(str(one), 30), (str(other), 10)])
    assert (spec.licence, spec.temperature) == ("MIT AND Apache-2.0", 1.0)
    assert spec.lineage == ("begun", "averaged: 75% one.safetensors, 25% other.safetensors")

    images, picture = torch.rand(3, 1, 32, 100), torch.rand(1, 64, 4, 4)
    conv = {name: network_of(lively(seed)).cnn for seed, name in enumerate(("one", "other"))}
    first = {  # the first two layers: a convolution, and one with batch normalisation
        name: cnn.get_submodule("batchnorm1")(cnn.get_submodule("conv1")(picture))[0, :, 1, 1]
        for name, cnn in conv.items()
    }
    network = network_of(mean)
    assert not network.batch_norm
    alone = network.cnn.get_submodule("conv1")(picture)[0, :, 1, 1]
    assert torch.allclose(alone, 0.75 * first["one"] + 0.25 * first["other"], atol=1e-5)
    assert torch.isfinite(network(images)).all()


def test_a_mean_of_the_same_is_the_same(tmp_path: Path) -> None:
    done = crnn("average", tmp_path / "mean.safetensors", "bundled", f"{bundled_model()}:3")
    assert done.exit_code == 0, done.stderr
    assert f"averaged: 25% {bundled_model().name}, 75% {bundled_model().name}" in done.stdout
    images = np.random.default_rng(0).normal(size=(2, 1, 32, 100)).astype(np.float32)
    expected = open_engine(bundled_model(), "torch").run(images)
    assert np.allclose(open_engine(tmp_path / "mean.safetensors", "torch").run(images), expected, atol=1e-5)
    assert load_weights(tmp_path / "mean.safetensors")[1].charset == ModelSpec().charset


def test_networks_without_a_mean(tmp_path: Path) -> None:
    paths = {}
    for name, weights, spec in (
        ("ours", lively(0), ModelSpec()),
        ("digits", lively(0, classes=11), ModelSpec(charset=Charset("0123456789"))),
        ("wide", lively(0), ModelSpec(width=200, steps=51)),
        ("bilinear", lively(0), ModelSpec(resampling="bilinear")),
        ("narrow", lively(0, hidden=128), ModelSpec()),
    ):
        paths[name] = str(tmp_path / f"{name}.safetensors")
        save_weights(Path(paths[name]), weights, spec)
    for name, what in (
        ("digits", "charset"),
        ("wide", "width"),
        ("bilinear", "resampling"),
        ("narrow", "another size"),
    ):
        with pytest.raises(CheckpointError, match=what):
            average([(paths["ours"], 1.0), (paths[name], 1.0)])
    with pytest.raises(OptionError, match="two networks or more"):
        average([(paths["ours"], 1.0)])
    with pytest.raises(OptionError, match="above 0"):
        average([(paths["ours"], 1.0), (paths["ours"], 0.0)])
    done = crnn("average", tmp_path / "mean.onnx", paths["ours"], paths["ours"])
    assert done.exit_code == 2 and "must end in .safetensors" in done.stderr
    done = crnn("average", tmp_path / "mean.safetensors", paths["ours"], tmp_path / "gone.safetensors")
    assert done.exit_code == 2 and "gone.safetensors does not exist" in done.stderr
    done = crnn("average", tmp_path / "mean.safetensors", paths["ours"], f"{paths['ours']}:-1")
    assert done.exit_code == 2 and "the share must be a number above 0" in done.stderr
    assert not (tmp_path / "mean.safetensors").exists()


def test_the_licence_is_all_of_theirs(tmp_path: Path) -> None:
    for name, licence in (("a", "Apache-2.0"), ("b", "MIT OR 0BSD"), ("c", "")):
        save_weights(tmp_path / f"{name}.safetensors", lively(0), replace(ModelSpec(), licence=licence))
    expected = {"aa": "Apache-2.0", "ab": "Apache-2.0 AND (MIT OR 0BSD)", "bb": "MIT OR 0BSD", "ac": "", "cc": ""}
    for names, licence in expected.items():
        _, mean = average([(str(tmp_path / f"{name}.safetensors"), 1.0) for name in names])
        assert mean.licence == licence
