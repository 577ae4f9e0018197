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
from tests.doubles.cann import FakeCannFactory
from typer.testing import CliRunner, Result

import crnn
from crnn import engines
from crnn.cli import app
from crnn.engines import bundled_model, probe


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
import socket, sys
def refused(*_, **__): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
sys.argv = ["crnn", "doctor"]
from crnn.__main__ import main
main()
"""


def test_offline_and_without_what_is_slow_to_import() -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", OFFLINE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "numpy" in imported and not imported & {"torch", "cv2", "ray", "tensorboard", "matplotlib"}


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


def doctor_with(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The doctor in another environment."""
    command = [sys.executable, "-m", "crnn", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_ascend_is_said_not_to_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", ())
    monkeypatch.setattr("crnn.engines.toolkit.driver", lambda: None)
    shown = run().stdout
    assert "Ascend            not here" in shown and "not yet run on hardware" in shown
    result = run("--require", "ascend")
    assert result.exit_code == 1
    for part in ("CANN: install the toolkit", "the driver: ", "set_env.sh"):
        assert part in result.stderr


def test_a_toolkit_where_one_may_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long stands for a folder of others': Path's methods raise for both, for root as well."""
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", (f"/{'x' * 5000}",))
    monkeypatch.setenv("ASCEND_HOME_PATH", f"/{'x' * 5000}")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/driver/{'x' * 5000}")
    result = run()
    assert result.exception is None and "Ascend            not here" in result.stdout


def test_ascend_is_required_and_there(fake_cann: FakeCannFactory) -> None:
    cann = fake_cann(files={"x86_64-linux/ascend_toolkit_install.info": "version=8.0.RC3\n"})
    done = doctor_with(cann.environment, "--require", "ascend", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["problems"]) == (0, [])
    assert report["engines"]["ascend"]["device"] == "Ascend310, device 0"
    assert report["ascend"]["toolkit"]["version"] == "8.0.RC3" and report["ascend"]["pyacl"]
    done = doctor_with({**cann.environment, "ASCEND_DEVICE_ID": "5"}, "--require", "ascend")
    assert done.returncode == 1 and "acl.rt.set_device failed with 107001" in done.stderr
    assert str(cann.atc) in done.stdout and "not yet run on hardware" in done.stdout


def test_what_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npu-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "npu-smi").chmod(0o755)
    (tmp_path / "acl.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.perf_counter()
    found = probe.ascend(seconds=0.3)
    assert found["npu_smi"] == {"error": "no answer in 0.3 s"}
    assert any("npu-smi does not work (no answer in 0.3 s)" in line for line in found["missing"])
    answer = probe.apart("crnn.engines.probe.start_device()", 3)
    assert answer == {"works": False, "error": "no answer in 3 s"}
    assert time.perf_counter() - began < 30
