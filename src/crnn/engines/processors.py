"""How many processors this process may use, which is not how many the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


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
