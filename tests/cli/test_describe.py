from __future__ import annotations

import hashlib
import json
from pathlib import Path

from typer.testing import CliRunner

from crnn.cli import app
from crnn.engines import bundled_model
from crnn.spec import ModelSpec
from crnn.training.checkpoints import save_weights
from crnn.training.network import CRNN


def test_the_bundled_model() -> None:
    done = CliRunner().invoke(app, ["describe", "--engine", "onnxruntime"])
    assert done.exit_code == 0, done.output
    lines = {line[:14].strip(): line[14:] for line in reversed(done.stdout.splitlines())}
    assert lines["model"].startswith(str(bundled_model()))
    assert lines["sha256"] == hashlib.sha256(bundled_model().read_bytes()).hexdigest()
    assert lines["characters"] == "36: 0123456789abcdefghijklmnopqrstuvwxyz"
    assert lines["input"].startswith("actual_input_1, N x 1 x 32 x 100 gray, resized bicubic")
    assert lines["output"] == "output1, 26 x N x 37 log-probabilities"
    assert lines["int8"] == "ranges beside it" and lines["licence"] == "Apache-2.0" and lines["lineage"]


def test_as_json_and_without_what_is_not_said(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", CRNN().state_dict(), ModelSpec(lineage=("a\x1b[2J", "b")))
    command = ["describe", "--model", str(tmp_path / "w.safetensors"), "--engine", "torch"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.stdout and "a\\x1b[2J\n              b\n" in done.stdout
    assert "licence       not said" in done.stdout and "no ranges beside it" in done.stdout
    facts = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert facts["spec"] == json.loads(ModelSpec(lineage=("a\x1b[2J", "b")).to_json())
    assert facts["int8"] is False and facts["engine"]["name"] == "torch"


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    done = CliRunner().invoke(app, ["describe", "--model", str(tmp_path / "x.onnx")])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "x.onnx" in done.stderr
