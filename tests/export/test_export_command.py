from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from crnn.cli import app
from crnn.ctc import decode
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.engines import open_engine
from crnn.evaluation.calibration import calibrate
from crnn.evaluation.evaluate import evaluate
from crnn.export.onnx import round_weights, weights_from_onnx
from crnn.export.parity import CheckSet
from crnn.protocols import alnum36
from crnn.spec import ModelSpec
from crnn.training.checkpoints import save_weights
from crnn.training.folding import network_of

SPEC = ModelSpec(licence="for tests", lineage=("random weights",))


@pytest.fixture(scope="module")
def run_folder(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_weights(folder / "weights.safetensors", weights, SPEC)
    return folder


def crnn_export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_run_folder_to_float32_then_from_that_to_float16(run_folder: Path, words_lmdb: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "crnn.onnx", tmp_path / "half.onnx"
    done = crnn_export(run_folder, first, "--check", words_lmdb)
    assert done.exit_code == 0, done.stderr
    assert "70 words of the check set read the same as in torch" in done.stdout
    assert "Rounding" not in done.stdout

    done = crnn_export(first, second, "--fp16", "--check", words_lmdb)
    assert done.exit_code == 0, done.stderr
    assert "Rounding to float16 changed" in done.stdout
    assert second.stat().st_size <= 17.5e6 < first.stat().st_size <= 34e6
    full, spec = weights_from_onnx(first)
    half, _ = weights_from_onnx(second)
    assert spec == SPEC
    assert all(half[key].equal(value) for key, value in round_weights(full).items())


@pytest.mark.parametrize("size", [1, 5])
def test_a_fixed_batch(run_folder: Path, words_lmdb: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "fixed.onnx"
    done = crnn_export(run_folder, out, "--batch", str(size), "--check", words_lmdb)
    assert done.exit_code == 0, done.stderr
    model = onnx.load(out)
    for value, where in ((model.graph.input[0], 0), (model.graph.output[0], 1)):
        assert value.type.tensor_type.shape.dim[where].dim_value == size
    images = np.random.default_rng(0).normal(size=(7, 1, 32, 100)).astype(np.float32)
    expected = open_engine(run_folder, "torch").run(images)
    for engine in ("onnxruntime", "openvino"):
        assert np.allclose(open_engine(out, engine, precision="float32").run(images), expected, atol=1e-3)
    assert weights_from_onnx(out)[1] == SPEC
    refused = crnn_export(run_folder, "--triton", tmp_path / "models", "--batch", str(size))
    assert refused.exit_code == 2 and "--batch is for a file" in refused.stderr


def test_weights_file(run_folder: Path, words_lmdb: Path, tmp_path: Path) -> None:
    done = crnn_export(run_folder / "weights.safetensors", tmp_path / "crnn.onnx", "--check", words_lmdb)
    assert done.exit_code == 0, done.stderr
    assert onnx.load(tmp_path / "crnn.onnx").opset_import[0].version == 11


def test_calibrated(
    run_folder: Path, weights: dict[str, Tensor], words: CheckSet, words_lmdb: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        logp = network_of(weights)(torch.from_numpy(words.images)).numpy()
    texts = [word.text for word in decode(logp, SPEC.charset)]
    reader, path = LmdbReader(words_lmdb), tmp_path / "lmdb"
    with LmdbWriter(path) as writer:
        for i in range(1000):  # of the held-out words, every second is read as its label says
            if i % 10:
                writer.add(b"no picture", "x")
            else:
                k = i // 10 % len(texts)
                writer.add(reader.image_bytes(k), (alnum36(texts[k]) or "x") if i % 20 else "wrong")
    out, second = tmp_path / "crnn.onnx", tmp_path / "second.onnx"
    done = crnn_export(run_folder, out, "--check", words_lmdb, "--calibrate", path)
    assert done.exit_code == 0, done.stderr
    assert "fitted to 100 held-out words" in done.stdout
    state, spec = weights_from_onnx(out)
    assert spec.temperature < 0.5  # such weights are sure of nothing, and half the words are right
    assert spec == replace(SPEC, temperature=spec.temperature)
    assert f"Temperature {spec.temperature}," in done.stdout
    found = calibrate(open_engine(out), [path])  # the engine that people read with agrees
    assert found.temperature == pytest.approx(spec.temperature, rel=0.03)
    held_out = evaluate([path], open_engine(out), held_out=True)
    assert held_out["temperature"] == spec.temperature
    assert held_out["overall"]["ece"] < found.before

    done = crnn_export(out, second, "--check", words_lmdb)  # from then on it belongs to the weights
    assert done.exit_code == 0, done.stderr
    assert weights_from_onnx(second)[1] == spec
    assert all(state[key].equal(value) for key, value in weights_from_onnx(second)[0].items())


def test_too_few_words_to_calibrate_with(run_folder: Path, words_lmdb: Path, tmp_path: Path) -> None:
    done = crnn_export(run_folder, tmp_path / "crnn.onnx", "--check", words_lmdb, "--calibrate", words_lmdb)
    assert done.exit_code == 2
    assert done.stderr.startswith("crnn: calibrating needs at least 100 held-out words")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
    assert done.exit_code == 2
    assert done.stderr.startswith("crnn: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
