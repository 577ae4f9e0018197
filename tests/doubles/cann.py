"""Makes folders that look like an installed CANN toolkit, as far as the documents say what one looks like."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEARCHED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
"""Variables that keep what they had, behind what is added."""

_PYACL = '''"""pyACL's double for a process of its own; misuse or a leak at exit makes its status 70."""
import atexit, os, sys
sys.path.append({root!r})
from tests.doubles.acl import Acl
_module = sys.modules[__name__] = Acl(soc=os.environ.get("ACL_DOUBLE_SOC", "Ascend310"))
def _report():
    if problems := _module.problems():
        print(*("acl double: " + each for each in problems), sep="\\n", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(70)
atexit.register(_report)  # runs after what is registered later: the engine's own
'''


@dataclass(frozen=True)
class FakeCann:
    """One toolkit."""

    version: str
    toolkit: Path
    exports: Mapping[str, Sequence[str]]
    """Variable -> what is put before its value."""
    setup: Mapping[str, Any]
    """What ``atc.py`` is told about it."""

    @property
    def atc(self) -> Path:
        return self.toolkit / ("atc/bin/atc" if is_tree_of_2021(self.version) else "bin/atc")

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the toolkit's exports, to pass to subprocess."""
        return {**os.environ, **{name: self._value(name) for name in self.exports}}

    def _value(self, name: str) -> str:
        before = [os.environ[name]] if name in SEARCHED and os.environ.get(name) else []
        return os.pathsep.join([*self.exports[name], *before])


class FakeCannFactory:
    """``factory(version, ...)`` makes a toolkit of that version below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(
        self,
        version: str = "8.0.RC3",
        *,
        driver: bool = True,
        chips: Sequence[str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> FakeCann:
        """``chips``: those with an operator package (default: all); ``files``: more files, by path below ``latest``."""
        self.made += 1
        toolkit = self.folder / f"Ascend{self.made}" / "ascend-toolkit" / "latest"
        old = is_tree_of_2021(version)
        arch = platform.machine()
        devlib = toolkit / f"{arch}-linux" / "devlib"
        if old:
            exports = {
                "PATH": [f"{toolkit}/atc/ccec_compiler/bin", f"{toolkit}/atc/bin"],
                "PYTHONPATH": [f"{toolkit}/atc/python/site-packages", f"{toolkit}/pyACL/python/site-packages/acl"],
                "LD_LIBRARY_PATH": [f"{toolkit}/atc/lib64", f"{toolkit}/acllib/lib64"],
                "ASCEND_OPP_PATH": [f"{toolkit}/opp"],
            }
            pyacl = toolkit / "pyACL/python/site-packages/acl/acl.py"
        else:
            exports = {
                "PATH": [f"{toolkit}/bin"],
                "PYTHONPATH": [f"{toolkit}/python/site-packages"],
                "LD_LIBRARY_PATH": [f"{toolkit}/lib64"],
                "ASCEND_OPP_PATH": [f"{toolkit}/opp"],
                "ASCEND_TOOLKIT_HOME": [str(toolkit)],
            }
            pyacl = toolkit / "python/site-packages/acl.py"
        for folder in (path for name in exports for path in exports[name]):
            Path(folder).mkdir(parents=True, exist_ok=True)
        devlib.mkdir(parents=True)
        pyacl.write_text(_PYACL.format(root=str(ROOT)))
        setup = {
            "version": version,
            "toolkit": str(toolkit),
            "devlib": None if driver else str(devlib),
            "chips": None if chips is None else list(chips),
            "old_tree": old,
        }
        cann = FakeCann(version, toolkit, exports, setup)
        cann.atc.write_text(
            f"#!/bin/bash\nATC_DOUBLE_SETUP={shlex.quote(json.dumps(setup))} "
            f'exec {shlex.quote(sys.executable)} -P {shlex.quote(str(HERE / "atc.py"))} "$@"\n'
        )
        cann.atc.chmod(0o755)
        if not old:
            lines = [f"export {name}={_shell(name, values)}\n" for name, values in exports.items()]
            for place in (toolkit, toolkit.parent):
                (place / "set_env.sh").write_text("".join(lines))
        for name, text in (files or {}).items():
            (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
            (toolkit / name).write_text(text)
        return cann


def is_tree_of_2021(version: str) -> bool:
    """CANN 3.x, which was called 20.x at the same time."""
    return version.split(".")[0] in ("3", "20")


def _shell(name: str, values: Sequence[str]) -> str:
    joined = shlex.quote(os.pathsep.join(values))
    return f"{joined}${{{name}:+:${name}}}" if name in SEARCHED else joined
