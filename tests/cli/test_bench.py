from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crnn.cli import app

QUICK = ("--seconds", "0.02", "--rounds", "2")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def test_every_choice_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    choices = ("--engine", "onnxruntime", "--engine", "torch", "--threads", "1")
    result = run(*QUICK, *choices, "--batch-size", "3", "--batch-size", "1", "--json", str(file))
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    measured = [(one["engine"], one["precision"], one["threads"], one["batch_size"]) for one in report["results"]]
    kinds = [("onnxruntime", "float32"), ("onnxruntime", "int8"), ("torch", "float32")]
    assert measured == [(*kind, 1, size) for kind in kinds for size in (1, 3)]
    for one in report["results"]:
        assert 0 < one["p50"] <= one["p99"] and one["calls"] >= 2
        low, high = one["spread"]
        assert low <= one["words_per_second"] <= high
        assert one["share"] is None or one["share"] > 0
        assert one["memory"] is None or one["memory"] > 30e6
    assert {one["library"] for one in report["products"]} >= {"numpy", "torch"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json"]
    for heading in ("words/s", "p50", "p99", "of peak", "torch"):
        assert heading in result.stdout
    assert "multiply-adds" in result.stdout
    assert "left out: the engine torch does not compute in bfloat16" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--engine", "abacus"), "crnn: unknown engine 'abacus'; choose one of: "),
        (
            ("--engine", "torch", "--precision", "int8"),
            "crnn: nothing to measure with torch: the engine torch does not",
        ),
        (("--model", "none.onnx"), "crnn: none.onnx: no such model"),
        (("--json", "none/bench.json"), "crnn: none/bench.json: there is no such folder"),
        (("--seconds", "nan"), "crnn: seconds must be a finite number above 0"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], line: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


def test_a_model_that_no_engine_can_load_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no network")
    result = run("--model", str(bad), "--engine", "onnxruntime", "--threads", "1")
    assert result.exit_code == 2
    assert str(bad) in result.stderr and result.stderr.count("\n") == 1


def test_no_worker_is_left_when_it_is_killed() -> None:
    command = [sys.executable, "-m", "crnn", "bench", "--engine", "onnxruntime", "--threads", "1", "--seconds", "60"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = ""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        if not children.exists():
            pytest.skip("this system does not list child processes")
        while not workers and parent.poll() is None:
            workers = children.read_text()
    finally:
        parent.kill()
        parent.wait()
    assert workers
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers.split()):
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {workers}")
