from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crnn.errors import CheckpointError, ModelError
from crnn.spec import ModelSpec
from crnn.training.checkpoints import load_state, load_weights, save_state, save_weights
from crnn.training.network import CRNN


def test_weights_travel_with_their_spec(tmp_path: Path) -> None:
    spec = ModelSpec(lineage=("made in a test",))
    weights = CRNN().state_dict()
    save_weights(tmp_path / "w.safetensors", weights, spec)
    loaded, its_spec = load_weights(tmp_path / "w.safetensors")
    assert its_spec == spec
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_bad_weights_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_weights(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("these are no weights", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match=r"crnn\.spec"):
        load_weights(tmp_path / "bare.safetensors")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code from a pickle has run",)


def test_a_state_is_data_and_never_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"network": Hostile(), "position": 0}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="no state of a training run"):
        load_state(tmp_path)
    assert "has run" not in capsys.readouterr().out


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"network": {"a": torch.arange(3.0)}, "position": 5, "random": torch.get_rng_state()}
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path)
    assert loaded["position"] == 5 and torch.equal(loaded["network"]["a"], torch.arange(3.0))
    torch.save({"something": 1}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="no state of a training run"):
        load_state(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="files have no such mode")
def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_weights(tmp_path / "w.safetensors", CRNN().state_dict(), ModelSpec())
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
