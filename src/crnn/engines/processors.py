"""The processor: its name, its instruction sets, and how many this process may use, which is not how many there are."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

_GROUPS = Path("/sys/fs/cgroup")
# fmt: off
_FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme",
)
# fmt: on


def processor() -> dict[str, Any]:
    """``name``, ``family`` (x86's family and model; empty elsewhere), ``usable``: how many this process may use,
    ``features``: the instruction sets that matter to a network, by Linux's names. Ready for JSON.
    """
    name, family, features = _identity()
    return {
        "name": name or platform.processor() or platform.machine(),
        "family": family,
        "usable": usable_processors(),
        "features": [feature for feature in _FEATURES if feature in features],
    }


def _identity() -> tuple[str, str, set[str]]:
    """The processor's name, family and features as Linux gives them; elsewhere what NumPy has found out about it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        from numpy.lib import introspect

        found = json.dumps(introspect.opt_func_info()) if hasattr(introspect, "opt_func_info") else ""
        return "", "", set(re.split(r"[^a-z0-9_]+", found.lower()))
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{key.removeprefix('cpu ')} {values[key]}" for key in ("cpu family", "model") if key in values]
    features = set((values.get("flags") or values.get("Features") or "").split())
    return values.get("model name", ""), ", ".join(numbers), features


def usable_processors(groups: Path = _GROUPS) -> int:
    """The processors of this process: its affinity mask, and the quota of its container where there is one (Linux).

    A runtime that starts a thread for each processor of a 64-processor host inside a container of two spends its time
    switching between them. A fraction of a processor counts as one.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, math.ceil(_quota(groups))))


def _quota(groups: Path) -> float:
    """Processors that control groups of version 2, or else 1, allow; a large number if they set no limit."""
    try:
        try:
            quota, period = (groups / "cpu.max").read_text().split()
        except FileNotFoundError:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        allowed = int(quota) / int(period)  # "max" and -1 mean no limit
    except (OSError, ValueError, ZeroDivisionError):
        return 2.0**31
    return allowed if allowed > 0 else 2.0**31
