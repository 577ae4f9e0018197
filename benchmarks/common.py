"""What the benchmarks share: words, ways to measure, and the JSON that docs/performance.md is made of."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.bench.machine import Others, describe
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import bundled_model
from crnn.spec import DELIVERABLE

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def parser(description: str | None) -> ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = ArgumentParser(description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return made


def default_data() -> Path:
    """IIIT5K's test words in $CRNN_DATA or in shared/data beside the repository; else the bundled sample."""
    folder = Path(os.environ.get("CRNN_DATA", ROOT.parent / "shared" / "data")) / "IIIT5K_lmdb"
    return folder if folder.is_dir() else SAMPLE


def words(path: Path, count: int = 0) -> tuple[list[bytes], list[str]]:
    """Encoded pictures and labels of a data set: the first ``count``, again and again if it has fewer (0: all once)."""
    reader = LmdbReader(path)
    chosen = [i % len(reader) for i in range(count or len(reader))]
    return [reader.image_bytes(i) for i in chosen], [reader.label(i) for i in chosen]


class Light:
    """A network that costs nothing: what is left is the cost of the job itself."""

    name, version, precision, device, threads = "light", "1", "float32", "CPU", 1
    spec, notes = DELIVERABLE, ()

    def __init__(self) -> None:
        self.path = bundled_model()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same text for every word."""
        logp = np.full((26, len(batch), 37), -20, np.float32)
        logp[:, :, 0] = logp[3, :, 12] = logp[9, :, 20] = 0
        return logp


def typical(call: Callable[[], object], seconds: float = 1.0) -> float:
    """The median of the seconds of a warm call, of as many calls as ``seconds`` hold and five at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


class Report:
    """Figures on their way to the terminal and into a file, with the machine they were measured on.

    Make it before measuring: it also says how busy other processes, ``pids`` apart, have kept the processors since.
    """

    def __init__(self, name: str, file: Path | None, pids: list[int] | None = None) -> None:
        self.name, self.file = name, file
        self._others = Others(pids or [])

    def write(self, figures: dict[str, Any]) -> float | None:
        """Write the file, if there is to be one, and say so if the machine was not idle.

        Returns the share of the processors that other processes took; None where it cannot be known.
        """
        share = self._others.share()
        if share is not None and share > 0.05:
            print(f"other processes took {share:.0%} of the processors meanwhile: these figures are too low")
        if self.file is None:
            return share
        script = Path(sys.argv[0]).name
        report = {"benchmark": self.name, "script": f"benchmarks/{script}", "machine": describe(), "others": share}
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        temporary.write_text(json.dumps({**report, **figures}, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.file)
        return share
