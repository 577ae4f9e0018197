"""A few thousand cases of benchmarks/fuzz.py, and proof that it finds faults."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"


def load() -> Any:
    name = "crnn_benchmarks_fuzz"
    spec = importlib.util.spec_from_file_location(name, SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fuzz = load()


@pytest.fixture(scope="module")
def files(data_dir: Path) -> list[Any]:
    from crnn.datasets.lmdb import LmdbReader

    reader = LmdbReader(data_dir / "IIIT5K_lmdb")
    return list(fuzz.seeds([reader.image_bytes(i) for i in (0, 1000)]))


def test_thousands_of_mutants(data_dir: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--cases", "3000", "--seed", "3", "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CRNN_DATA": str(data_dir)})
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {line.split(maxsplit=1)[1]: int(line.split()[0].replace(",", "")) for line in done.stdout.splitlines()}
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "LMDB", "TAR"):
        assert counts[f"{kind} refused"] and counts[f"{kind} read"], kind  # deep enough, and not too deep
    assert "Traceback" not in done.stderr


def test_cases_can_be_repeated(files: list[Any]) -> None:
    cases = [fuzz.case(i, 5, files) for i in range(50)]
    assert cases == [fuzz.case(i, 5, files) for i in range(50)]
    assert cases != [fuzz.case(i, 6, files) for i in range(50)]
    originals = {file.data for file in files}
    assert sum(data in originals for data, _ in cases) < 10


def fine(mutant: bytes, kind: str, folder: Path) -> str:
    return "read"


def raises(mutant: bytes, kind: str, folder: Path) -> str:
    if len(os.listdir(folder)) == 3:
        raise KeyError("a fault")
    (folder / str(time.monotonic_ns())).touch()
    return "read"


def hangs(mutant: bytes, kind: str, folder: Path) -> str:
    time.sleep(600)
    return "read"


def crashes(mutant: bytes, kind: str, folder: Path) -> str:
    ctypes.string_at(0)
    return "read"


def swells(mutant: bytes, kind: str, folder: Path) -> str:
    return "read" if bytearray(b"x") * (1 << 29) else ""


# run as a script, because the processes that fuzz() starts have to be able to import the target
HARNESS = """
import sys
sys.path[:0] = [{scripts!r}, {tests!r}]
import fuzz, test_fuzz
if __name__ == "__main__":
    found = fuzz.fuzz([fuzz.Seed("BMP", bytes(99))], test_fuzz.{target}, cases=9, seconds={seconds}, megabytes=400)
    print(*(found or ["fine"]))
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("fine", "fine"),
        ("raises", "KeyError: 'a fault'"),
        ("hangs", "0 took more than 3 seconds"),
        ("crashes", f"0 the process died (exit status -{int(signal.SIGSEGV)})"),
        ("swells", "8 used "),
    ],
)
def test_faults_are_found(target: str, expected: str) -> None:
    seconds = 3 if target == "hangs" else 60
    folder = Path(__file__).parent
    code = HARNESS.format(scripts=str(SCRIPT.parent), tests=str(folder), target=target, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert expected in done.stdout, done.stdout + done.stderr[-2000:]
    if target == "raises":
        assert done.stdout.startswith("3 Traceback")


def test_the_command_survives_a_tar_of_mutants(files: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "mutants.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(300):
            data, _ = fuzz.case(i, 11, files)
            member = tarfile.TarInfo(f"{i:03}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    command = [sys.executable, "-m", "crnn", "read", str(path), "--out", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Warning:" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith(f"crnn: {path}/")]
    assert len(ours) + (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 300
