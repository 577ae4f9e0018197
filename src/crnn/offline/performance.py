"""How long inference took, in the files of the original's two tools."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Times:
    """Seconds, one number a batch, by the wall clock. ``words`` are the words of all these batches, without padding.

    ``read``: reading the files. ``stack``: making one array of them, padded. ``run``: the engine's call, with copies
    to the device and back where there is one. ``write``: splitting the output and writing the result files.
    """

    batch_size: int
    words: int = 0
    read: list[float] = field(default_factory=list)
    stack: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)

    def total(self) -> float:
        """All of it, in seconds."""
        return sum(map(sum, (self.read, self.stack, self.run, self.write)))


def benchmark_text(times: Times) -> str:
    """The five lines of ``perf_vision_batchsize_{N}_device_{K}.txt`` (the "benchmark" tool of CANN 20).

    Rates are in words a second; the latency of ``e2e`` is that of all words together, that of a module the mean for one
    word, both in milliseconds. ``Interface throughputRate`` counts the engine's calls alone, and their padding not.
    The stages run one after the other here, so that a module's rate and its latency say the same.
    """

    def module(seconds: Sequence[float], more: str = "") -> str:
        return f"throughputRate: {rate(sum(seconds))}, {more}moduleLatency: {1000 * sum(seconds) / times.words:g}"

    def rate(seconds: float) -> str:
        return f"{times.words / max(seconds, 1e-9):g}"  # a clock may stand still for a stage with nothing to do

    interface = f"Interface throughputRate: {rate(sum(times.run))}, "
    lines = (
        f"[e2e] throughputRate: {rate(times.total())}, latency: {1000 * times.total():g}",
        f"[data read] {module(times.read)}",
        f"[preprocess] {module(times.stack)}",
        f"[infer] {module(times.run, interface)}",
        f"[post] {module(times.write)}",
    )
    return "".join(f"{line}\n" for line in lines)


def ais_bench_summary(times: Times, files: Mapping[str, str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ais_bench's ``{output folder}_summary.json``; ``files`` are result files by input file.

    ``NPU_compute_time`` (milliseconds) is the engine's call, whatever it runs on, including the copies to the device
    and back. Nothing measures these apart, so ``H2D_latency`` and ``D2H_latency`` have a count of 0.
    """
    milliseconds = [1000 * seconds for seconds in times.run]
    compute = _distribution(milliseconds)
    pairs = enumerate(files.items())
    return {
        "filesinfo": {str(i): {"infiles": [source], "outfiles": [target]} for i, (source, target) in pairs},
        "args": dict(arguments),
        "NPU_compute_time": compute,
        "H2D_latency": _distribution([]),
        "D2H_latency": _distribution([]),
        "throughput": _throughput(times, compute),
        "npu_compute_time_list": milliseconds,
        "pid": os.getpid(),
    }


def ais_bench_lines(summary: Mapping[str, Any], batch_size: int) -> list[str]:
    """The two lines of ais_bench's log that scripts look for."""
    compute = summary["NPU_compute_time"]
    figures = ", ".join(f"{key} = {compute[key]:g}" for key in compute if key != "count")
    return [
        f"[INFO] NPU_compute_time (ms): {figures}",
        f"[INFO] throughput 1000*batchsize.mean({batch_size})/NPU_compute_time.mean({compute['mean']:g}):"
        f" {summary['throughput']:g}",
    ]


def _distribution(values: Sequence[float]) -> dict[str, float]:
    some = values or [0.0]
    return {
        "min": min(some),
        "max": max(some),
        "mean": float(np.mean(some)),
        "median": float(np.median(some)),
        "percentile(99%)": float(np.percentile(some, 99)),
        "count": len(values),
    }


def _throughput(times: Times, compute: Mapping[str, float]) -> float:
    return 1000 * times.batch_size / compute["mean"] if compute["mean"] else 0.0
