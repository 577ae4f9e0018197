from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.evaluation.test_evaluate_command import BLOCKED
from tests.evaluation.test_page import checked
from typer.testing import CliRunner

from crnn.cli import app

Draw = Callable[..., bytes]
Write = Callable[..., Path]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def words(bar_code: Draw, write_lmdb: Write) -> Path:
    return write_lmdb([(bar_code("hello"), "Hello!"), (bar_code("rang"), "range"), (bar_code("b"), "c")])


@pytest.fixture
def result(words: Path, bar_code_model: Path, tmp_path: Path) -> Path:
    model = shutil.copy(bar_code_model, tmp_path / "model.onnx")
    out = tmp_path / "result.json"
    assert run("evaluate", words, "--model", model, "--engine", "onnxruntime", "--json", out)[0] == 0
    return out


def test_a_page_without_torch_and_cv2(result: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    command = [sys.executable, "-c", BLOCKED, "report", str(result), "-o", str(page)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{page}: ") and " kB" in done.stdout
    found = checked(page.read_text("utf-8"))
    assert "model.onnx on words_lmdb" in found.text and "33.33%" in found.text
    assert len(found.all("image")) == 2
    assert not [name for name in os.listdir(tmp_path) if ".tmp" in name]


def test_what_has_changed_is_said_on_the_page_and_on_standard_error(
    result: Path, words: Path, bar_code: Draw, write_lmdb: Write, tmp_path: Path
) -> None:
    page = result.with_suffix(".html")
    assert run("report", result)[2] == ""
    assert len(checked(page.read_text("utf-8")).all("image")) == 2
    (tmp_path / "model.onnx").unlink()
    shutil.rmtree(words)
    write_lmdb([(bar_code("hello"), "Hello!"), (bar_code("rang"), "range")], words.name)
    code, _, stderr = run("report", result)
    lines = stderr.splitlines()
    assert code == 0 and len(lines) == 2 and all(line.startswith("crnn: ") for line in lines)
    assert "sha256" in lines[0] and "model is gone" in lines[1]
    found = checked(page.read_text("utf-8"))
    assert all(line.removeprefix("crnn: ") in found.text for line in lines)
    assert len(found.all("image")) == 1 and "no word image-000000003" in found.text
    assert run("report", result, "--worst", "0")[0] == 0
    assert not checked(page.read_text("utf-8")).all("article")


def test_compare(result: Path, words: Path, tmp_path: Path) -> None:
    better = json.loads(result.read_text("utf-8"))
    for word in better["datasets"][0]["words"]:
        word["text"] = word["label"] if word["label"] != "hello" else "h\x1b[31m"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(better), "utf-8")
    page, out = tmp_path / "c.html", tmp_path / "c"
    code, stdout, stderr = run("compare", result, other, "-o", page, "--json", out)
    assert (code, stderr) == (0, "")
    (row,) = (line.split() for line in stdout.splitlines() if line.startswith(" words_lmdb"))
    assert row[:4] == ["words_lmdb", "33.33%", "66.67%", "+33.33"] and row[-5:] == ["0", "1", "2", "0", "1.00"]
    assert "no difference beyond chance" in stdout
    assert "only A is right: 1 of 1" in stdout and "only B is right: 2 of 2" in stdout
    assert "\x1b" not in stdout
    found = json.loads(Path(f"{out}.json").read_text("utf-8"))
    assert [word["label"] for word in found["datasets"][0]["differing"]] == ["hello", "range", "c"]
    assert len(checked(page.read_text("utf-8")).all("image")) == 3
    shutil.rmtree(words)
    code, stdout, stderr = run("compare", result, other, "-o", page, "--words", "1")
    assert code == 0 and stderr.count("data set is gone") == 1 and "2 of 2" not in stdout
    assert not checked(page.read_text("utf-8")).all("image")


def test_errors_are_one_line(result: Path, words: Path, tmp_path: Path) -> None:
    fewer = json.loads(result.read_text("utf-8"))
    fewer["datasets"][0]["words"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(fewer), "utf-8")
    before = sorted(os.listdir(tmp_path))
    for arguments, part in [
        (("report", tmp_path / "none.json"), "cannot be read"),
        (("report", tmp_path), "cannot be read"),
        (("report", tmp_path / "model.onnx"), "not JSON"),
        (("report", result, "-o", tmp_path / "no" / "p.html"), "no such folder"),
        (("report", result, "-o", result), "is a result itself"),
        (("report", result, "--dataset", tmp_path / "typo"), "no such data set"),
        (("report", result, "--model", tmp_path / "typo.onnx"), "no such model"),
        (("compare", result, tmp_path / "fewer.json"), "has words that"),
        (("compare", result, result, "--json", result), "is a result itself"),
        (("compare", result, result, "--dataset", words), "name it with -o"),
    ]:
        code, _, stderr = run(*arguments)
        assert code == 2, arguments
        assert part in stderr
        assert stderr.startswith("crnn: ") and stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before
