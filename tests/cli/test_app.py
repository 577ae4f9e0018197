from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

import crnn
from crnn import cli
from crnn.errors import OptionError


def app_with(command: Callable[[], None], name: str = "go") -> typer.Typer:
    """An app like the real one, whose only command is ``command``."""
    app = typer.Typer(cls=cli._Commands)
    app.callback()(cli._common)
    app.command(name)(command)
    return app


def wrong() -> None:
    raise OptionError("--count 0 is too few;\n give at least 1")


def needs_torch() -> None:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_what_the_user_got_wrong_is_one_line() -> None:
    result = CliRunner().invoke(app_with(wrong), ["go"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "crnn: --count 0 is too few; give at least 1\n"


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app_with(wrong), ["--debug", "go"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and "in wrong" in result.stderr
    assert result.stderr.endswith("crnn: --count 0 is too few; give at least 1\n")


@pytest.mark.parametrize(("command", "extra"), [("train", "train"), ("export", "export"), ("compile", "ascend")])
def test_missing_extra_says_what_to_install(command: str, extra: str) -> None:
    result = CliRunner().invoke(app_with(needs_torch, command), [command])
    assert result.exit_code == 2
    assert result.stderr == f"crnn: this needs torch: pip install 'crnn[{extra}]'\n"


def test_a_bug_is_not_taken_for_a_mistake_of_the_user() -> None:
    def bug() -> None:
        raise ModuleNotFoundError("No module named 'crnn.ctcc'", name="crnn.ctcc")

    assert isinstance(CliRunner().invoke(app_with(bug), ["go"]).exception, ModuleNotFoundError)


@pytest.mark.parametrize("command", [["crnn"], [sys.executable, "-m", "crnn"]], ids=["script", "module"])
def test_version(command: list[str]) -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"crnn {crnn.__version__}\n", "")


def test_every_module_of_commands_is_registered() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {command} " in result.stdout for command in ("evaluate", "export", "synth", "train"))


def test_unknown_command() -> None:
    result = CliRunner().invoke(cli.app, ["exprot"])
    assert result.exit_code == 2
    assert "exprot" in result.stderr and "Traceback" not in result.stderr


def start(body: str, stdout: int) -> subprocess.Popen[bytes]:
    """The real command line with one command more, ``go``, in a process of its own."""
    code = f"import sys, time; from crnn import cli\n@cli.app.command()\ndef go():\n    {body}\n"
    code += "sys.argv = ['crnn', 'go']\nfrom crnn.__main__ import main; main()"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=buffered)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_ends_it_in_silence(lines: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(f"[print('word') for _ in range({lines})]", stdout=writing)
    os.close(writing)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, b"")


def test_ctrl_c() -> None:
    process = start("print('ready', flush=True); time.sleep(60)", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
