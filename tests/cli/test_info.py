from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from crnn.cli import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prepared words and a picture, in the current folder's input_bin."""
    monkeypatch.chdir(tmp_path)
    Path("input_bin").mkdir()
    for i in (10, 9):
        Path(f"input_bin/test_{i}.bin").write_bytes(b"")
    Image.new("L", (7, 8)).save("input_bin/x.jpg")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["info", *arguments])


def test_the_originals_command_lines() -> None:
    result = run("bin", "./input_bin", "./crnn.info", "100", "32")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "crnn.info: 2 files\n", "")
    assert Path("crnn.info").read_text() == "0 input_bin/test_9.bin 100 32\n1 input_bin/test_10.bin 100 32\n"
    assert run("jpg", "input_bin", "jpg.info").exit_code == 0
    assert Path("jpg.info").read_text() == "0 input_bin/x.jpg 7 8\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["bin", "input_bin", "x"], "WIDTH HEIGHT"),
        (["bin", "input_bin", "x", "100"], "WIDTH HEIGHT"),
        (["jpg", "input_bin", "x", "100", "32"], "their own size"),
        (["bin", ".", "x", "100", "32"], "no .bin file in this folder"),
    ],
)
def test_errors_are_one_line(arguments: list[str], part: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert part in result.stderr
    assert not Path("x").exists()
