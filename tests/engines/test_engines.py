from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn.charset import Charset
from crnn.engines import open_engine
from crnn.errors import CrnnError, EngineError, ModelError
from crnn.spec import DELIVERABLE, SPEC_KEY, ModelSpec


@pytest.fixture(autouse=True)
def onnxruntime_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the little networks here run in ONNX Runtime alone: OpenVINO does not broadcast their product."""
    monkeypatch.setattr("crnn.engines.FASTEST_FIRST", ("onnxruntime",))


def build(
    path: Path,
    spec: ModelSpec | None = DELIVERABLE,
    *,
    batch: int | str = "N",
    height: int = 32,
    classes: int = 37,
    names: tuple[str, str] = ("actual_input_1", "output1"),
    kind: int = TensorProto.FLOAT,
    secret: bool = False,
) -> Path:
    """A valid ONNX file: each step is a linear map of the picture's first row, so every word has its own output."""
    rng = np.random.default_rng(3)
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float16
    weights = rng.normal(size=(26, 100, classes)).astype(dtype)
    nodes = [
        helper.make_node("Gather", [names[0], "first"], ["row"], axis=2),  # [N, 1, 100]
        helper.make_node("Transpose", ["row"], ["columns"], perm=[1, 0, 2]),  # [1, N, 100]
        helper.make_node("MatMul", ["columns", "weights"], ["logits"]),  # [26, N, classes]
        # Compress keeps everything here, but what it keeps is known only when it runs
        *([helper.make_node("Compress", ["logits", "keep"], ["kept"], axis=2)] if secret else []),
        helper.make_node("LogSoftmax", ["kept" if secret else "logits"], [names[1]], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(names[0], kind, [batch, 1, height, 100])],
        [helper.make_tensor_value_info(names[1], kind, ["T", "N", "C"] if secret else [26, batch, classes])],
        [
            numpy_helper.from_array(np.array(0), "first"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.ones(classes, bool), "keep"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    if spec is not None:
        helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, 32, 100)).astype(np.float32)


def test_onnxruntime_runs_and_says_what_it_is(tmp_path: Path) -> None:
    engine = open_engine(build(tmp_path / "model.onnx"), "onnxruntime")
    assert (engine.name, engine.device, engine.precision, engine.notes) == ("onnxruntime", "CPU", "float32", ())
    assert engine.path == tmp_path / "model.onnx"
    assert engine.spec == DELIVERABLE
    batch = pictures(5)
    output = engine.run(batch)
    assert output.shape == (26, 5, 37)
    assert output.dtype == np.float32
    np.testing.assert_allclose(np.exp(output).sum(2), 1, rtol=1e-5)
    np.testing.assert_allclose(engine.run(batch[2:3]), output[:, 2:3], rtol=1e-5, atol=1e-5)


def test_the_spec_comes_from_the_file(tmp_path: Path) -> None:
    spec = ModelSpec(charset=Charset("xyz"), temperature=1.5, licence="CC0")
    engine = open_engine(build(tmp_path / "model.onnx", spec, classes=4))
    assert engine.spec == spec
    assert engine.run(pictures(2)).shape == (26, 2, 4)


def test_a_foreign_file_gets_the_deliverables_contract_and_says_so(tmp_path: Path) -> None:
    engine = open_engine(build(tmp_path / "foreign.onnx", None))
    assert engine.spec == DELIVERABLE
    assert len(engine.notes) == 1 and "foreign.onnx carries no crnn.spec" in engine.notes[0]
    engine = open_engine(build(tmp_path / "other.onnx", None, names=("images", "scores")))
    assert (engine.spec.input_name, engine.spec.output_name) == ("images", "scores")
    assert engine.run(pictures(2)).shape == (26, 2, 37)


@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_is_fed_in_pieces(tmp_path: Path, size: int) -> None:
    fixed = open_engine(build(tmp_path / "fixed.onnx", batch=size))
    free = open_engine(build(tmp_path / "free.onnx"))
    for count in (1, 3, 4, 9):
        batch = pictures(count)
        np.testing.assert_allclose(fixed.run(batch), free.run(batch), rtol=1e-5, atol=1e-5)


def test_a_model_that_does_not_fit_its_spec_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"height": 48}, r"input actual_input_1 has the shape .*48.* instead of .*32"),
        ({"classes": 40}, r"output output1 has the shape \[26, 'N', 40\] instead of \[26, 'N', 37\]"),
        ({"names": ("images", "output1")}, "has no input called 'actual_input_1'"),
        ({"names": ("actual_input_1", "scores")}, "has no output called 'output1'"),
        ({"kind": TensorProto.FLOAT16}, r"tensor\(float16\)"),
    ]
    for changes, part in cases:
        path = build(tmp_path / "bad.onnx", **changes)
        with pytest.raises(ModelError, match=part) as caught:
            open_engine(path)
        assert "bad.onnx" in str(caught.value)


def test_an_output_whose_shape_shows_only_when_it_runs_is_checked(tmp_path: Path) -> None:
    engine = open_engine(build(tmp_path / "sly.onnx", classes=40, secret=True))
    with pytest.raises(ModelError, match=r"\[26, 2, 40\] instead of \[26, 2, 37\]"):
        engine.run(pictures(2))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 1, 32, 100)),
        np.zeros((2, 32, 100), np.float32),
        np.zeros((2, 1, 100, 32), np.float32),
        np.zeros((2, 3, 32, 100), np.float32),
        np.zeros((0, 1, 32, 100), np.float32),
    ],
    ids=str,
)
def test_a_wrong_batch_is_refused(tmp_path: Path, batch: NDArray[Any]) -> None:
    engine = open_engine(build(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match=r"must be float32\[N, 1, 32, 100\], not float"):
        engine.run(batch)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    whole = build(tmp_path / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    model = onnx.load(tmp_path / "model.onnx")
    helper.set_model_props(model, {SPEC_KEY: "{}"})
    onnx.save(model, tmp_path / "spec.onnx")
    for name in ("text", "empty", "cut", "spec", "none"):
        with pytest.raises(ModelError, match=rf"{name}\.onnx: ") as caught:
            open_engine(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)


def test_threads_share_an_engine(tmp_path: Path) -> None:
    engine = open_engine(build(tmp_path / "model.onnx"))
    batches = [pictures(1 + seed % 3, seed) for seed in range(60)]
    expected = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for result, wanted in zip(pool.map(engine.run, batches), expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


def test_an_engine_that_is_not_there_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path / "model.onnx")
    with pytest.raises(EngineError, match="unknown engine 'onnx'; choose one of: onnxruntime, openvino, torch"):
        open_engine(path, "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        open_engine(path, "onnxruntime")
    with pytest.raises(EngineError, match=r"pip install 'crnn\[train\]'"):
        open_engine(path, "torch")


def test_torch_reads_weights_run_folders_and_exports(tmp_path: Path) -> None:
    import torch

    from crnn.export.onnx import build as export
    from crnn.training.checkpoints import save_weights
    from crnn.training.folding import fold
    from crnn.training.network import CRNN

    torch.manual_seed(1)
    spec = ModelSpec(charset=Charset("abc"))
    network = CRNN(classes=4, hidden=32).eval()
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run" / "weights.safetensors", network.state_dict(), spec)
    batch = pictures(3)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    for path in (tmp_path / "run", tmp_path / "run" / "weights.safetensors"):
        engine = open_engine(path)
        assert (engine.name, engine.version, engine.spec) == ("torch", torch.__version__, spec)
        assert engine.path.name == "weights.safetensors"
        np.testing.assert_array_equal(engine.run(batch), expected)
    onnx.save(export(fold(network.state_dict()), spec), tmp_path / "model.onnx")
    for name in ("onnxruntime", "torch"):
        np.testing.assert_allclose(open_engine(tmp_path / "model.onnx", name).run(batch), expected, atol=1e-4)
    with pytest.raises(ModelError, match="must be float32"):
        engine.run(batch[:, :, :16])


def test_torch_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    from crnn.training.checkpoints import save_weights
    from crnn.training.network import CRNN

    weights = CRNN(classes=5, hidden=32).state_dict()
    save_weights(tmp_path / "five.safetensors", weights, DELIVERABLE)
    save_weights(tmp_path / "few.safetensors", {"cnn.conv0.bias": weights["cnn.conv0.bias"]}, DELIVERABLE)
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name in ("five.safetensors", "few.safetensors", "text.safetensors", "folder"):
        with pytest.raises(CrnnError, match=name) as caught:
            open_engine(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="--engine torch"):
        open_engine(tmp_path / "five.safetensors", "onnxruntime")
