from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from torch import Tensor

from crnn.export.onnx import round_weights, weights_from_onnx
from crnn.spec import ModelSpec
from crnn.training.checkpoints import save_weights

SPEC = ModelSpec(licence="for tests", lineage=("random weights",))


@pytest.fixture(scope="module")
def run_folder(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_weights(folder / "weights.safetensors", weights, SPEC)
    return folder


def crnn_export(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crnn", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_run_folder_to_float32_then_from_that_to_float16(run_folder: Path, words_lmdb: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "crnn.onnx", tmp_path / "half.onnx"
    done = crnn_export(run_folder, first, "--check", words_lmdb)
    assert done.returncode == 0, done.stderr
    assert "70 words of the check set read the same as in torch" in done.stdout
    assert "Rounding" not in done.stdout

    done = crnn_export(first, second, "--fp16", "--check", words_lmdb)
    assert done.returncode == 0, done.stderr
    assert "Rounding to float16 changed" in done.stdout
    assert second.stat().st_size <= 17.5e6 < first.stat().st_size <= 34e6
    full, spec = weights_from_onnx(first)
    half, _ = weights_from_onnx(second)
    assert spec == SPEC
    assert all(half[key].equal(value) for key, value in round_weights(full).items())


def test_weights_file(run_folder: Path, words_lmdb: Path, tmp_path: Path) -> None:
    done = crnn_export(run_folder / "weights.safetensors", tmp_path / "crnn.onnx", "--check", words_lmdb)
    assert done.returncode == 0, done.stderr
    assert onnx.load(tmp_path / "crnn.onnx").opset_import[0].version == 11


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("absent", "crnn.onnx", "no weights at"),
        (".", "crnn.onnx", "no weights at"),
        ("weights.safetensors", "crnn.pt", "must end in .onnx"),
        ("weights.safetensors", "absent/crnn.onnx", "no folder"),
    ],
)
def test_mistakes_are_one_line(
    run_folder: Path, words_lmdb: Path, tmp_path: Path, source: str, out: str, message: str
) -> None:
    path = tmp_path if source == "." else run_folder / source
    done = crnn_export(path, tmp_path / out, "--check", words_lmdb)
    assert done.returncode == 2
    assert done.stderr.startswith("crnn: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
