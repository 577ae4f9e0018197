from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import crnn
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.offline.bins import prepare_words
from crnn.spec import DELIVERABLE

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"
COUNT = 5


def run(command: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared words in input_bin, in the current folder."""
    monkeypatch.chdir(tmp_path)
    reader = LmdbReader(SAMPLE)
    with LmdbWriter("words") as writer:
        for i in range(COUNT):
            writer.add(reader.image_bytes(i), reader.label(i))
    prepare_words("words", Path("input_bin"), Path("label.txt"), DELIVERABLE)
    return tmp_path


def test_as_benchmark(folder: Path) -> None:
    result = run("infer", "input_bin", "--engine", "onnxruntime", "--batch", "2", "--device", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("[e2e] throughputRate: ")
    assert "result/dumpOutput_device1: 5 results\n" in result.stdout
    names = sorted(os.listdir("result/dumpOutput_device1"))
    assert names == ["crnn-infer.json", *(f"test_{i}_1.bin" for i in range(1, COUNT + 1))]
    assert {os.path.getsize(f"result/dumpOutput_device1/{name}") for name in names[1:]} == {3848}
    assert Path("result/perf_vision_batchsize_2_device_1.txt").read_text() in result.stdout
    again = run("infer", "input_bin", "--engine", "onnxruntime", "--device", "1")
    assert "5 results (5 were there)" in again.stdout and "nothing was measured" in again.stdout


def test_as_ais_bench_from_a_list(folder: Path) -> None:
    run("info", "bin", "input_bin", "crnn.info", "100", "32")
    arguments = ("--info", "crnn.info", "--engine", "onnxruntime", "--naming", "ais_bench", "--format", "npy")
    result = run("infer", *arguments, "--out", "out/run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "[INFO] NPU_compute_time (ms): min = " in result.stdout
    assert sorted(os.listdir("out")) == ["run", "run_summary.json"]
    summary = json.loads(Path("out/run_summary.json").read_text())
    assert summary["args"]["engine"] == "onnxruntime"
    assert [files["outfiles"] for files in summary["filesinfo"].values()] == [
        [f"out/run/test_{i}_0.npy"] for i in range(1, COUNT + 1)
    ]


def test_prepared_words_evaluated(folder: Path) -> None:
    expected = run("evaluate", "words", "--engine", "onnxruntime", "--json", "whole.json")
    assert expected.exit_code == 0
    arguments = ("--bins", "input_bin", "--labels", "label.txt", "--engine", "onnxruntime", "--precision", "float32")
    assert run("evaluate", *arguments, "--threads", "1", "--json", "result").exit_code == 0
    accuracy = json.loads(Path("whole.json").read_text())["overall"]["accuracy"]
    assert json.loads(Path("result.json").read_text())["overall"]["accuracy"] == accuracy
    assert run("evaluate", *arguments, "--json", "zoo.txt", "--schema", "modelzoo").exit_code == 0
    values = json.loads(Path("zoo.txt").read_text())["value"]
    assert values[0] == {"key": "Number of images", "value": str(COUNT)}
    assert values[2] == {"key": "Top1 accuracy", "value": f"{accuracy:.2%}"}
    os.unlink("input_bin/test_2.bin")
    incomplete = run("evaluate", *arguments)
    assert incomplete.exit_code == 1
    assert "skipped test_2.bin: missing" in incomplete.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["infer"], "--info FILE"),
        (["infer", "input_bin", "--info", "crnn.info"], "--info FILE"),
        (["infer", "words"], "no .bin or .npy file"),
        (["infer", "--info", "none.info", "--engine", "onnxruntime"], "none.info: cannot be read"),
        (["infer", "input_bin", "--engine", "onnxruntime", "--precision", "int3"], "int3"),
        (["infer", "input_bin", "--model", "none.onnx"], "no such model"),
        (["evaluate"], "takes data sets, or --bins"),
        (["evaluate", "words", "--bins", "input_bin"], "takes data sets, or --bins"),
        (["evaluate", "words", "--labels", "label.txt"], "--labels belongs to --bins"),
        (["evaluate", "--bins", "input_bin", "--held-out"], "--held-out is for data sets"),
    ],
)
def test_errors_are_one_line(arguments: list[str], part: str, folder: Path) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith("crnn: ") and part in result.stderr
    assert not Path("result").exists()


def test_a_killed_run_leaves_no_short_file_and_goes_on(tmp_path: Path) -> None:
    bins, out = tmp_path / "bins", tmp_path / "out"
    prepare_words(SAMPLE, bins, tmp_path / "label.txt", DELIVERABLE)
    arguments = ["infer", str(bins), "--out", str(out), "--engine", "onnxruntime", "--batch", "2", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "crnn", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    folder = out / "dumpOutput_device0"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("test_*_1.bin"))) < 7 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    files = list(folder.glob("test_*_1.bin"))
    assert 7 <= len(files) < 100
    assert {path.stat().st_size for path in files} == {3848}
    assert not list(out.glob("perf*"))
    result = run(*arguments)
    assert result.exit_code == 0
    assert f"100 results ({len(files)} were there)" in result.stdout
    assert len(list(folder.glob("test_*_1.bin"))) == 100
    assert not [name for name in os.listdir(folder) if ".tmp" in name]
