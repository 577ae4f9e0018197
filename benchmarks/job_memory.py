"""Whether a job's memory stays level: over a million words with no network, and over many that are really read.

``python benchmarks/job_memory.py [--data LMDB] [--engine NAME] [--light N] [--real N]``; 0 leaves one out.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import SAMPLE, Light, Report, default_data, parser, words
from document import write_block

from crnn.jobs.run import Here, Job, Status, run


def main() -> None:
    """Prints what a process holds as words go by."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data(), help="for the words that are really read")
    options.add_argument("--engine", default="auto")
    options.add_argument("--light", type=int, default=1_000_000, metavar="N", help="words with no network")
    options.add_argument("--real", type=int, default=50_000, metavar="N", help="words with the network")
    options.add_argument("--page", type=Path, metavar="FILE", help="write the figures into this page")
    chosen = options.parse_args()
    report = Report("job_memory", chosen.json)
    figures: dict[str, Any] = {}
    kinds = (("light", chosen.light, SAMPLE, Light()), ("real", chosen.real, chosen.data, chosen.engine))
    with tempfile.TemporaryDirectory() as folder:
        for name, count, data, engine in kinds:
            if count:
                figures[name] = memory(words(data, 2000)[0], count, engine, Path(folder))
    for line in in_words(figures):
        print(line)
    others = report.write(figures)
    if chosen.page is not None:
        write_block(chosen.page, "memory", in_words(figures), others)


def memory(pictures: list[bytes], count: int, engine: Any, folder: Path) -> dict[str, Any]:
    """Bytes that a process of its own holds after each tenth of ``count`` words, and its words/s."""
    source = folder / "many.parquet"
    with pq.ParquetWriter(source, pa.schema([("image", pa.binary())]), use_dictionary=False) as writer:
        for batch in batches(pictures, count):
            writer.write_table(pa.table({"image": batch}))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # what this one did is not the job's
        found = pool.submit(watched_job, source, count, engine, folder / "out").result()
    shutil.rmtree(folder / "out")
    return found


def watched_job(source: Path, count: int, engine: Any, output: Path) -> dict[str, Any]:
    """The figures of :func:`memory`."""
    held: list[int] = []

    def watch(status: Status) -> None:
        if status.words >= (len(held) + 1) * count / 10:
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    made = run(Job(str(source), str(output), {"engine": engine}), Here(), watch)
    return {"words": count, "held": held, "words_per_second": count / made["seconds"]}


def batches(pictures: list[bytes], count: int) -> Iterator[list[bytes]]:
    """``count`` pictures, a thousand at a time."""
    for first in range(0, count, 1000):
        yield [pictures[i % len(pictures)] for i in range(first, min(first + 1000, count))]


def in_words(figures: dict[str, Any]) -> list[str]:
    """The figures as they stand in docs/jobs.md."""
    lines = []
    for name, what in (("light", "with no network"), ("real", "with the network")):
        if name in figures:
            held = [each / 2**20 for each in figures[name]["held"]]
            lines.append(
                f"- over {figures[name]['words']:,} words {what}: {held[0]:,.0f} MiB after the first tenth, "
                f"{held[-1]:,.0f} MiB at the end, {max(held):,.0f} MiB at most"
            )
    return lines


if __name__ == "__main__":
    main()
