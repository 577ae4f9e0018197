"""Every block of the README runs; the two commands that set a machine up are run for what they promise."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clone's files as a user has them, and a folder of fonts."""
    folder = tmp_path
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
    """What a command prints in a shell that has nothing but the system's programs, or a failure that shows it."""
    environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": ""}
    environment.pop("FONTS", None)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_every_block_runs(folder: Path) -> None:
    """In the README's order, one folder and one shell, as a reader would; but these tests' environment is the one that
    is activated, and other fonts are drawn.
    """
    plain = [block for block in blocks() if block.language in ("sh", "python") and not block.mark]
    assert len(plain) >= 4
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n")
    session = ""
    for number, block in enumerate(plain):
        text = block.text
        if block.language == "python":
            (folder / f"block{number}.py").write_text(text, encoding="utf-8")
            text = f"python block{number}.py\n"
        session += f"echo '-- block {number}' >&2\n{text}"
    run(re.sub(r"^FONTS=.*$", 'FONTS="$PWD/fonts"', session, flags=re.MULTILINE), folder)
    for made in ("report.json", "sheet.png", "runs/release/weights.safetensors", "words.onnx"):
        assert (folder / made).exists(), made


def test_blocks_use_what_blocks_before_them_have_made() -> None:
    """Programs of the environment, which has to be activated first, and variables."""
    active, known = False, set[str]()
    for block in blocks():
        if block.mark or block.language not in ("sh", "python"):
            continue
        active = active or block.text == ". .venv/bin/activate\n"
        assert active, block.text
        if block.language == "sh":
            known |= set(re.findall(r"^(\w+)=", block.text, flags=re.MULTILINE))
            assert set(re.findall(r"\$\{?(\w+)", block.text)) <= known, block.text
    assert known


def test_what_is_to_be_installed_is_there() -> None:
    """No index has the package: what brings an extra is the clone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set[str]()
    for page in (*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert "pip install 'crnn[" not in text, page
        named |= {name for names in re.findall(r"pip install '\.\[([\w,]+)\]'", text) for name in names.split(",")}
    assert {"train", "openvino", "serve", "jobs", "ray"} <= named <= extras.keys()


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


@pytest.mark.parametrize(("user", "has_apt", "installs"), [(0, True, True), (1000, True, False), (0, False, False)])
def test_ci_installs_only_where_it_can(user: int, has_apt: bool, installs: bool, tmp_path: Path) -> None:
    """On a machine without Chromium, with a README whose test command is short."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "README.md").write_text("<!-- test command -->\n```sh\necho tested\n```\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("awk", "bash", "dirname", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    made = {"id": f"echo {user}", "apt-get": f"echo apt-get $1 >> {tmp_path}/log"}
    for name in made if has_apt else ("id",):
        (programs / name).write_text(f"#!/bin/sh\n{made[name]}\n")
        (programs / name).chmod(0o755)
    command = [tmp_path / ".ci" / "run"]
    done = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo tested\ntested\n", "")
    assert (tmp_path / "log").exists() == installs
