"""A job beside the Reader alone: how fast it is, from where, and with how many workers.

``python benchmarks/job.py [--data LMDB] [--engine NAME] [--workers N ...]``
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import Light, Report, default_data, parser, words
from document import write_block

from crnn.datasets.lmdb import LmdbWriter
from crnn.engines.processors import usable_processors
from crnn.jobs.run import Here, Job, Runner, run
from crnn.jobs.units import Layout
from crnn.reader import Item, Reader

NETWORK = 10e9 / 8  # bytes/s of a 10 Gbit/s link
REQUESTS = 5500  # GET/s that S3 gives a prefix: "Best practices design patterns: optimizing Amazon S3 performance"


def main() -> None:
    """Prints words/s of the Reader and of jobs, and what follows for many machines."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--engine", default="auto")
    options.add_argument("--count", type=int, default=2000, help="words a turn")
    options.add_argument("--workers", type=int, nargs="*", default=[], help="also on Ray, with so many workers in turn")
    options.add_argument("--page", type=Path, metavar="FILE", help="write the figures into this page")
    chosen = options.parse_args()
    report = Report("job", chosen.json)
    pictures, _ = words(chosen.data, chosen.count)
    figures: dict[str, Any] = {"count": chosen.count, "bytes": sum(map(len, pictures)) / len(pictures)}
    with tempfile.TemporaryDirectory() as folder:
        inputs = {name: make(Path(folder) / name, pictures) for name, make in INPUTS.items()}
        figures |= speeds(chosen.engine, pictures, inputs, Path(folder) / "out")
        figures["ray"] = [
            on_ray(inputs["tar archives"], Path(folder) / "out", chosen.engine, n) for n in chosen.workers
        ]
    figures |= beyond(figures)
    for line in in_words(figures):
        print(line.strip("|- "))
    others = report.write(figures)
    if chosen.page is not None:
        write_block(chosen.page, "job", in_words(figures), others)


def as_files(path: Path, pictures: list[bytes]) -> Path:
    """A folder of picture files."""
    path.mkdir()
    for i, picture in enumerate(pictures):
        (path / f"{i:08}.png").write_bytes(picture)
    return path


def as_archives(path: Path, pictures: list[bytes]) -> Path:
    """A folder of eight tar archives."""
    path.mkdir()
    for k in range(8):
        with tarfile.open(path / f"{k}.tar", "w") as tar:
            for i, picture in enumerate(pictures[k::8]):
                member = tarfile.TarInfo(f"{i:08}.png")
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
    return path


def as_table(path: Path, pictures: list[bytes]) -> Path:
    """A Parquet file."""
    table = pa.table({"image": pictures})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="none")
    return path


def as_lmdb(path: Path, pictures: list[bytes]) -> Path:
    """An LMDB data set."""
    with LmdbWriter(path) as writer:
        for picture in pictures:
            writer.add(picture, "label")
    return path


INPUTS: dict[str, Callable[[Path, list[bytes]], Path]] = {
    "picture files": as_files,
    "tar archives": as_archives,
    "Parquet": as_table,
    "LMDB": as_lmdb,
}


def speeds(engine: str, pictures: list[bytes], inputs: dict[str, Path], output: Path) -> dict[str, Any]:
    """Words/s of the Reader on pictures in memory, of jobs with it, and of jobs without a network."""
    reader = Reader(engine=engine)
    rates = []
    for _ in range(2):  # the first is to warm up
        began = time.perf_counter()
        for _ in reader.read_many(Item(str(i), picture) for i, picture in enumerate(pictures)):
            pass
        rates.append(len(pictures) / (time.perf_counter() - began))
    rows = []
    for name, path in inputs.items():
        row: dict[str, Any] = {"input": name}
        row["words_per_second"], row["result_bytes"] = job(path, output, engine, Here())
        row["alone"], _ = job(path, output, Light(), Here())
        rows.append(row)
    return {
        "engine": reader.engine,
        "processors": usable_processors(),
        "reader": rates[-1],
        "inputs": rows,
        "result_bytes": sum(row["result_bytes"] for row in rows) / len(rows) / len(pictures),
    }


def job(source: Path, output: Path, engine: Any, runner: Runner, threads: int | None = None) -> tuple[float, int]:
    """(words/s of a job, from its first word on; the bytes of its results)."""
    reader = {"engine": engine, "threads": threads}
    made = run(Job(str(source), str(output), reader, Layout(1000)), runner)
    size = sum(path.stat().st_size for path in output.glob("part-*.parquet"))
    shutil.rmtree(output)
    return made["counts"]["words"] / made["seconds"], size


def on_ray(source: Path, output: Path, engine: str, workers: int) -> dict[str, Any]:
    """Words/s on a Ray of this machine, from when every worker may have read its first part."""
    from crnn.jobs.onray import OnRay

    done: list[tuple[float, int]] = []
    wanted = Job(str(source), str(output), {"engine": engine, "threads": 1}, Layout(1000))
    with OnRay(workers=workers) as runner:
        run(wanted, runner, lambda status: done.append((time.perf_counter(), status.words)))
    shutil.rmtree(output)
    (begin, first), (end, last) = done[workers - 1], done[-1]
    return {"workers": workers, "words_per_second": (last - first) / (end - begin)}


def beyond(figures: dict[str, Any]) -> dict[str, Any]:
    """What one core reads, and how many of them a network link and an object store can feed."""
    core = median(row["words_per_second"] for row in figures["inputs"]) / figures["processors"]
    return {
        "a_core": core,
        "bytes_a_core": core * figures["bytes"],
        "cores_of_a_link": NETWORK / (core * figures["bytes"]),
        "cores_of_a_prefix": REQUESTS / core,
    }


def in_words(figures: dict[str, Any]) -> list[str]:
    """The figures as they stand in docs/jobs.md."""
    lines = [
        f"The Reader alone, on pictures in memory: {figures['reader']:,.0f} words/s ({figures['engine']}; "
        f"{figures['processors']} processors).",
        "",
        "| input | words/s of a job | of the Reader's own | words/s without a network |",
        "|---|---|---|---|",
    ]
    for row in figures["inputs"]:
        share = row["words_per_second"] / figures["reader"]
        lines.append(f"| {row['input']} | {row['words_per_second']:,.0f} | {share:.0%} | {row['alone']:,.0f} |")
    if figures["ray"]:
        on = [
            f"{row['workers']} {'worker' if row['workers'] == 1 else 'workers'} {row['words_per_second']:,.0f} words/s"
            for row in figures["ray"]
        ]
        lines += ["", f"On Ray, in workers of one thread: {', '.join(on)}."]
    lines += [
        "",
        f"In these jobs a core reads {figures['a_core']:,.0f} words/s: {figures['bytes_a_core'] / 1e6:,.2f} MB/s of "
        f"pictures, {figures['bytes'] / 1000:,.1f} kB each, and "
        f"{figures['a_core'] * figures['result_bytes'] / 1e3:,.2f} kB/s of results. By calculation, a 10 Gbit/s link "
        f"feeds {figures['cores_of_a_link']:,.0f} cores. A store with "
        f"{REQUESTS:,} requests/s a prefix, as S3, feeds {figures['cores_of_a_prefix']:,.0f} cores with "
        "picture files from one prefix; archives and Parquet files are read by the megabyte, so there the link counts.",
    ]
    return lines


if __name__ == "__main__":
    main()
