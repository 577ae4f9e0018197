"""Where CANN is on this machine, of which version, and the environment its programs need. Looks at files only.

Layouts: since CANN 5 ``{root}/bin/atc`` and a ``set_env.sh``; in 2020 and 2021 ``{root}/atc/bin/atc`` with the
variables of the deliverable's ``atc_crnn.sh`` and ``acl_env_*.sh``; in both, the files of one processor architecture
may lie a folder deeper (``x86_64-linux``, ``aarch64-linux_gcc7.3.0``).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from os.path import expanduser, isdir, isfile
from pathlib import Path

# Of glob and os.path, as Path's own methods raise PermissionError where one may not look.

USUAL_ROOT = "/usr/local/Ascend/ascend-toolkit/latest"
ROOTS = (
    USUAL_ROOT,
    "/usr/local/Ascend/cann",
    "/usr/local/Ascend/latest",
    "~/Ascend/ascend-toolkit/latest",
    "~/Ascend/cann",
)
"""Where CANN's installers put it, for root and for others."""

_VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "ASCEND_OPP_PATH")
_RELEASE = re.compile(r"\d+(\.\d+)+([.\-]?[A-Za-z]+[\w.]*)?")


@dataclass(frozen=True)
class Toolkit:
    """An installed CANN toolkit. ``version`` is empty where no file tells; ``base`` is the folder of its programs."""

    root: Path
    base: Path
    version: str
    atc: Path | None
    set_env: Path | None


def find(environ: Mapping[str, str] | None = None) -> Toolkit | None:
    """The toolkit that the environment names, or else one in a place where installers put it; None without one."""
    environ = os.environ if environ is None else environ
    for root in _roots(environ):
        for base in (root, *_matching(root, f"{platform.machine()}-linux*")):
            atc = next((base / name for name in ("bin/atc", "atc/bin/atc") if isfile(base / name)), None)
            if atc:
                return Toolkit(root, base, _version(root), atc, _set_env(root))
        if isdir(root / "opp") or _version(root):  # the runtime alone: it runs models and compiles none
            return Toolkit(root, root, _version(root), None, _set_env(root))
    return None


def environment_of_2021(root: Path, base: Path) -> dict[str, list[str]]:
    """What the deliverable's scripts export where there is no ``set_env.sh``: the folders each variable begins with."""
    return {
        "PATH": [f"{base}/atc/ccec_compiler/bin", f"{base}/atc/bin"],
        "PYTHONPATH": [f"{base}/atc/python/site-packages", f"{base}/pyACL/python/site-packages/acl"],
        "LD_LIBRARY_PATH": [f"{base}/atc/lib64", f"{base}/acllib/lib64"],
        "ASCEND_OPP_PATH": [f"{root}/opp"],
    }


def has_auto_tune(version: str) -> bool:
    """Whether ATC still has ``--auto_tune_mode``: CANN up to 5, which includes 20.x and 21.x, as it was numbered then.

    Later versions stop with E10001 and name ``aoe``.
    """
    found = re.match(r"V100R0(2[01])C|(\d+)", version)  # V100R020C20 was the inner name of 20.2
    major = int(found[1] or found[2]) if found else 0
    return 0 < major <= 5 or major in (20, 21)


def driver(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder of the device driver, None if there is none; without it a host can compile but not run."""
    environ = os.environ if environ is None else environ
    for folder in filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")):
        path = Path(folder)
        if "driver" in path.parts and isdir(path):
            return Path(*path.parts[: path.parts.index("driver") + 1])
    for parent in (_driver_parent(), Path("/usr/local/Ascend")):
        if parent and isdir(parent / "driver" / "lib64"):
            return parent / "driver"
    return None


def _driver_parent() -> Path | None:
    found = _field(Path("/etc/ascend_install.info"), "Driver_Install_Path_Param")
    return Path(found) if found else None


def driver_version(folder: Path) -> str:
    """From the driver's ``version.info``; empty if that does not tell."""
    return _field(folder / "version.info", "Version")


def _roots(environ: Mapping[str, str]) -> Iterator[Path]:
    for name in _VARIABLES:
        if value := environ.get(name):
            yield Path(value).parent if name == "ASCEND_OPP_PATH" else Path(value)
    if program := shutil.which("atc", path=environ.get("PATH", "")):
        folder = Path(program).parent.parent  # {root}/bin/atc, {root}/atc/bin/atc
        yield folder.parent if folder.name == "atc" else folder
    for text in ROOTS:
        path = expanduser(text)
        if isdir(path):
            yield Path(path)


def _matching(root: Path, pattern: str) -> list[Path]:
    return [root / name for name in sorted(glob(pattern, root_dir=root))]


def _set_env(root: Path) -> Path | None:
    """``set_env.sh`` of the version itself, or the installer's one folder up, which is the latest's."""
    places = [root, root.parent] if root.name == "latest" else [root]
    return next((folder / "set_env.sh" for folder in places if isfile(folder / "set_env.sh")), None)


def _version(root: Path) -> str:
    """From the toolkit's own files, or else from the name of the folder that ``latest`` leads to."""
    for path in _matching(root, "*-linux*/ascend_toolkit_install.info"):
        if found := _field(path, "version"):
            return found
    if found := _field(root / "version.cfg", "toolkit_running_version"):
        return found.strip("[]").rpartition(":")[2]
    resolved = root.resolve().name.removeprefix("cann-")
    return resolved if _RELEASE.fullmatch(resolved) else ""


def _field(path: Path, name: str) -> str:
    """The value of ``name=value`` in a file of such lines; empty if it is not there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^\s*{name}\s*=\s*(.*?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""
