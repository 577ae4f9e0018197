"""The commands of docs/ascend.md's first half, in its order and one folder, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import crnn
from crnn.cli import app

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (
        (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8").partition("\n## Compiling and running on Ascend")[0]
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "crnn").symlink_to(Path(crnn.__file__).parent)
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {command[1] for command in commands} == {"prepare", "info", "infer", "score", "evaluate"}
    for command in commands:
        assert command[0] == "crnn"
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, (command, result.output)
    for made in ("crnn.info", "result.json", "scored.json", "result/perf_vision_batchsize_16_device_0.txt"):
        assert (tmp_path / made).exists(), made


def test_links_lead_somewhere() -> None:
    page = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    headings = [
        re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", page, re.M)
    ]
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= set(headings)
