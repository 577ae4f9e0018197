from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crnn.errors import OptionError
from crnn.outputs import CSV_HEADER, JsonArray, ResultFile, csv_line, json_line, plain_line
from crnn.word import Character, Word

ODD = [
    "a.png",
    'quote".png',
    "comma,.png",
    "line\nbreak.png",
    "tab\t.png",
    "ü.png",
    os.fsdecode(b"\xff.png"),
    "cr\r.png",
]


def word(source: str, text: str = "word") -> Word:
    return Word(text, 0.123456789, (Character("w", 0.98765, (1.26, 5.0)),), source)


@pytest.mark.parametrize("source", ODD)
def test_every_name_survives(source: str) -> None:
    assert json.loads(json_line(word(source))) == {
        "text": "word",
        "confidence": 0.123457,
        "source": source,
        "characters": [{"character": "w", "score": 0.9877, "span": [1.3, 5.0]}],
    }
    assert json_line(word(source)).count(b"\n") == 1
    (row,) = csv.reader(io.StringIO(csv_line(word(source)).decode(), newline=""))
    assert row == ["word", "0.123457", source.replace(os.fsdecode(b"\xff"), "\\udcff")]
    plain = plain_line(word(source)).decode()
    assert plain.startswith("word\t0.1235\t") and (plain.count("\t"), plain.splitlines()) == (2, [plain[:-1]])


def test_a_name_cannot_steer_the_terminal() -> None:
    assert plain_line(word("\x1b[31mred\u202e.png")) == b"word\t0.1235\t\\x1b[31mred\\u202e.png\n"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_array(count: int) -> None:
    out = io.BytesIO()
    array = JsonArray(out.write)
    for i in range(count):
        array.add(word(str(i)))
    array.finish()
    assert [each["source"] for each in json.loads(out.getvalue())] == [str(i) for i in range(count)]


def written(path: Path, sources: list[str]) -> list[str]:
    """What a run over ``sources`` adds."""
    added = []
    with ResultFile(path) as results:
        for source in sources:
            if results.claim(source):
                results.add(word(source))
                added.append(source)
    return added


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".CSV"])
def test_going_on_after_a_kill_at_any_byte(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    assert written(whole, ODD) == ODD
    assert written(whole, ODD) == []
    data = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        added = written(path, ODD)
        assert path.read_bytes() == data, cut
        assert added == ODD[len(ODD) - len(added) :]


def test_each_source_once(tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", ["x", "y", "x"]) == ["x", "y"]
    assert (tmp_path / "a.csv").read_bytes() == CSV_HEADER + b"word,0.123457,x\nword,0.123457,y\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"name,phone\nAnn,1\n"),
        ("a.csv", b"no newline at all"),
        ("a.csv", CSV_HEADER + b"a,b\n"),
        ("a.csv", CSV_HEADER + b"a,high,b\n"),
        ("a.csv", CSV_HEADER + b"\xff\xfe,0.5,b\n"),
        ("a.jsonl", b'{"source": 1, "text": "a"}\n'),
        ("a.jsonl", b'[]\n'),
        ("a.jsonl", b"precious notes"),
        ("a.jsonl", json_line(word("a")) + b"\0\0\0\0\n"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OptionError, match="was not written by crnn read"), ResultFile(path):
        pass
    assert path.read_bytes() == content


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for name, what in (("a.txt", "must end in"), ("gone/a.csv", "No such file"), ("folder.csv", "directory")):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        with pytest.raises(OptionError, match=what), ResultFile(tmp_path / name):
            pass


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no /dev/zero")
def test_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(OptionError, match="not a file"), ResultFile(tmp_path / "zero.csv"):
        pass


def test_a_huge_row_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV_HEADER + b'"' + b"x\n" * (3 << 20))
    with pytest.raises(OptionError, match="was not written by"), ResultFile(path):
        pass


FULL = """
import resource, sys
from crnn.errors import OptionError
from crnn.outputs import ResultFile
from crnn.word import Word
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with ResultFile(sys.argv[1]) as results:
        for i in range(5):
            results.add(Word("word", 0.5, (), "a.png"))
except OptionError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of another system")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "full.csv"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert done.stdout == f"{path}: cannot be written (File too large)\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_two_processes_do_not_write_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    with ResultFile(path) as first:
        first.add(word("a.png"))
        with pytest.raises(OptionError, match=r"words\.jsonl: another process is writing to it"), ResultFile(path):
            pass
        first.add(word("b.png"))
    with ResultFile(path) as second:
        assert second.sources == {"a.png", "b.png"}
