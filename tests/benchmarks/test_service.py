from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def run(file: Path, *options: object) -> tuple[str, dict[str, Any]]:
    always = ("--data", SAMPLE, "--engine", "onnxruntime", "--threads", 1, "--pictures", 20, "--json", file)
    command = [sys.executable, ROOT / "benchmarks" / "service.py", *always, *options]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


@pytest.mark.skipif(shutil.which("wrk") is None and "CI" not in os.environ, reason="no wrk")
def test_load(tmp_path: Path) -> None:
    printed, found = run(tmp_path / "service.json", "--clients", 8, "--seconds", 1, "--turns", 1)
    assert found["engine"]["name"] == "onnxruntime" and found["errors"] == 0
    (row,) = found["turns"]
    assert found["share"] == row["words_per_second"] / row["network"] > 0.05
    assert 0 < found["p50"] <= found["p99"] and found["p99_batches"] == row["p99"] / row["batch_seconds"]
    assert "8 clients: " in printed and "0 errors" in printed


def test_memory(tmp_path: Path) -> None:
    printed, found = run(tmp_path / "service.json", "--memory", 100)
    assert len(found["memory"]) == 10 and found["memory"][-1]["words"] == 640
    assert "640 words: " in printed
