"""Every block of the README runs; the two commands that set a machine up are run for what they promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import ImageFont

ROOT = Path(__file__).resolve().parents[2]


class Block(NamedTuple):
    language: str
    text: str
    mark: str


def blocks() -> list[Block]:
    pattern = r"(?:^<!-- ([a-z ]+) -->\n)?^```(\w*)\n(.*?)^```$"
    found = re.findall(pattern, (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(language, text, mark) for mark, language, text in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's files as a user has them, and a folder of fonts."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "docs", "examples"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "fonts").mkdir()
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    (folder / "fonts" / "plain.ttf").write_bytes(font.path.getvalue())  # type: ignore[union-attr]
    return folder


def run(command: str, folder: Path) -> str:
    """Runs a block with this environment's ``crnn``; its output, or a failure that shows it."""
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"], "FONTS": str(folder / "fonts")}
    environment |= {"COLUMNS": "120", "PYTHONPATH": ""}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_every_block_runs(folder: Path) -> None:
    """In the README's order and one folder, as a reader would."""
    plain = [block for block in blocks() if block.language in ("sh", "python") and not block.mark]
    assert len(plain) >= 4
    for block in plain:
        if block.language == "python":
            (folder / "block.py").write_text(block.text, encoding="utf-8")
            run(f"{sys.executable} block.py", folder)
        else:
            run(block.text, folder)
    for made in ("report.json", "sheet.png", "runs/release/weights.safetensors", "words.onnx"):
        assert (folder / made).exists(), made


def test_the_first_command_works_from_nothing(folder: Path) -> None:
    """A new virtual environment without torch or OpenCV; the words on the README's first screen are what it prints."""
    [main] = [block for block in blocks() if block.mark == "main command"]
    printed = run(main.text, folder)
    installed = run(".venv/bin/pip list", folder).lower()
    assert "torch" not in installed and "opencv" not in installed
    shown = blocks()[blocks().index(main) + 1]
    assert shown.language == "text"

    def words(text: str) -> set[str]:
        """Words but not figures of speed, which differ from machine to machine."""
        return {token for token in re.findall(r"[a-z]{3,}\w*|\d+\.\d\d%", text.lower()) if token != "onnxruntime"}

    assert words(shown.text) <= words(printed), words(shown.text) - words(printed)


def test_ci_runs_the_test_command() -> None:
    [test] = [block for block in blocks() if block.mark == "test command"]
    assert "scripts/test.sh" in test.text
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in script and "test command" in script
