"""A double of Huawei's ``atc``: checks flags, environment and ONNX file, and writes an om for the ``acl`` double.

Run by the wrapper that ``cann.py`` writes; ``ATC_DOUBLE_SETUP`` describes the toolkit, ``ATC_DOUBLE`` how to go wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.doubles.atc_flags import AtcError, Flags, UnknownFlag, parse_flags

START = "ATC start working now, please wait for a moment."
SUCCESS = "ATC run success, welcome to the next use."
FAILURE = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"
INTERNAL = "E19999: Internal Error!\n        An unknown error occurred. Please check the log."


class Atc:
    """One run."""

    def __init__(self, setup: dict[str, Any], way: str) -> None:
        self.version: str = setup["version"]
        self.old_tree: bool = setup["old_tree"]
        self.toolkit = Path(setup["toolkit"])
        self.devlib: str | None = setup["devlib"]
        self.chips: list[str] | None = setup["chips"]
        self.way = way

    def run(self, arguments: list[str]) -> int:
        self._link()
        if arguments in (["--help"], ["-h"]):
            say("usage: atc <args>", "  --model          Model file", "  --framework      Framework type. 5:Onnx")
            return 0
        try:
            flags = parse_flags(arguments)
        except UnknownFlag as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return 1
        say(START)
        self._go_wrong_early()
        try:
            flags.check(self.version, self.chips)
            self._environment()
            self._log(flags, "INFO", "the model is compiled")
            self._compile(flags)
        except AtcError as error:
            return self._failed(error)
        if self.way == "warnings":
            say(
                "...",
                SUCCESS,
                "W11001: [PID: 7] Op [Conv] does not hit the high-priority operator information library.",
            )
        else:
            say("...", SUCCESS)
        return 0

    def _link(self) -> None:
        """What the dynamic linker does before ``main``; newer toolkits' wrapper sets the toolkit's own paths itself."""
        paths = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if self.old_tree and str(self.toolkit / "atc" / "lib64") not in paths:
            _no_library("libge_compiler.so")
        if self.devlib is not None and self.devlib not in paths:
            _no_library("libascend_hal.so")

    def _environment(self) -> None:
        """The exports of the deliverable's script (2021) or of set_env.sh."""
        wanted = [("ASCEND_OPP_PATH", self.toolkit / "opp")]
        if self.old_tree:
            wanted += [("PATH", self.toolkit / "atc" / "ccec_compiler" / "bin")]
            wanted += [("PYTHONPATH", self.toolkit / "atc" / "python" / "site-packages")]
        for name, folder in wanted:
            if str(folder) not in os.environ.get(name, "").split(os.pathsep):
                print(f"atc double: {name} lacks {folder}", file=sys.stderr)
                raise AtcError("E19999", "")

    def _go_wrong_early(self) -> None:
        if self.way == "hang":
            time.sleep(3600)
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "liar":
            say("...", FAILURE, INTERNAL)
            sys.exit(0)
        if self.way == "failed":
            say("...", FAILURE, INTERNAL)
            sys.exit(255)
        if self.way.startswith("error:"):
            sys.exit(self._failed(AtcError(self.way.removeprefix("error:"), "Compilation of the model went wrong.")))

    def _compile(self, flags: Flags) -> None:
        from tests.doubles.atc_onnx import inspect  # only now: a wrong flag need not wait for onnx to load
        from tests.doubles.om import pack

        compiled, onnx = inspect(flags, self.version)
        name = flags["output"] + (f"_linux_{os.uname().machine}.om" if compiled.dynamic else ".om")
        data = pack(compiled, onnx)
        if self.way == "nofile":
            return
        if self.way == "empty":
            data = b""
        if self.way == "half":
            Path(name).write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            Path(name).write_bytes(data)
        except OSError as error:
            raise AtcError("E10001", f"Value [{name}] for parameter [--output] is invalid. Reason: {error}") from None

    def _failed(self, error: AtcError) -> int:
        if error.code == "E19999" and not error.text:
            text = INTERNAL
        elif self.old_tree or self.version.startswith(("5.", "6.")):
            text = f"{error.code}: {error.text}"
        else:
            now = datetime.now().strftime("%Y-%m-%d-%H:%M:%S.%f")
            stamp = f"{now[:-3]}.{now[-3:]}"
            text = (
                f"{error.code}: [PID: {os.getpid()}] {stamp} {error.text}\n"
                "        Possible Cause: N/A\n        Solution: N/A\n        TraceBack (most recent call last):\n"
            )
        say("...", FAILURE, text)
        return 255

    def _log(self, flags: Flags, level: str, text: str) -> None:
        variable = "SLOG_PRINT_TO_STDOUT" if self.old_tree else "ASCEND_SLOG_PRINT_TO_STDOUT"
        levels = ["debug", "info", "warning", "error"]
        wanted = flags.get("log", "null")
        if os.environ.get(variable) != "1" or wanted == "null" or levels.index(wanted) > levels.index(level.lower()):
            return
        now = datetime.now().strftime("%Y-%m-%d-%H:%M:%S.%f")
        pid = os.getpid()
        say(f"[{level}] GE({pid},atc.bin):{now[:-3]}.{now[-3:]} [main_impl.cc:1]{pid} Run: {text}")


def say(*lines: str) -> None:
    """Everything goes to standard output."""
    print(*lines, sep="\n", flush=True)


def _no_library(name: str) -> NoReturn:
    what = f"error while loading shared libraries: {name}: cannot open shared object file: No such file or directory"
    print(f"atc.bin: {what}", file=sys.stderr)
    sys.exit(127)


if __name__ == "__main__":
    sys.exit(Atc(json.loads(os.environ["ATC_DOUBLE_SETUP"]), os.environ.get("ATC_DOUBLE", "")).run(sys.argv[1:]))
