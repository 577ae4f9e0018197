from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from crnn.cli import app
from crnn.spec import DELIVERABLE


def result_of(text: str) -> bytes:
    """A result file whose best path spells ``text``."""
    path = [k for index in DELIVERABLE.charset.encode(text) for k in (index, 0)]
    logits = np.zeros((26, 37), np.float32)
    logits[np.arange(26), (path + [0] * 26)[:26]] = 9
    data: bytes = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32).tobytes()
    return data


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What benchmark leaves of four words, one of them wrong, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("result/dumpOutput_device1").mkdir(parents=True)
    labels = ["four", "words", "x-ray", "wrong"]
    Path("label.txt").write_text("".join(f"test_{i}.bin:{label}\n" for i, label in enumerate(labels, 1)))
    for i, text in enumerate(["four", "words", "xray", "vvrong"], 1):
        Path(f"result/dumpOutput_device1/test_{i}_1.bin").write_bytes(result_of(text))


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["score", *arguments])


def test_what_the_original_printed(tmp_path: Path) -> None:
    result = run("result", "label.txt", "--misses", "--errors", "1")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "label:wrong  pred:vvrong"
    start = lines.index("*" * 50)
    assert lines[start + 1 : start + 5] == ["rightNum: 3", "totalNum: 4", "accuracy_rate: 75.00", "*" * 50]
    assert "surest errors" in result.stdout
    assert "does not say which model it is of" in result.stderr


def test_raw() -> None:
    assert "rightNum: 2" in run("result", "--protocol", "raw").stdout


def test_json() -> None:
    assert run("result", "--json", "ours").exit_code == 0
    report = json.loads(Path("ours.json").read_text())
    assert (report["schema"], report["model"], report["overall"]["accuracy"]) == ("crnn.evaluation/1", None, 0.75)
    assert run("result", "--json", "zoo.out", "--schema", "modelzoo").exit_code == 0
    zoo = json.loads(Path("zoo.out").read_text())
    assert zoo["title"] == "Overall statistical evaluation"
    assert zoo["value"][2] == {"key": "Top1 accuracy", "value": "75.00%"}


def test_a_report_does_not_take_the_place_of_a_models_description() -> None:
    Path("crnn.json").write_text('{"schema": "crnn.om/1", "crnn.spec": {}}')
    result = run("result", "--json", "crnn")
    assert result.exit_code == 2 and "crnn.json: says what was compiled into crnn.om" in result.stderr
    assert json.loads(Path("crnn.json").read_text())["schema"] == "crnn.om/1"
    Path("crnn.json").unlink()
    assert run("result", "--json", "crnn").exit_code == run("result", "--json", "crnn").exit_code == 0


def test_incomplete_results_fail() -> None:
    Path("result/dumpOutput_device1/test_1_1.bin").unlink()
    Path("result/dumpOutput_device1/test_2_1.bin").write_bytes(b"short")
    Path("result/dumpOutput_device1/test_9_1.bin").write_bytes(result_of("nine"))
    result = run("result", "--json", "r.json")
    assert result.exit_code == 1
    assert "skipped test_1.bin: missing" in result.stdout
    assert "skipped test_2.bin: 5 bytes are no whole words of 3,848 bytes" in result.stdout
    assert "without a label: test_9_1.bin" in result.stdout
    assert result.stderr.endswith("crnn: 1 missing, 1 malformed: 2 of 4 labels were scored\n")
    assert json.loads(Path("r.json").read_text())["overall"]["used"] == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["none"], "none: cannot be opened"),
        (["result", "none.txt"], "none.txt: cannot be read"),
        (["result", "--json", "none/r.json"], "no such folder"),
        (["result", "--model", "none.onnx"], "no such model"),
    ],
)
def test_errors_are_one_line(arguments: list[str], part: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("crnn: ") and part in result.stderr
