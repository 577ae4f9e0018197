from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.foreign_networks import Dtrb, Parseq, lively
from torch import Tensor
from typer.testing import CliRunner, Result

from crnn import Reader
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.engines import bundled_model, open_engine
from crnn.evaluation.words import prepared
from crnn.export.onnx import weights_from_onnx
from crnn.images import normalise, prepare
from crnn.training.checkpoints import load_weights
from crnn.training.foreign import save


def crnn(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def words(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty real words, in colour."""
    path = tmp_path_factory.mktemp("words") / "lmdb"
    reader = LmdbReader(data_dir / "IIIT5K_train_lmdb")
    with LmdbWriter(path) as writer:
        for i in range(0, 400, 10):
            writer.add(reader.image_bytes(i), reader.label(i))
    return path


@pytest.fixture(scope="module")
def bundled() -> dict[str, Tensor]:
    return weights_from_onnx(bundled_model())[0]


@pytest.mark.parametrize(("right", "wrong"), [("pytorch", "npu"), ("npu", "pytorch")])
def test_the_wrong_gate_order_is_found_out(
    bundled: dict[str, Tensor], words: Path, tmp_path: Path, right: str, wrong: str
) -> None:
    spec = weights_from_onnx(bundled_model())[1]
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    save(theirs, bundled, spec, "ascend", gates=right)

    refused = crnn("import", theirs, ours, "--check", words, "--gates", wrong)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1 and f"use --gates {right}" in refused.stderr
    assert os.listdir(tmp_path) == ["theirs.pth"]

    done = crnn("import", theirs, ours, "--check", words, "--gates", right)
    assert done.exit_code == 0, done.stderr
    assert f"{right} is right" in done.stdout and "not checked" not in done.stderr
    imported, imported_spec = load_weights(ours)
    assert all(value.equal(bundled[key]) for key, value in imported.items())
    assert imported_spec.lineage == (*spec.lineage, f"theirs.pth: ascend checkpoint, {right} gate order")


def test_an_unchecked_gate_order_is_said(bundled: dict[str, Tensor], tmp_path: Path) -> None:
    spec = weights_from_onnx(bundled_model())[1]
    for layout in ("ascend", "meijieru"):
        save(tmp_path / "theirs.pth", bundled, spec, layout)
        done = crnn("import", tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
        assert done.exit_code == 0, done.stderr
        assert ("was not checked" in done.stderr) == (layout == "ascend")


def test_words_that_do_not_tell(words: Path, tmp_path: Path) -> None:
    torch.save(lively(Dtrb(), torch.rand(2, 1, 32, 100)).state_dict(), tmp_path / "theirs.pth")
    done = crnn("import", tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "--check", words)
    assert done.exit_code == 0, done.stderr
    assert "these words do not tell" in done.stdout


def test_a_checkpoint_goes_straight_to_onnx_and_an_export_back(words: Path, tmp_path: Path) -> None:
    """DTRB: 24 steps. The graph, the trainer's network and the original agree on real words."""
    original = lively(Dtrb(), torch.rand(8, 1, 32, 100) * 2 - 1)
    torch.save({"module." + key: value for key, value in original.state_dict().items()}, tmp_path / "dtrb.pth")
    done = crnn("export", tmp_path / "dtrb.pth", tmp_path / "dtrb.onnx", "--check", words)
    assert done.exit_code == 0, done.stderr
    assert "40 words of the check set read the same" in done.stdout

    engine = open_engine(tmp_path / "dtrb.onnx", "onnxruntime")
    assert (engine.spec.trunk, engine.spec.steps) == ("dtrb", 24)
    _, pixels, _ = next(prepared(LmdbReader(words), range(8), engine.spec, 8))
    batch = normalise(pixels, engine.spec)
    with torch.no_grad():
        expected = torch.log_softmax(original(torch.from_numpy(batch)).transpose(0, 1), 2).numpy()
    assert np.abs(engine.run(batch) - expected).max() <= 1e-4
    assert np.abs(open_engine(tmp_path / "dtrb.onnx", "torch").run(batch) - expected).max() <= 1e-4

    done = crnn("export", tmp_path / "dtrb.onnx", tmp_path / "back.pth", "--layout", "ascend")
    assert done.exit_code == 2 and "trunk dtrb" in done.stderr


def test_a_network_of_3_channels_reads_in_colour(words: Path, tmp_path: Path) -> None:
    original = lively(Parseq(), torch.rand(8, 3, 32, 128) * 2 - 1)
    torch.save({"state_dict": {"model." + k: v for k, v in original.state_dict().items()}}, tmp_path / "parseq.ckpt")
    done = crnn("export", tmp_path / "parseq.ckpt", tmp_path / "parseq.onnx", "--check", words)
    assert done.exit_code == 0, done.stderr

    engine = open_engine(tmp_path / "parseq.onnx", "onnxruntime")
    reader = LmdbReader(words)
    _, pixels, _ = next(prepared(reader, range(5), engine.spec, 5))
    assert pixels.shape == (5, 32, 128, 3)
    assert any(np.ptp(picture.astype(int), axis=2).any() for picture in pixels)  # colours arrive
    batch = normalise(pixels, engine.spec)
    with torch.no_grad():
        expected = torch.log_softmax(original(torch.from_numpy(batch)).transpose(0, 1), 2).numpy()
    assert np.abs(engine.run(batch) - expected).max() <= 1e-4

    seen = []

    class Watched:
        """The engine, keeping what it is given."""

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def run(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
            seen.append(batch)
            return engine.run(batch)

    Reader(engine=Watched()).read(reader.image_bytes(0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(seen[0], normalise(prepare(reader.image_bytes(0), engine.spec)[None], engine.spec))


def test_export_and_import_are_each_others_inverse(bundled: dict[str, Tensor], tmp_path: Path) -> None:
    for layout in ("ascend", "meijieru"):
        done = crnn("export", bundled_model(), tmp_path / "out.pth", "--layout", layout, "--gates", "npu")
        assert done.exit_code == 0, done.stderr
        done = crnn("import", tmp_path / "out.pth", tmp_path / "back.safetensors", "--gates", "npu")
        assert done.exit_code == 0, done.stderr
        weights, spec = load_weights(tmp_path / "back.safetensors")
        assert all(value.equal(bundled[key]) for key, value in weights.items())
        assert spec.resampling == ("bicubic" if layout == "ascend" else "bilinear")


def test_options_that_cannot_be_used(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    foreign = tmp_path / "theirs.pth"
    torch.save(Dtrb(hidden=8).state_dict(), foreign)
    for arguments, part in [
        (("import", foreign, tmp_path / "out.pth"), "must end in .safetensors"),
        (("import", foreign, out, "--PAD"), "--PAD"),
        (("import", foreign, out, "--resampling", "INTER_CUBIC"), "INTER_CUBIC"),
        (("import", tmp_path / "none.pth", out), "no such file"),
        (("import", foreign, tmp_path / "no" / "out.safetensors"), "cannot be written"),
        (("import", foreign, out, "--check", tmp_path / "no"), "no such data set"),
        (("export", bundled_model(), tmp_path / "out.pth"), "--layout ascend or --layout meijieru"),
        (("export", bundled_model(), tmp_path / "out.pth", "--layout", "ascend", "--fp16"), "--fp16 does not go"),
        (("export", bundled_model(), tmp_path / "out.onnx", "--layout", "ascend"), "describe a foreign checkpoint"),
        (("export", foreign, tmp_path / "out.pth", "--layout", "ascend"), "crnn import it first"),
        (("export", foreign, tmp_path / "out.onnx", "--calibrate", tmp_path), "crnn import"),
    ]:
        done = crnn(*arguments)
        assert done.exit_code == 2, arguments
        assert part in done.stderr and done.stderr.count("\n") == 1
        assert os.listdir(tmp_path) == ["theirs.pth"]
