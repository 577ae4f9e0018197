from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.errors import DatasetError
from crnn.evaluation.evaluate import evaluate
from crnn.evaluation.report import modelzoo
from crnn.offline.bins import prepare_words, prepared_words
from crnn.offline.infer import encode, infer
from crnn.offline.labels import read_labels, write_labels
from crnn.offline.results import find_folder
from crnn.offline.score import Scored, evaluate_bins, score_results
from crnn.spec import DELIVERABLE

Output = Callable[[Sequence[str], int], NDArray[np.float32]]
TEXTS = ["hello", "world", "550", "bookkeeper", "a", "", "zz9"]


@pytest.fixture
def folder(output_for: Output, tmp_path: Path) -> Path:
    """One word a file, as benchmark leaves them, with their labels in label.txt."""
    path = tmp_path / "result"
    path.mkdir()
    logp = output_for(TEXTS, 0)
    for n in range(len(TEXTS)):
        (path / f"test_{n + 1}_1.bin").write_bytes(logp[:, n].tobytes())
    labels = ["hello", "w:orld", "550", "bookeeper", "a", "x", "zz9"]
    write_labels(tmp_path / "label.txt", {f"test_{n + 1}.bin": label for n, label in enumerate(labels)})
    return path


def texts(scored: Scored) -> list[str]:
    return [word["text"] for word in scored.report["datasets"][0]["words"]]


def test_words_are_matched_by_name(folder: Path, tmp_path: Path) -> None:
    scored = score_results(folder, tmp_path / "label.txt")
    assert texts(scored) == TEXTS
    (data,) = scored.report["datasets"]
    assert [word["key"] for word in data["words"]] == [f"test_{n}.bin" for n in range(1, 8)]
    assert [word["label"] for word in data["words"]][1] == "world"  # the colon is no letter or digit
    assert scored.report["overall"]["accuracy"] == 5 / 7
    assert data["words_per_second"] is None
    assert scored.complete and not scored.extra
    assert "does not say which model" in scored.notes[0]


def test_raw_compares_as_the_original_did(folder: Path, tmp_path: Path) -> None:
    scored = score_results(folder, tmp_path / "label.txt", protocol="raw")
    assert scored.report["protocol"] == "raw"
    assert scored.report["datasets"][0]["words"][1]["label"] == "w:orld"
    assert scored.report["overall"]["accuracy"] == 4 / 7


@pytest.mark.parametrize("dump", ["", "dumpOutput_device0", "dumpOutput_device7"])
@pytest.mark.parametrize("form", ["bin", "txt", "npy"])
@pytest.mark.parametrize("naming", ["benchmark", "ais_bench"])
def test_every_form_any_batch(naming: Any, form: Any, dump: str, output_for: Output, tmp_path: Path) -> None:
    """Random words, cut into files of one or several: the texts come back in the labels' order."""
    random = np.random.default_rng(3)
    alphabet = list(DELIVERABLE.charset.symbols)
    words = ["".join(random.choice(alphabet, random.integers(1, 13))) for _ in range(23)]
    names = [f"test_{i}.bin" for i in range(1, 24)]
    write_labels(tmp_path / "label.txt", dict(zip(names, words, strict=True)))
    logp = output_for(words, 4)
    for batch in (1, 5, 23):
        folder = tmp_path / f"result{batch}" / dump
        folder.mkdir(parents=True)
        for start in range(0, 23, batch):
            piece = np.ascontiguousarray(logp[:, start : start + batch])
            index = 1 if naming == "benchmark" else 0
            (folder / f"test_{start + 1}_{index}.{form}").write_bytes(encode(piece, naming, form))
        scored = score_results(tmp_path / f"result{batch}", tmp_path / "label.txt")
        assert texts(scored) == words
        assert scored.report["overall"]["accuracy"] == 1


def test_missing_extra_and_malformed_are_listed(folder: Path, tmp_path: Path) -> None:
    good = (folder / "test_1_1.bin").read_bytes()
    (folder / "test_1_1.bin").unlink()
    (folder / "test_2_1.bin").write_bytes(good[:100])
    (folder / "test_3_1.bin").write_bytes(b"")
    (folder / "test_4_1.bin").rename(folder / "test_44_1.bin")
    nan = np.frombuffer(good, np.float32).copy()
    nan[5] = np.nan
    (folder / "test_5_1.bin").write_bytes(nan.tobytes())
    (folder / "perf.txt").write_text("no result")
    scored = score_results(folder, tmp_path / "label.txt")
    assert scored.missing == ("test_1.bin", "test_4.bin")
    assert scored.malformed == ("test_2.bin", "test_3.bin", "test_5.bin")
    assert scored.extra == ("test_44_1.bin",)
    assert not scored.complete
    (data,) = scored.report["datasets"]
    assert (data["used"], data["total"]) == (2, 7)
    reasons = {word["key"]: word["reason"] for word in data["skipped"]}
    assert "100 bytes are no whole words of 3,848" in reasons["test_2.bin"]
    assert reasons["test_3.bin"] == "empty"
    assert reasons["test_5.bin"] == "holds NaN or infinity"
    assert reasons["test_1.bin"] == reasons["test_4.bin"] == "missing"


def test_files_that_cannot_be_results(folder: Path, tmp_path: Path) -> None:
    (folder / "test_1_1.bin").unlink()
    np.save(folder / "test_1_1.npy", np.zeros((1, 26, 37), np.float32))
    (folder / "test_2_1.bin").unlink()
    (folder / "test_2_1.txt").write_text("1 2 three")
    (folder / "test_3_1.bin").unlink()
    np.save(folder / "test_3_1.npy", np.zeros((26, 1, 37), np.int32))
    (folder / "test_4_1.bin").unlink()
    (folder / "test_4_1.npy").write_bytes(np.lib.format.magic(1, 0) + b"\x10\0{'shape': (26, 1")
    (folder / "test_5_1.bin").write_bytes(np.full((26, 37), np.inf, np.float32).tobytes())
    (folder / "test_6_1.bin").write_bytes(np.full((26, 37), -np.inf, np.float32).tobytes())
    scored = score_results(folder, tmp_path / "label.txt")
    assert scored.malformed == tuple(f"test_{i}.bin" for i in range(1, 7))
    reasons = [word["reason"] for word in scored.report["datasets"][0]["skipped"]]
    assert reasons[0] == "float32[1, 26, 37] instead of [26, N, 37]"
    assert "three" in reasons[1]


def test_labels_that_the_protocol_empties_are_no_fault_of_the_results(folder: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "label.txt", {"test_1.bin": "hello", "test_2.bin": "!!"})
    scored = score_results(folder, tmp_path / "label.txt")
    assert scored.complete
    assert scored.report["overall"]["used"] == 1
    assert "nothing is left of the label '!!'" in scored.report["datasets"][0]["skipped"][0]["reason"]
    assert score_results(folder, tmp_path / "label.txt", protocol="raw").report["overall"]["used"] == 2


def test_float16_when_told_so(output_for: Output, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(np.frombuffer(path.read_bytes(), np.float32).astype(np.float16).tobytes())
    with pytest.raises(DatasetError, match="--dtype float16"):
        score_results(folder, tmp_path / "label.txt")
    scored = score_results(folder, tmp_path / "label.txt", dtype="float16")
    assert texts(scored) == TEXTS
    assert len(scored.notes) == 1  # rounded log-probabilities are not taken for logits


def test_logits_are_read_too(output_for: Output, folder: Path, tmp_path: Path) -> None:
    expected = score_results(folder, tmp_path / "label.txt").report["datasets"][0]["words"]
    for path in folder.iterdir():
        shift = np.arange(26, dtype=np.float32)[:, np.newaxis]
        path.write_bytes((np.frombuffer(path.read_bytes(), np.float32).reshape(26, 37) + shift).tobytes())
    scored = score_results(folder, tmp_path / "label.txt")
    words = scored.report["datasets"][0]["words"]
    assert [word["text"] for word in words] == TEXTS
    assert [word["confidence"] for word in words] == pytest.approx([word["confidence"] for word in expected], rel=1e-3)
    assert any("log-probabilities" in note for note in scored.notes)


def test_a_rounded_result_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    expected = [
        word["confidence"] for word in score_results(folder, tmp_path / "label.txt").report["datasets"][0]["words"]
    ]
    high = np.frombuffer((folder / "test_1_1.bin").read_bytes(), np.float32) + np.float32(0.01)
    (folder / "test_1_1.bin").write_bytes(high.tobytes())
    scored = score_results(folder, tmp_path / "label.txt")
    assert texts(scored) == TEXTS and len(scored.notes) == 1
    found = [word["confidence"] for word in scored.report["datasets"][0]["words"]]
    assert found[1:] == expected[1:] and found[0] == pytest.approx(expected[0], rel=1e-4)


def test_batches_must_be_as_many_words_as_labels(output_for: Output, folder: Path, tmp_path: Path) -> None:
    (folder / "test_7_1.bin").write_bytes(output_for(["one", "two"], 0).tobytes())
    with pytest.raises(DatasetError, match=r"7 files hold 8 words, but .*label\.txt has 7 labels"):
        score_results(folder, tmp_path / "label.txt")
    (folder / "test_1_1.bin").write_bytes(b"short")
    with pytest.raises(DatasetError, match=r"test_1_1\.bin: 5 bytes .* none behind it can be told"):
        score_results(folder, tmp_path / "label.txt")


def test_which_results_are_meant_must_be_clear(folder: Path, tmp_path: Path) -> None:
    (folder / "test_3_0.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"test_3_0\.npy and test_3_1\.bin are results of the same word"):
        score_results(folder, tmp_path / "label.txt")
    for k in (0, 1):
        (tmp_path / "both" / f"dumpOutput_device{k}").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds dumpOutput_device0 and dumpOutput_device1: results of several"):
        score_results(tmp_path / "both", tmp_path / "label.txt")
    (tmp_path / "both" / "dumpOutput_device0" / "odd.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match="no result file in this folder"):
        score_results(tmp_path / "both" / "dumpOutput_device0", tmp_path / "label.txt")
    with pytest.raises(DatasetError, match="none: cannot be opened"):
        score_results(tmp_path / "none", tmp_path / "label.txt")
    write_labels(tmp_path / "other.txt", {"x.bin": "a"})
    (folder / "test_3_0.npy").unlink()
    with pytest.raises(DatasetError, match="no word of 1 can be used; the first: missing"):
        score_results(folder, tmp_path / "other.txt")


def rounded(value: Any) -> Any:
    """A report's values without their last digits, which depend on how words were batched."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def test_one_report_whatever_was_read(
    bar_code: Callable[..., bytes], write_lmdb: Callable[..., Path], engine: Any, tmp_path: Path
) -> None:
    """The data set, its prepared words, and the results: the same words, figures and keys."""
    engine.spec = dataclasses.replace(DELIVERABLE, temperature=1.3)
    labels = ["Hello", "w0rld", "other", "it's"]
    path = write_lmdb(
        [(bar_code(text), label) for text, label in zip(["hello", "w0rld", "x", "its"], labels, strict=True)]
    )
    bins, names = tmp_path / "bins", tmp_path / "label.txt"
    prepare_words(path, bins, names, engine.spec)
    infer(prepared_words(bins), engine, tmp_path / "out", batch_size=3)
    whole = evaluate([path], engine)
    scored = [evaluate_bins(bins, names, engine, batch_size=3), score_results(tmp_path / "out", names)]
    for other in scored:
        assert rounded(other.report["overall"]) == rounded(whole["overall"])
        assert list(other.report) == list(whole)
        assert list(other.report["datasets"][0]) == list(whole["datasets"][0])
        parts = {"datasets": 0, "overall": 0, "measured": 0}  # results do not say where they were measured
        assert {**other.report, **parts} == {**whole, **parts}
        assert other.spec == engine.spec
        assert other.notes == ()
        assert json.loads(json.dumps(other.report)) == other.report
        for mine, word in zip(other.report["datasets"][0]["words"], whole["datasets"][0]["words"], strict=True):
            assert rounded({**mine, "key": 0}) == rounded({**word, "key": 0})
    assert modelzoo(whole, 37) == {
        "title": "Overall statistical evaluation",
        "value": [
            {"key": "Number of images", "value": "4"},
            {"key": "Number of classes", "value": "37"},
            {"key": "Top1 accuracy", "value": "75.00%"},
        ],
    }


def test_capitals_are_compared_where_the_model_writes_them(
    bar_code: Callable[..., bytes], write_lmdb: Callable[..., Path], engine: Any, tmp_path: Path
) -> None:
    engine.spec = dataclasses.replace(DELIVERABLE, charset=Charset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    bins, names = tmp_path / "bins", tmp_path / "label.txt"
    path = write_lmdb([(bar_code("ab1"), "AB1"), (bar_code("cd2"), "CD2"), (bar_code("x"), "!?")])
    prepare_words(path, bins, names, engine.spec)
    assert read_labels(names) == {"test_1.bin": "AB1", "test_2.bin": "CD2", "test_3.bin": "!?"}
    infer(prepared_words(bins), engine, tmp_path / "out", batch_size=2)
    for scored in (evaluate_bins(bins, names, engine), score_results(tmp_path / "out", names)):
        assert scored.report["protocol"] == "raw"
        assert texts(scored) == ["AB1", "CD2", "X"]
        assert scored.report["overall"]["accuracy"] == 2 / 3
    folded = score_results(tmp_path / "out", names, protocol="alnum36")
    assert (folded.report["protocol"], texts(folded)) == ("alnum36", ["ab1", "cd2"])


def test_bins_that_are_missing_or_odd(
    bar_code: Callable[..., bytes], write_lmdb: Callable[..., Path], engine: Any, tmp_path: Path
) -> None:
    words = ["one", "two", "three", "four"]
    bins, names = tmp_path / "bins", tmp_path / "label.txt"
    prepare_words(write_lmdb([(bar_code(text), text) for text in words]), bins, names, DELIVERABLE)
    (bins / "test_1.bin").rename(bins / "test_11.bin")
    (bins / "test_2.bin").write_bytes(b"short")
    scored = evaluate_bins(bins, names, engine)
    assert (scored.missing, scored.malformed, scored.extra) == (("test_1.bin",), ("test_2.bin",), ("test_11.bin",))
    assert texts(scored) == ["three", "four"]
    engine.spec = dataclasses.replace(DELIVERABLE, resampling="bilinear")
    with pytest.raises(DatasetError, match="prepared with resampling 'bicubic'"):
        evaluate_bins(bins, names, engine)


def test_results_of_two_runs_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    (tmp_path / "dumpOutput_device0").mkdir()
    assert find_folder(tmp_path) == tmp_path / "dumpOutput_device0"
    (tmp_path / "test_1_0.bin").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"dumpOutput_device0 and test_1_0\.bin: results of several runs"):
        find_folder(tmp_path)
