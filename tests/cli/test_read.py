from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import crnn
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader
from crnn.protocols import alnum36

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"
COUNT = 6


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["read", *map(str, arguments)], input=stdin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Real words as files, in a folder that is the current one."""
    path = tmp_path / "words"
    path.mkdir()
    reader = LmdbReader(SAMPLE)
    for i in range(COUNT):
        (path / f"{i}.png").write_bytes(reader.image_bytes(i))
    return path


@pytest.fixture
def broken(folder: Path) -> Path:
    """One picture of them is damaged, one is no picture."""
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    (folder / "4.png").write_text("no picture")
    return folder


def test_plain_lines_into_a_pipe(folder: Path) -> None:
    result = run(folder)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[2] for row in rows] == [f"{folder}/{i}.png" for i in range(COUNT)]
    assert all(0 <= float(row[1]) <= 1 for row in rows)
    reader = LmdbReader(SAMPLE)
    assert sum(row[0] == alnum36(reader.label(i)) for i, row in enumerate(rows)) >= COUNT / 2


def test_every_format_says_the_same(folder: Path, tmp_path: Path) -> None:
    plain = [line.split("\t") for line in run(folder).stdout.splitlines()]
    array = json.loads(run(folder, "--json").stdout)
    lines = [json.loads(line) for line in run(folder, "--jsonl").stdout.splitlines()]
    table = list(csv.DictReader(io.StringIO(run(folder, "--csv").stdout)))
    assert array == lines
    assert [(each["text"], each["source"]) for each in array] == [(row[0], row[2]) for row in plain]
    assert [(each["text"], each["source"]) for each in table] == [(row[0], row[2]) for row in plain]
    assert [float(each["confidence"]) for each in table] == [each["confidence"] for each in array]
    for each in array:
        assert "".join(it["character"] for it in each["characters"]) == each["text"]
    for suffix, kind in ((".jsonl", "--jsonl"), (".csv", "--csv")):
        result = run(folder, "--out", tmp_path / f"out{suffix}")
        assert (result.exit_code, result.stdout) == (0, "")
        assert (tmp_path / f"out{suffix}").read_text() == run(folder, kind).stdout


def test_standard_input_lists_lmdb_and_tar(folder: Path, tmp_path: Path) -> None:
    texts = [line.split("\t")[0] for line in run(folder).stdout.splitlines()]
    assert run("-", stdin=(folder / "0.png").read_bytes()).stdout.split("\t")[0] == texts[0]
    paths = "".join(f"{folder}/{i}.png\n" for i in range(COUNT)).encode()
    (tmp_path / "list.txt").write_bytes(paths)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(folder, "words")
    expected = sorted(texts)  # an archive keeps the folder's own order
    for result in (
        run("--list", tmp_path / "list.txt"),
        run("--list", "-", stdin=paths),
        run("-", stdin=archive.getvalue()),
    ):
        assert result.exit_code == 0
        assert sorted(line.split("\t")[0] for line in result.stdout.splitlines()) == expected
    lines = run(SAMPLE).stdout.splitlines()
    assert len(lines) == len(LmdbReader(SAMPLE))
    assert [line.split("\t")[0] for line in lines[:COUNT]] == texts


def test_what_is_skipped_is_named_and_counted(broken: Path, tmp_path: Path) -> None:
    result = run(broken, tmp_path / "gone.png")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == COUNT - 2
    first, second, third, last = result.stderr.splitlines()
    assert first.startswith(f"crnn: {broken}/2.png: ") and second.startswith(f"crnn: {broken}/4.png: not a picture")
    assert third == f"crnn: {tmp_path}/gone.png: cannot be opened (No such file or directory)"
    assert last.startswith(f"crnn: {COUNT - 2} read, 3 skipped: 1 ")
    assert "1 cannot be opened" in last


def test_min_confidence_leaves_out_and_says_so(folder: Path) -> None:
    words = json.loads(run(folder, "--json").stdout)
    middle = sorted(word["confidence"] for word in words)[COUNT // 2]
    result = run(folder, "--json", "--min-confidence", str(middle - 1e-6))
    kept = [word for word in words if word["confidence"] > middle - 1e-6]
    assert json.loads(result.stdout) == kept
    assert result.exit_code == 0
    assert f"{COUNT - len(kept)} words less probable" in result.stderr


def test_words_that_are_most_probably_others_are_left_out(folder: Path, tmp_path: Path) -> None:
    read = [word["text"] for word in json.loads(run(folder, "--json").stdout)]
    (tmp_path / "list.txt").write_text(f"{read[0]}\nzzzzzzzz\n", encoding="utf-8")
    command = (folder, "--json", "--lexicon", tmp_path / "list.txt")
    everything = json.loads(run(*command).stdout)
    assert len(everything) == COUNT and everything[0]["kept"] > 0.01
    result = run(*command, "--min-kept", "0.01")
    kept = [word for word in everything if word["kept"] >= 0.01]
    assert json.loads(result.stdout) == kept and 0 < len(kept) < COUNT
    assert f"{COUNT - len(kept)} words that keep less than 0.01 of the probability were left out" in result.stderr
    refused = run(folder, "--min-kept", "0.01")
    assert refused.exit_code == 2 and "--min-kept belongs to --lexicon or --characters" in refused.stderr


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_out_goes_on_where_it_was(broken: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert run(broken, "--out", out).exit_code == 1
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) * 2 // 3])  # killed in the middle of a line
    result = run(broken, "--out", out)
    assert "were there already" in result.stderr
    assert out.read_bytes() == whole
    for name in ("2.png", "4.png"):  # the damaged ones are replaced, and only they are read
        (broken / name).write_bytes((broken / "0.png").read_bytes())
    result = run(broken, "--out", out)
    assert (result.exit_code, out.read_bytes()[: len(whole)]) == (0, whole)
    assert f"2 words added ({COUNT - 2} were there already)" in result.stderr
    assert out.read_bytes().count(b".png") == COUNT


def test_out_is_not_gone_on_with_by_another_reader(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("open\nstreet\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    picture = folder / "0.png"
    command = ("--out", out, "--engine", "onnxruntime", "--precision", "float32")
    assert run(picture, *command).exit_code == 0
    written = out.read_bytes()
    for more, what in ((["--lexicon", tmp_path / "list.txt"], "lexicon"), (["--precision", "int8"], "precision")):
        refused = run(folder, *command, *more)
        assert refused.exit_code == 2 and f"read with another {what}: give the same" in refused.stderr
        assert out.read_bytes() == written
    (tmp_path / ".out.jsonl.made_by.json").write_text("[]", encoding="utf-8")  # no facts of ours
    assert run(picture, *command).exit_code == 0
    (tmp_path / ".out.jsonl.made_by.json").unlink()  # as an older file: gone on with, and remembered from now on
    assert f"{COUNT - 1} words added (1 were there already)" in run(folder, *command).stderr
    assert "another precision" in run(folder, *command, "--precision", "int8").stderr


KILLED = """
import os, sys
from crnn import outputs
add, count = outputs.ResultFile.add, 0
def dies(self, word):
    global count
    count += 1
    if count == 30:  # half a line has reached the disk
        self._file.write(self._line(word)[:25]); self._file.flush()
        os.kill(os.getpid(), 9)
    add(self, word)
outputs.ResultFile.add = dies
sys.argv = ["crnn", "read", sys.argv[1], "--out", sys.argv[2]]
from crnn.__main__ import main; main()
"""


def test_a_killed_run_is_completed(tmp_path: Path) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(SAMPLE), str(out)], capture_output=True)
    assert done.returncode == -9
    assert out.read_bytes().count(b"\n") == 29 and not out.read_bytes().endswith(b"\n")
    assert "71 words added (29 were there already)" in run(SAMPLE, "--out", out).stderr
    run(SAMPLE, "--out", whole)
    sources = [json.loads(line)["source"] for line in out.read_text().splitlines()]
    assert sources == [json.loads(line)["source"] for line in whole.read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "name pictures"),
        (["-", "--list", "-"], "only once"),
        (["a.png", "--json", "--csv"], "--json and --csv exclude each other"),
        (["a.png", "--json", "--out", "a.csv"], "--json and --out exclude each other"),
        (["a.png", "--out", "a.txt"], ".jsonl or .csv"),
        (["--list", "gone.txt"], "gone.txt: cannot be opened"),
        (["a.png", "--engine", "abacus"], "abacus"),
        (["a.png", "--model", "gone.onnx"], "gone.onnx"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert part in result.stderr and len(result.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_pixel_limit(tmp_path: Path) -> None:
    Image.new("L", (300, 100), 200).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--pixel-limit", "29999").exit_code == 1
    assert run(tmp_path / "a.png", "--pixel-limit", "30000").exit_code == 0


def test_names_that_are_no_text(folder: Path) -> None:
    name = os.fsdecode(bytes(folder) + b"/\xff\n.png")
    try:
        os.rename(folder / "0.png", name)
    except OSError:
        pytest.skip("this file system allows valid text only")
    for form in ([], ["--json"], ["--jsonl"], ["--csv"]):
        result = run(folder, *form)
        assert result.exit_code == 0
    assert json.loads(run(name, "--json").stdout)[0]["source"] == name


def on_a_terminal(*arguments: str | Path) -> tuple[int, str]:
    """The real command with a terminal as its output; its exit status and what it showed."""
    pty: Any = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "crnn", "read", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "400"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side has gone
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode()


def test_table_on_a_terminal(broken: Path) -> None:
    status, shown = on_a_terminal(broken)
    assert status == 1
    assert "text" in shown and "confidence" in shown and "source" in shown
    assert f"{broken}/0.png" in shown and "\t" not in shown
    assert "2 skipped" in shown


def test_the_same_lexicon_by_another_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("open\nstreet\n", encoding="utf-8")
    for name in ("list.txt", "./list.txt", str(tmp_path / "list.txt")):
        assert run(folder / "0.png", "--out", "out.csv", "--lexicon", name).exit_code == 0
