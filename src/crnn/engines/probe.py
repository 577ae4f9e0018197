"""What of Ascend is on this machine, and what to do about what is missing. Nothing here can hang.

Whatever touches the driver (``npu-smi``, pyACL) runs in a process of its own, for a limited time: a driver that is
half there does not fail, it waits.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crnn.engines import toolkit
from crnn.errors import CrnnError

_DEVICES = Path("/dev")
_PACKAGES = ("onnxruntime-cann", "torch-npu")


def ascend(seconds: float = 10) -> dict[str, Any]:
    """What is here, ready for JSON; ``missing`` says in words what is not and what to type. Starts no device.

    ``seconds`` is how long ``npu-smi`` may take.
    """
    found, driver = toolkit.find(), toolkit.driver()
    devices = sorted(str(path) for path in _DEVICES.glob("davinci[0-9]*"))
    pyacl_here = find_spec("acl") is not None
    program = shutil.which("npu-smi")
    listed = run([program, "info"], seconds) if program else None
    missing = []
    if found is None:
        missing.append("CANN: install the toolkit (hiascend.com, Ascend-cann-toolkit), then source its set_env.sh")
    elif found.atc is None:
        missing.append(f"ATC: {found.root} holds a runtime only; install the toolkit to compile models")
    if driver is None:
        missing.append("the driver: install Ascend HDK; without it models can be compiled here, but not run")
    elif not devices:
        missing.append("a device: there is no /dev/davinci0; in a container, start it with --device=/dev/davinci0")
    if not pyacl_here:
        script = found.set_env if found and found.set_env else "/usr/local/Ascend/ascend-toolkit/set_env.sh"
        missing.append(f"pyACL, the Python module acl: source {script}")
    if listed and "error" in listed:
        missing.append(f"npu-smi does not work ({listed['error']}): look at the driver")
    return {
        "toolkit": found and {"path": str(found.root), "version": found.version, "atc": found.atc and str(found.atc)},
        "driver": driver and {"path": str(driver), "version": toolkit.driver_version(driver)},
        "devices": devices,
        "npu_smi": listed,
        "pyacl": pyacl_here,
        "packages": {name: _version(name) for name in _PACKAGES},
        "missing": missing,
    }


def start_device() -> dict[str, Any]:
    """Take the device that ``$ASCEND_DEVICE_ID`` names, and give it back: ``works``, ``device``, or ``error``.

    To be called through :func:`apart`, because a sick driver may keep it for ever.
    """
    from crnn.engines import pyacl

    try:
        acl, device = pyacl.runtime(), pyacl.chosen_device()
        try:
            acl.attach(device)
            name = acl.soc_name()
            acl.detach(device)
        finally:
            acl.shutdown()
    except CrnnError as error:
        return {"works": False, "error": str(error)}
    return {"works": True, "device": f"{name or 'Ascend'}, device {device}"}


def apart(call: str, seconds: float) -> dict[str, Any]:
    """What a call such as ``package.module.function()`` gives, a JSON object, in a process of its own.

    ``works`` is False, and ``error`` says why, if it fails or takes longer.
    """
    module = call.partition("(")[0].rpartition(".")[0]
    found = run([sys.executable, "-c", f"import json, {module}; print(json.dumps({call}))"], seconds)
    if "error" in found:
        return {"works": False, **found}
    answer: dict[str, Any] = json.loads(found["output"].splitlines()[-1])  # CANN's libraries may print before us
    return answer


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """``output``, or ``error`` in a line if the command fails or takes longer."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {seconds:g} s"}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return {"error": lines[-1][:300] if lines else f"exit status {done.returncode}"}
    return {"output": done.stdout.strip()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
