"""``crnn job`` on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.jobs.conftest import rows
from typer.testing import CliRunner

import crnn
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"
ENGINE = ["--engine", "onnxruntime", "--precision", "float32", "--threads", "1"]


def run(*arguments: object) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of ``crnn job``."""
    result = CliRunner().invoke(app, ["job", *map(str, arguments), *ENGINE])
    return result.exit_code, result.stdout, result.stderr


def test_it_reads_as_the_reader_does(tmp_path: Path) -> None:
    output = tmp_path / "out"
    status, out, err = run(SAMPLE, output, "--part", 40, "--with-characters")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"{output}: 100 words in 3 files"
    assert "100 read in " in out and "words/s, by onnxruntime " in out and "on CPU, float32" in out
    source = LmdbReader(SAMPLE)
    words = crnn.Reader(engine="onnxruntime", precision="float32", threads=1).read_many(
        crnn.Item(f"{SAMPLE}/{source.key(i)}", source.image_bytes(i)) for i in range(len(source))
    )
    for row, word in zip(rows(output), words, strict=True):
        assert (row["source"], row["text"], row["error"]) == (word.source, word.text, None)
        assert row["confidence"] == pytest.approx(word.confidence, abs=1e-4)
        assert "".join(each["character"] for each in row["characters"]) == word.text
        for each, character in zip(row["characters"], word.characters, strict=True):
            assert each["span"] == pytest.approx(character.span, abs=0.01)
    (output / "part-000001.parquet").unlink()
    status, out, _ = run(SAMPLE, output, "--part", 40, "--with-characters")
    assert status == 0 and "60 were there, 40 read in " in out
    status, out, _ = run(SAMPLE, output, "--part", 40, "--with-characters")
    assert status == 0 and "all of them were there" in out


def test_exit_statuses(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"nothing")
    output = tmp_path / "out"
    status, out, err = run(tmp_path / "in", output, "--max-errors", 1)
    assert (status, out) == (1, "")
    assert err == (
        "crnn: stopped: 2 of 2 pictures could not be read; the same command with a higher --max-errors goes on\n"
    )
    status, out, err = run(tmp_path / "in", output)
    assert (status, err) == (0, "") and out.startswith(f"{output}: 3 words in 1 files; 3 could not be read\n")
    status, out, err = run(tmp_path / "in", output, "--part", 7)
    assert (status, out, err.count("\n")) == (2, "", 1) and "another words a part (5000, not 7)" in err
    status, _, err = run(tmp_path / "in", output, "--address", "auto")
    assert status == 2 and "--address, --workers and --npus belong to --on ray" in err


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send there")
def test_ctrl_c_leaves_whole_files(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    picture = LmdbReader(SAMPLE).image_bytes(0)
    for i in range(3000):
        (source / f"{i:04}.png").write_bytes(picture)
    command = [sys.executable, "-m", "crnn", "job", source, tmp_path / "out", "--part", "10", *ENGINE]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "out" / "part-000001.parquet").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "crnn: stopped; the same command goes on\n")
    found = rows(tmp_path / "out")
    assert 20 <= len(found) < 3000 and len(found) % 10 == 0
    assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]


def test_without_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("crnn.jobs", "ray")):
            monkeypatch.delitem(sys.modules, name)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        status, _, err = run(SAMPLE, tmp_path / "out", "--on", "ray")
        assert (status, err) == (2, "crnn: --on ray needs ray: pip install 'crnn[jobs,ray]'\n")
    for name in list(sys.modules):
        if name.startswith("crnn.jobs"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    status, _, err = run(SAMPLE, tmp_path / "out")
    assert (status, err) == (2, "crnn: jobs need fsspec and pyarrow: pip install 'crnn[jobs]'\n")


def test_ray_is_not_loaded_unless_it_is_asked_for() -> None:
    code = "import sys, crnn.jobs.run; print('ray' in sys.modules, 'torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False False\n"
