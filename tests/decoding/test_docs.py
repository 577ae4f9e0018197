"""What docs/decoding.md says to type, typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import crnn
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "decoding.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's pictures and lists, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    picture = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb").image_bytes(0)
    for name in ("shelf/0.jpg", "signs/0.jpg", "meters/0.png", "sign.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(picture)
    for name in ("titles.txt", "streets.txt"):
        Path(name).write_text("modern\nBaker Street\n")
    Path("frequencies.tsv").write_text("modern\t12\nstreet\t40.5\n")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("files")
def test_the_commands() -> None:
    commands = [shlex.split(line, comments=True) for line in blocks("")[0].splitlines()]
    assert {option for command in commands for option in command if option.startswith("--")} == {
        "--lexicon",
        "--prior",
        "--characters",
        "--beam",
    }
    for command in commands:
        assert command[:2] == ["crnn", "read"]
        pictures = sorted(str(path) for path in Path().glob(command[2]))
        result = CliRunner().invoke(app, ["read", *pictures, *command[3:]])
        assert result.exit_code == 0 and len(result.stdout.splitlines()) == 1, result.output


@pytest.mark.usefixtures("files")
def test_the_python() -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    word = names["word"]
    assert isinstance(word, crnn.Word) and word.text == "modern"
