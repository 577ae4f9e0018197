from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner, Result

import crnn
from crnn import engines
from crnn.cli import app
from crnn.engines import bundled_model


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_a_working_installation() -> None:
    result = run("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["problems"]) == (0, [])
    assert report["python"]["version"] == sys.version.split()[0]
    weights = report["weights"]
    assert weights["sha256"] == hashlib.sha256(bundled_model().read_bytes()).hexdigest()
    assert weights["bytes"] == bundled_model().stat().st_size
    assert report["reading"]["works"] and report["reading"]["right"] >= 4
    used = report["engines"][report["reading"]["engine"]]
    assert used["version"] and used["device"] == "CPU"
    assert report["processor"]["usable"] >= 1
    assert report["writable"]["temporary folder"]["works"]
    shown = run().stdout
    assert weights["sha256"] in shown and "reading" in shown and used["version"] in shown


OFFLINE = """
import socket, sys, time
def refused(*_, **__): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
sys.argv = ["crnn", "doctor"]
from crnn.__main__ import main
main()
"""


def test_offline_quick_and_without_torch() -> None:
    quickest = 60.0
    for _ in range(3):  # the machine may be busy with something else
        began, code = time.perf_counter(), OFFLINE.replace("import socket", "import resource, socket")
        done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
        quickest = min(quickest, time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert not any(line.endswith("| torch") for line in done.stderr.splitlines())
        if quickest < 2:
            break
    assert quickest < 2


def test_require() -> None:
    assert run("--require", "onnxruntime").exit_code == 0
    result = run("--require", "onnxruntime", "--require", "abacus")
    assert result.exit_code == 1
    assert (
        result.stderr
        == "crnn: --require abacus: there is no such engine; there are: " + ", ".join(engines.NAMES) + "\n"
    )


def test_a_required_engine_is_really_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # installed or not, it cannot be imported
    result = run("--require", "torch")
    assert result.exit_code == 1
    assert "--require torch: " in result.stderr and "pip install" in result.stderr


def doctor_of(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The doctor of a copy of the package."""
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); sys.argv = ['crnn', 'doctor', *{arguments!r}]\n"
    code += "from crnn.__main__ import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=package.parent)


@pytest.mark.parametrize("harm", ["missing", "truncated", "silent"])
def test_broken_weights_are_found(tmp_path: Path, harm: str) -> None:
    package = tmp_path / "crnn"
    shutil.copytree(Path(crnn.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    weights = package / "weights" / bundled_model().name
    data = weights.read_bytes()
    if harm == "missing":
        weights.unlink()
    elif harm == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    else:  # a network that loads and runs, and reads nonsense
        network = onnx.load(weights)
        for tensor in network.graph.initializer:
            if len(tensor.raw_data) > 100_000:
                tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(network, weights)
    done = doctor_of(package)
    assert done.returncode == 1
    assert done.stderr.startswith("crnn: reading does not work: ") and len(done.stderr.splitlines()) == 1
    report: dict[str, Any] = json.loads(doctor_of(package, "--json").stdout)
    assert not report["reading"]["works"] and report["problems"]
    if harm == "silent":
        assert "of the bundled sample are read right" in done.stderr


def test_no_place_to_write_does_not_hinder_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    result = run("--json")
    writable = json.loads(result.stdout)["writable"]
    assert result.exit_code == 0
    assert writable["current folder"]["works"] and not writable["temporary folder"]["works"]
