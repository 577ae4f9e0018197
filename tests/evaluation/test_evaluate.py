from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import onnxruntime
import pytest

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import open_engine
from crnn.errors import DatasetError, OptionError
from crnn.evaluation.calibration import calibration
from crnn.evaluation.evaluate import evaluate
from crnn.evaluation.metrics import wilson
from crnn.evaluation.report import most_confident_errors
from crnn.images import normalise, prepare

Draw = Callable[..., bytes]
Write = Callable[..., Path]


def test_the_report_is_the_schema_to_the_letter(bar_code: Draw, bar_code_model: Path, write_lmdb: Write) -> None:
    path = write_lmdb([(bar_code("hello"), "Hello!"), (bar_code("w0rld"), "world"), (bar_code("550"), "$5.50")])
    report = evaluate([path], open_engine(bar_code_model, "onnxruntime"), 2)
    keys = ["schema", "protocol", "subset", "model", "engine", "temperature", "measured", "datasets", "overall"]
    assert list(report) == keys
    assert report["schema"] == "crnn.evaluation/1"
    assert report["protocol"] == "alnum36"
    digest = hashlib.sha256(bar_code_model.read_bytes()).hexdigest()
    assert report["model"] == {"path": str(bar_code_model), "sha256": digest}
    version = onnxruntime.__version__
    assert report["engine"] == {"name": "onnxruntime", "version": version, "precision": "float32"}
    (data,) = report["datasets"]
    assert list(data) == [
        "path", "sha256", "accuracy", "interval", "ned", "cer", "ece", "calibration", "total", "used", "skipped",
        "words_per_second", "words",
    ]  # fmt: skip
    assert (report["subset"], report["temperature"]) == ("all", 1.0)
    assert report["overall"] == {key: data[key] for key in report["overall"]}
    assert list(report["overall"]) == [
        "accuracy", "interval", "ned", "cer", "ece", "calibration", "total", "used",
    ]  # fmt: skip
    assert [list(row) for row in data["calibration"]] == [["low", "high", "words", "confidence", "accuracy"]] * 15
    assert data["path"] == str(path)
    assert data["sha256"] == LmdbReader(path).sha256()
    assert data["accuracy"] == 2 / 3
    assert data["interval"] == list(wilson(2, 3))
    assert data["ned"] == pytest.approx(1 - 1 / 15)
    assert data["cer"] == pytest.approx(1 / 13)
    assert (data["total"], data["used"], data["skipped"]) == (3, 3, [])
    assert data["words_per_second"] > 0
    assert [list(word) for word in data["words"]] == [["key", "label", "text", "confidence"]] * 3
    assert [word["key"] for word in data["words"]] == [f"image-{i:09d}" for i in (1, 2, 3)]
    assert [word["label"] for word in data["words"]] == ["hello", "world", "550"]
    assert [word["text"] for word in data["words"]] == ["hello", "w0rld", "550"]
    assert json.loads(json.dumps(report)) == report


def test_confidence_is_the_ctc_probability(bar_code: Draw, bar_code_model: Path, write_lmdb: Write) -> None:
    path = write_lmdb([(bar_code("sure"), "sure"), (bar_code("torn", blur=3), "torn")])
    engine = open_engine(bar_code_model)
    sure, torn = evaluate([path], engine)["datasets"][0]["words"]
    pixels = np.stack([prepare(bar_code("sure"), engine.spec), prepare(bar_code("torn", blur=3), engine.spec)])
    logp = engine.run(normalise(pixels, engine.spec))
    expected = np.exp(ctc.log_probability(logp, ["sure", "torn"], engine.spec.charset))
    assert [sure["confidence"], torn["confidence"]] == pytest.approx(expected)
    assert sure["confidence"] > 0.9 > 0.4 > torn["confidence"] > 0


def test_what_cannot_be_used_is_skipped_with_its_reason_and_is_not_wrong(
    bar_code: Draw, bar_code_model: Path, write_lmdb: Write
) -> None:
    labels = ["good", "gone", "torn", "---", "odd", "wrong", "good"]
    path = write_lmdb([(bar_code("good"), label) for label in labels])
    with lmdb.open(str(path), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        transaction.delete(b"image-000000002")
        transaction.put(b"image-000000003", bar_code("good")[:90])
        transaction.put(b"label-000000005", b"\xe9")
    for batch_size in (1, 3, 64):
        (data,) = evaluate([path], open_engine(bar_code_model), batch_size)["datasets"]
        assert (data["total"], data["used"]) == (7, 3)
        assert data["accuracy"] == 2 / 3
        assert [word["key"][-1] for word in data["words"]] == ["1", "6", "7"]
        assert [(word["key"][-1], list(word)) for word in data["skipped"]] == [
            (key, ["key", "reason"]) for key in ("2", "3", "4", "5")
        ]
        parts = ("missing", "damaged", "nothing is left of the label '---'", "not UTF-8")
        assert all(part in word["reason"] for part, word in zip(parts, data["skipped"], strict=True))


def test_a_label_longer_than_the_network_can_write_counts_as_wrong(
    bar_code: Draw, bar_code_model: Path, write_lmdb: Write
) -> None:
    path = write_lmdb([(bar_code("ab"), "ab" * 20), (bar_code("ab"), "ab")])
    (data,) = evaluate([path], open_engine(bar_code_model))["datasets"]
    assert (data["used"], data["accuracy"]) == (2, 0.5)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_words_come_in_order_whatever_the_batch(
    bar_code: Draw, bar_code_model: Path, write_lmdb: Write, batch_size: int
) -> None:
    texts = [np.base_repr(1000 + 37 * i, 36).lower() for i in range(100)]
    path = write_lmdb([(bar_code(text), text) for text in texts])
    seen: list[tuple[str, int, int]] = []
    report = evaluate([path], open_engine(bar_code_model), batch_size, progress=lambda *values: seen.append(values))
    assert [word["text"] for word in report["datasets"][0]["words"]] == texts
    assert seen[-1] == (str(path), 100, 100)
    assert len(seen) == math.ceil(100 / batch_size)


def test_several_data_sets_and_a_twin(bar_code: Draw, bar_code_model: Path, write_lmdb: Write) -> None:
    first = write_lmdb([(bar_code("a"), "a")], "first")
    second = write_lmdb([(bar_code("b"), "c")], "second")
    report = evaluate([first, second, first], open_engine(bar_code_model))
    assert [data["accuracy"] for data in report["datasets"]] == [1, 0, 1]
    assert report["overall"]["accuracy"] == 2 / 3
    assert (report["overall"]["used"], report["overall"]["total"]) == (3, 3)
    assert report["overall"]["calibration"][-1]["words"] == 3


def test_held_out_words_only(bar_code: Draw, bar_code_model: Path, write_lmdb: Write) -> None:
    texts = [np.base_repr(1000 + 37 * i, 36).lower() for i in range(31)]
    labels = ["---" if i == 10 else "wrong" if i % 10 else text for i, text in enumerate(texts)]
    path = write_lmdb([(bar_code(text), label) for text, label in zip(texts, labels, strict=True)])
    seen: list[tuple[str, int, int]] = []
    report = evaluate([path], open_engine(bar_code_model), held_out=True, progress=lambda *each: seen.append(each))
    (data,) = report["datasets"]
    assert report["subset"] == "held-out"
    assert (data["accuracy"], data["used"], data["total"]) == (1, 3, 4)
    assert [word["text"] for word in data["words"]] == [texts[0], texts[20], texts[30]]
    assert [word["key"] for word in data["skipped"]] == ["image-000000011"]
    assert seen[-1] == (str(path), 4, 4)


def test_confidence_and_calibration_follow_the_temperature_of_the_spec(
    bar_code: Draw, bar_code_model: Path, write_lmdb: Write, with_temperature: Callable[[float], Path]
) -> None:
    words = [(bar_code("torn", blur=blur), label) for blur, label in [(0, "torn"), (2, "torn"), (3, "thorn")]]
    path = write_lmdb(words)
    cold, plain, hot = (evaluate([path], open_engine(with_temperature(value))) for value in (0.5, 1.0, 4.0))
    assert [report["temperature"] for report in (cold, plain, hot)] == [0.5, 1.0, 4.0]
    figures = [report["datasets"][0] for report in (cold, plain, hot)]
    (untouched,) = evaluate([path], open_engine(bar_code_model))["datasets"]
    assert figures[1]["words"] == untouched["words"]
    assert len({tuple(word["text"] for word in data["words"]) for data in figures}) == 1
    for sure, unsure in itertools.pairwise(figures):
        pairs = zip(sure["words"], unsure["words"], strict=True)
        assert all(a["confidence"] >= b["confidence"] for a, b in pairs)
        assert sure["words"][2]["confidence"] > unsure["words"][2]["confidence"]
    for data in figures:
        confidences = [word["confidence"] for word in data["words"]]
        expected = calibration(confidences, [True, True, False])
        assert data["ece"] == expected.ece
        assert sum(row["words"] for row in data["calibration"]) == 3


def test_errors(bar_code: Draw, bar_code_model: Path, write_lmdb: Write, tmp_path: Path) -> None:
    engine = open_engine(bar_code_model)
    fine = write_lmdb([(bar_code("a"), "a")], "fine")
    with pytest.raises(DatasetError, match="no such data set"):
        evaluate([fine, tmp_path / "typo"], engine)
    with pytest.raises(DatasetError, match=r"no word of 1 can be used; the first: .*not a picture"):
        evaluate([write_lmdb([(b"text", "a")], "pictureless")], engine)
    with pytest.raises(DatasetError, match="no word of 0"):
        evaluate([write_lmdb([], "empty")], engine)
    with pytest.raises(OptionError, match="batch size"):
        evaluate([fine], engine, 0)


def test_most_confident_errors() -> None:
    words = [
        {"key": "1", "label": "a", "text": "b", "confidence": 0.4},
        {"key": "2", "label": "a", "text": "a", "confidence": 0.99},
        {"key": "3", "label": "a", "text": "", "confidence": 0.9},
        {"key": "4", "label": "a", "text": "c", "confidence": 0.5},
    ]
    assert [word["key"] for word in most_confident_errors(words, 2)] == ["3", "4"]


def test_the_benchmark_is_used_to_the_last_word(bar_code_model: Path, data_dir: Path) -> None:
    (data,) = evaluate([data_dir / "IIIT5K_lmdb"], open_engine(bar_code_model))["datasets"]
    assert (data["total"], data["used"], data["skipped"]) == (3000, 3000, [])
    assert data["accuracy"] < 0.01  # it reads bar codes
