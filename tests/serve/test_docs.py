"""What docs/service.md says to type, typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from tests.serve.light import Client, serving
from typer.testing import CliRunner

from crnn.cli import app
from crnn.engines import open_engine
from crnn.errors import OptionError
from crnn.serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
WORDS = ["airport", "regency"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(open_engine(name="onnxruntime", threads=1)) as made:
        yield made


def typed(client: Client, code: str, *command: str) -> str:
    """What a block prints, with our port instead of the page's."""
    if shutil.which(command[0]) is None and "CI" not in os.environ:
        pytest.skip(f"no {command[0]}")
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{client.port}")
    done = subprocess.run([*command, code], capture_output=True, text=True, timeout=60, cwd=ROOT / "examples")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(client: Client) -> None:
    one, many = (json.loads(typed(client, block, "bash", "-c"))["words"] for block in blocks("bash"))
    assert [word["text"] for word in one] == WORDS[:1]
    assert [(word["name"], word["text"]) for word in many] == [("airport.png", "airport"), ("regency.jpg", "regency")]
    assert "".join(each["character"] for each in many[1]["characters"]) == "regency"
    (shown,) = blocks("json")
    assert json.loads(shown)["words"][0].keys() == one[0].keys()


@pytest.mark.parametrize(("number", "expected"), [(0, WORDS), (1, WORDS[:1])])
def test_python(client: Client, number: int, expected: list[str]) -> None:
    printed = typed(client, blocks("python")[number], sys.executable, "-c")
    assert [next(word for word in WORDS if word in line.split()) for line in printed.splitlines()] == expected


def test_javascript(client: Client) -> None:
    (block,) = blocks("javascript")
    printed = typed(client, block, "node", "--input-type=module", "-e")
    assert [line.split()[1] for line in printed.splitlines()] == WORDS


def test_every_option_and_code_is_there() -> None:
    said = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    named = set(re.findall(r"--[a-z][a-z-]*[a-z]", PAGE)) - {"--data-binary", "--memory", "--help"}
    assert named and all(option in said for option in named)
    source = "".join(path.read_text() for path in (ROOT / "src" / "crnn" / "serve").glob("*.py"))
    codes = set(re.findall(r'Fault\(\s*\d+,\s*"([a-z_]+)"', source)) - {"http"}
    assert len(codes) > 10 and all(f"`{code}`" in PAGE for code in codes)
    metrics = set(re.findall(r'(?:counter|histogram)\("([a-z_]+)"', source))
    assert len(metrics) == 7 and all(f"crnn_{name}" in PAGE for name in metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cors", "example.org"], "no origin"),
        (["--api-key", "two words"], "visible ASCII"),
        (["--images", "100", "--queue", "50"], "--queue must not be below --images: a request may have 100 pictures"),
        (["--request-mib", "300"], "--queue-mib must not be below --request-mib: a request may have 300 MiB"),
        (["--seconds", "inf"], "--seconds must be above 0, and finite"),
        (["--max-wait-ms", "inf"], "--max-wait-ms must be"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--model", "nothing.onnx", "--port", "0"], "no such model"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_every_limit_is_named_as_its_option() -> None:
    said = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    limits = [field.name for field in fields(Settings) if isinstance(field.default, int | float)]
    assert len(limits) == 11
    for name in limits:
        with pytest.raises(OptionError, match=r"^--[a-z-]+ must be above 0") as error:
            Settings(**{name: -1})  # type: ignore[arg-type]
        assert f"{str(error.value).split()[0]} " in said


def test_an_empty_key_does_not_open_the_door() -> None:
    elsewhere = ["serve", "--host", "192.0.2.1"]  # where nobody listens: else it would serve
    result = CliRunner().invoke(app, elsewhere, env={"CRNN_API_KEY": ""})
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "CRNN_API_KEY is empty" in result.stderr
    result = CliRunner().invoke(app, [*elsewhere, "--api-key", "given"], env={"CRNN_API_KEY": ""})
    assert "cannot listen" in result.stderr
