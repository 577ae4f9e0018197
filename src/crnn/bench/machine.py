"""What a measurement has to say about the machine: which one it was, and whether somebody else was using it."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from crnn.engines.processors import processor


def describe() -> dict[str, Any]:
    """``processor`` (:func:`crnn.engines.processors.processor`), ``memory`` in bytes or None, ``platform``."""
    try:
        memory: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "processor": processor(),
        "memory": memory,
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def peak_memory() -> int | None:
    """The most bytes of memory this process has held at once, libraries included; None where nobody counts them."""
    try:  # not getrusage, which on Linux starts from what the parent process held
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return None
    most = getrusage(RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Others:
    """How much of the machine other processes take, from its making on.

    Args:
        pids: this program's own processes besides the one that asks.
    """

    def __init__(self, pids: list[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._since = self._now()

    def share(self) -> float | None:
        """The fraction of all processors' time that was spent on other processes; None where it cannot be known."""
        now = self._now()
        if now is None or self._since is None:
            return None
        seconds, busy, own = (after - before for after, before in zip(now, self._since, strict=True))
        return max(0.0, busy - own) / (seconds * (os.cpu_count() or 1)) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float] | None:
        """(clock, seconds of work by all processes, by our own)."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
            own = 0
            for pid in self._pids:
                # The name, in parentheses, may hold spaces. Behind it the 12th to 15th field are the user's and the
                # system's time, of the process and of those of its children that have ended.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                own += sum(map(int, fields[11:15]))
        except (AttributeError, OSError, ValueError):
            return None
        return time.monotonic(), (user + nice + system + irq + softirq) / tick, own / tick
