from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import crnn
from crnn import ctc, quantization
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.engines import open_engine
from crnn.engines.qdq import quantise
from crnn.errors import ModelError
from crnn.evaluation.ranges import calibrate
from crnn.quantization import Ranges
from crnn.spec import DELIVERABLE

ENGINES = ("onnxruntime", "openvino")


def texts(logp: NDArray[np.float32]) -> list[str]:
    return ctc.greedy(logp).texts(DELIVERABLE.charset)


@pytest.mark.parametrize("name", ENGINES)
def test_int8_reads_nearly_the_same(name: str, model: Path, words: NDArray[np.float32], cache_folder: Path) -> None:
    expected = open_engine(model, name, precision="float32").run(words)
    engine = open_engine(model, name, precision="int8")
    assert engine.precision == "int8"
    output = engine.run(words)
    assert not np.allclose(output, expected, atol=1e-4)  # or nothing was rounded
    same = sum(a == b for a, b in zip(texts(output), texts(expected), strict=True))
    assert same >= 90
    again = open_engine(model, name, precision="int8").run(words)  # from the cache
    np.testing.assert_allclose(np.exp(again), np.exp(output), atol=0.1)
    assert any(path.suffix == ".built" for path in cache_folder.iterdir())


def test_a_damaged_cache_is_repaired(model: Path, words: NDArray[np.float32], cache_folder: Path) -> None:
    expected = open_engine(model, "onnxruntime", precision="int8").run(words[:2])
    (built,) = cache_folder.iterdir()
    whole = built.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        built.write_bytes(damaged)
        np.testing.assert_array_equal(open_engine(model, "onnxruntime", precision="int8").run(words[:2]), expected)
        assert built.read_bytes() == whole


def test_a_coarse_range_shows(model: Path, words: NDArray[np.float32]) -> None:
    """That ranges are used at all: with useless ones, nothing is read right."""
    ranges = quantization.load(model)
    assert ranges is not None
    Ranges(ranges.model, dict.fromkeys(ranges.tops, 1e4), 1, 1, 1.0, 1.0, 1.0).save(model)
    for name in ENGINES:
        plain, rounded = (open_engine(model, name, precision=each).run(words[:16]) for each in ("float32", "int8"))
        assert sum(a == b for a, b in zip(texts(plain), texts(rounded), strict=True)) <= 4


@pytest.mark.parametrize("name", ENGINES)
def test_int8_without_fitting_ranges_is_refused(name: str, model: Path) -> None:
    place = quantization.place(model)
    values = json.loads(place.read_text())
    cases: list[tuple[str, str]] = [
        ("{", "cannot be read as ranges.*--model"),
        ("[]", "no ranges.*--model"),
        (json.dumps({**values, "schema": "other"}), "no ranges"),
        (json.dumps({**values, "tops": {"cnn.pool0": -1}}), "no ranges"),
        (json.dumps({**values, "model": "0" * 64}), "belongs to other weights.*--model"),
        (json.dumps({**values, "tops": {"nothing": 1.0}}), "no convolution reads nothing"),
    ]
    for text, part in cases:
        place.write_text(text)
        with pytest.raises(ModelError, match=part) as caught:
            open_engine(model, name, precision="int8")
        assert "\n" not in str(caught.value)
    place.unlink()
    command = re.escape(f"`crnn quantize TRAINING_LMDB --model {model}`")
    with pytest.raises(ModelError, match=f"has no ranges for int8 beside it; make them with {command}"):
        open_engine(model, name, precision="int8")


def test_the_int8_file_is_valid_onnx(model: Path) -> None:
    ranges = quantization.load(model)
    assert ranges is not None
    data = quantise(model.read_bytes(), ranges.tops, model)
    network = onnx.load_from_string(data)
    onnx.checker.check_model(network, full_check=True)
    kinds = [node.op_type for node in network.graph.node]
    assert kinds.count("QuantizeLinear") == len(ranges.tops) == 6
    assert len(data) < 0.8 * model.stat().st_size
    assert {each.key: each.value for each in network.metadata_props}["crnn.spec"]


def test_what_cannot_be_made_int8_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        quantise(b"hello", {"x": 1.0}, Path("text.onnx"))
    network = onnx.load(model)
    network.opset_import[0].version = 9
    with pytest.raises(ModelError, match=r"old\.onnx.*opset 9"):
        quantise(network.SerializeToString(), {"cnn.pool0": 1.0}, Path("old.onnx"))


def test_quantize_writes_ranges_beside_the_model(model: Path, data_dir: Path) -> None:
    quantization.place(model).unlink()
    sets = [str(data_dir / name) for name in ("SVT_train_lmdb", "IC03_train_lmdb")]
    command = ["quantize", *sets, "--model", str(model), "--words", "48", "--engine", "onnxruntime"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    ranges = quantization.load(model)
    assert ranges is not None and ranges.words == 48 and len(ranges.tops) == 6
    assert ranges.held_out > 100 and ranges.float32 > 0.7
    assert abs(ranges.float32 - ranges.int8) < 0.05 and ranges.same > 0.9
    assert f"{ranges.int8:.2%} in int8" in result.output
    assert open_engine(model, "onnxruntime", precision="int8").precision == "int8"


def test_ranges_claim_no_more_words_than_there_are(model: Path, tmp_path: Path) -> None:
    """Of 20 words, two are held out and half of the others have no label to go by."""
    sample = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb")
    with LmdbWriter(tmp_path / "few_lmdb") as writer:
        for i in range(20):
            writer.add(sample.image_bytes(i), sample.label(i) if i % 2 == 0 else "!?")
    assert calibrate(model, [tmp_path / "few_lmdb"], engine="onnxruntime").words == 8


def test_quantize_leaves_nothing_where_it_fails(model: Path, tmp_path: Path) -> None:
    before = quantization.place(model).read_bytes()
    result = CliRunner().invoke(app, ["quantize", str(tmp_path / "none_lmdb"), "--model", str(model)])
    assert result.exit_code == 2 and "none_lmdb" in result.output
    assert quantization.place(model).read_bytes() == before
    assert not list(tmp_path.glob(".*"))
