from __future__ import annotations

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
from crnn.offline.labels import read_labels

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def test_files_labels_and_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(SAMPLE, "input_bin", "--info", "crnn.info")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "input_bin: 100 files, 1 x 32 x 100 float32 each" in result.stdout
    assert "label.txt: 100 labels; crnn.info" in result.stdout
    assert len(read_labels(Path("label.txt"))) == 100
    lines = Path("crnn.info").read_text().splitlines()
    assert (lines[1], lines[9]) == ("1 input_bin/test_2.bin 100 32", "9 input_bin/test_10.bin 100 32")
    assert "(100 were there)" in run(SAMPLE, "input_bin").stdout


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "words") as writer:
        for image, label in [(b"no picture", "x"), (LmdbReader(SAMPLE).image_bytes(0), "a\nb"), (b"", "!")]:
            writer.add(image, label)
    result = run(tmp_path / "words", tmp_path / "bins", "--labels", tmp_path / "label.txt")
    assert result.exit_code == 0
    assert "left out image-000000001: not a picture" in result.stderr
    assert "left out image-000000003: nothing is left of the label '!'" in result.stderr
    assert "image-000000002: a line break in its label was written as a space" in result.stderr
    assert result.stderr.endswith("crnn: 2 words left out, listed above with the reason\n")
    assert "bins: 1 file, " in result.stdout
    strict = run(tmp_path / "words", tmp_path / "bins", "--labels", tmp_path / "label.txt", "--strict")
    assert strict.exit_code == 2
    assert strict.stderr.startswith("crnn: ") and "--strict" in strict.stderr and strict.stderr.count("\n") == 1


def test_the_models_own_preparation(tmp_path: Path) -> None:
    weights = next((Path(crnn.__file__).parent / "weights").glob("*.onnx"))
    arguments = ("--labels", tmp_path / "label.txt", "--model", weights)
    assert run(SAMPLE, tmp_path / "bins", *arguments).exit_code == 0
    assert run(SAMPLE, tmp_path / "gray", *arguments, "--aipp", "gray").exit_code == 0
    assert (tmp_path / "bins" / "test_1.bin").stat().st_size == 12_800
    assert (tmp_path / "gray" / "test_1.bin").stat().st_size == 3_200


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["none", "bins"], "no such data set"),
        ([SAMPLE, "bins", "--labels", "none/label.txt"], "no such folder"),
        ([SAMPLE, "bins", "--npy", "--info", "x.info"], "--npy writes none"),
        ([SAMPLE, "bins", "--model", "none.onnx"], "no such model"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str | Path], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("crnn: ") and part in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_killed_run_leaves_no_short_file_and_goes_on(data_dir: Path, tmp_path: Path) -> None:
    bins, labels = tmp_path / "bins", tmp_path / "label.txt"
    arguments = [str(data_dir / "IIIT5K_train_lmdb"), str(bins), "--labels", str(labels)]
    kept = 0
    for goal in (50, 400):
        process = subprocess.Popen([sys.executable, "-m", "crnn", "prepare", *arguments], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while len(list(bins.glob("test_*.bin"))) < goal and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        files = list(bins.glob("test_*.bin"))
        assert goal <= len(files) < 1990
        assert {path.stat().st_size for path in files} == {12_800}
        assert not labels.exists()
        kept = len(files)
    result = run(*arguments)
    assert result.exit_code == 0
    assert f"1,990 files ({kept:,} were there)" in result.stdout
    assert not [name for name in os.listdir(bins) if ".tmp" in name]
    straight = tmp_path / "straight"
    run(arguments[0], straight, "--labels", tmp_path / "straight.txt")
    assert labels.read_bytes() == (tmp_path / "straight.txt").read_bytes()
    for name in os.listdir(straight):
        assert (bins / name).read_bytes() == (straight / name).read_bytes()
