from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

from crnn import __version__
from crnn.cli import app
from crnn.evaluation import tables

Draw = Callable[..., bytes]
Write = Callable[..., Path]

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "cv2"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import torch
except ImportError:
    pass
else:
    sys.exit("torch is not blocked")
from crnn.__main__ import main
sys.argv[0] = "crnn"
main()
"""


@pytest.fixture
def words(bar_code: Draw, write_lmdb: Write) -> Path:
    return write_lmdb(
        [
            (bar_code("hello"), "Hello!"),
            (bar_code("rang"), "range"),
            (bar_code("b"), "c"),
            (bar_code("torn", blur=3), "thorn"),
            (b"no picture", "x"),
        ]
    )


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["evaluate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_without_torch_and_cv2(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    command = [
        sys.executable,
        "-c",
        BLOCKED,
        "evaluate",
        str(words),
        "--model",
        str(bar_code_model),
        "--json",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "25.00%" in done.stdout
    report = json.loads(out.read_text("utf-8"))
    assert report["datasets"][0]["accuracy"] == 0.25
    done = subprocess.run([*command, "--engine", "torch"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "torch is blocked" in done.stderr and "pip install 'crnn[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_label_does_not_steer_the_terminal() -> None:
    word = {"key": "image-000000001", "label": "a\x1b[2Jb", "text": "ab[red]", "confidence": 0.5}
    console = Console(file=io.StringIO(), width=100)
    tables.show_errors(console, {"datasets": [{"path": "some", "words": [word]}]}, 1)
    shown = cast(io.StringIO, console.file).getvalue()
    assert "\x1b" not in shown and "a<U+001B>[2Jb" in shown and "ab[red]" in shown


def test_table_json_and_errors(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    code, stdout, _ = run(words, "--model", bar_code_model, "--json", out, "--errors", "2")
    assert code == 0
    assert "words_lmdb" in stdout and "25.00%" in stdout and "4/5" in stdout
    assert "dropped from the labels: 1 punctuation or symbol" in stdout
    assert "skipped image-000000005" in stdout and "not a picture" in stdout
    shown = stdout[stdout.index("surest errors") :]
    assert "range" in shown and " c " in shown
    assert "thorn" not in shown  # the network was less sure of it
    report = json.loads(out.read_text("utf-8"))
    assert report["measured"]["crnn"] == __version__ and report["measured"]["device"] == "CPU"
    assert report["measured"]["processor"]
    assert [word["text"] for word in report["datasets"][0]["words"]] == ["hello", "rang", "b", "torn"]
    assert sorted(os.listdir(tmp_path)) == ["r.json", "words_lmdb"]  # no temporary file


def test_strict(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    code, stdout, stderr = run(words, "--model", bar_code_model, "--json", out, "--strict")
    assert code == 1 and "25.00%" in stdout and "--strict: 1 word was skipped" in stderr and out.exists()
    assert run(words, "--model", bar_code_model, "--held-out", "--strict")[0] == 0


def test_calibration_in_the_table(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    code, stdout, _ = run(words, words, "--model", bar_code_model, "--json", out)
    assert code == 0
    report = json.loads(out.read_text("utf-8"))
    table = [re.split(r"\s{2,}", line.strip()) for line in stdout.splitlines()]
    (heading,) = (row for row in table if row[0] == "data set")
    rows = [row for row in table if row[0] in ("words_lmdb", "all")]
    assert [row[0] for row in rows] == ["words_lmdb", "words_lmdb", "all"]
    assert [row[1] for row in rows] == ["25.00%"] * 3
    figures = [data["ece"] for data in [*report["datasets"], report["overall"]]]
    assert [row[heading.index("ECE")] for row in rows] == [f"{ece:.3f}" for ece in figures]
    assert 0.4 < figures[0] < 0.75
    assert rows[2][-1] == "8/10"

    code, stdout, _ = run(words, "--model", bar_code_model, "--held-out")
    assert code == 0
    assert "held-out words" in stdout and "100.00%" in stdout and "1/1" in stdout
    assert "skipped image" not in stdout
    assert "  all " not in stdout


def test_a_foreign_model_is_pointed_out(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(bar_code_model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    code, stdout, stderr = run(words, "--model", tmp_path / "foreign.onnx")
    assert code == 0
    assert "25.00%" in stdout
    assert "foreign.onnx carries no crnn.spec" in stderr
    assert "crnn.spec" not in run(words, "--model", bar_code_model)[2]


def test_a_failed_run_leaves_the_old_report(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    out.write_text("old")
    assert run(words, tmp_path / "none", "--model", bar_code_model, "--json", out)[0] == 2
    assert out.read_text() == "old"


def test_errors_are_one_line(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "folder.json").mkdir()
    for arguments, part in [
        ((tmp_path / "none", "--model", bar_code_model), "no such data set"),
        ((words, "--model", tmp_path / "none.onnx"), "no such model"),
        ((words, "--model", tmp_path / "text.onnx"), "cannot load"),
        ((words, "--model", bar_code_model, "--engine", "magic"), "unknown engine 'magic'"),
        ((words, "--model", bar_code_model, "--json", tmp_path / "no" / "r.json"), "no such folder"),
        ((words, "--model", bar_code_model, "--json", tmp_path / "folder.json"), "cannot be written"),
    ]:
        code, _, stderr = run(*arguments)
        assert code == 2, arguments
        assert part in stderr
        assert stderr.startswith("crnn: ") and stderr.count("\n") == 1
    assert not [name for name in os.listdir(tmp_path) if ".tmp" in name]
