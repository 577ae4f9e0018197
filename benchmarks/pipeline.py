"""From files to words beside the network alone: how much of its speed a user gets, and how long one word takes.

``python benchmarks/pipeline.py [--data LMDB] [--engine NAME]``
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Report, default_data, parser, typical, words

from crnn.bench.machine import peak_memory
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine, open_engine
from crnn.engines.processors import usable_processors
from crnn.images import normalise, prepare
from crnn.reader import Item, Reader

BATCH = 64


def main() -> None:
    """Prints words/s from LMDB to words and of the network alone, latencies of one word, and growth with the count."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--engine", default="auto")
    options.add_argument("--count", type=int, default=1000, help="words a turn")
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0, help="for the latencies")
    chosen = options.parse_args()
    cold = [start_to_end(chosen.data, chosen.engine) for _ in range(5)]
    report = Report("pipeline", chosen.json)
    engine = open_engine(name=chosen.engine)
    print(f"{engine.name} {engine.version}, {engine.precision}, {engine.threads} threads")
    described = {"engine": engine.name, "version": engine.version, "precision": engine.precision}
    rows = growth(chosen.engine, chosen.data, 4 * chosen.count)  # first, while the process is small
    speeds = throughput(chosen.engine, chosen.data, chosen.count, chosen.turns)
    one = latency(chosen.engine, chosen.data, chosen.seconds)
    print(f"crnn read FILE from the shell: {median(cold):.2f} s (below 1 s)")
    size = {"data": chosen.data.name, "count": chosen.count}
    report.write(
        {**described, "threads": engine.threads, **size, **speeds, **one, "cold": sorted(cold), "growth": rows}
    )


def throughput(name: str, data: Path, count: int, turns: int) -> dict[str, Any]:
    """Words/s of the whole way and of the network alone, in turn.

    The network has all processors either in one call or in as many calls of one thread: what is faster counts.
    """
    reader = Reader(engine=name)
    source = LmdbReader(data)
    together, single = open_engine(name=name), open_engine(name=name, threads=1)
    pixels = [prepare(source.image_bytes(i % len(source)), together.spec) for i in range(count)]
    batches = [normalise(np.stack(pixels[i : i + BATCH]), together.spec) for i in range(0, count, BATCH)]

    def items() -> Iterator[Item]:
        for i in range(count):
            yield Item(source.key(i % len(source)), source.image_bytes(i % len(source)))

    def whole() -> None:
        assert sum(1 for _ in reader.read_many(items())) == count

    def network(engine: Engine, calls: int) -> Callable[[], None]:
        def run() -> None:
            with ThreadPoolExecutor(calls) as pool:
                for _ in pool.map(engine.run, batches):
                    pass

        return run

    ways = {"whole": whole, "one call": network(together, 1), "calls": network(single, usable_processors())}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if turn:  # the first is to warm up
                speeds[way].append(count / (time.perf_counter() - began))
    middle = {way: median(of_way) for way, of_way in speeds.items()}
    own = max(middle["one call"], middle["calls"])
    print(f"LMDB to words: {middle['whole']:.0f} words/s, {middle['whole'] / own:.0%} of the network's own {own:.0f}")
    return {"words_per_second": middle["whole"], "network": own, "share": middle["whole"] / own}


def latency(name: str, data: Path, seconds: float) -> dict[str, float]:
    """Seconds of one warm word, from a path to a Word, and of the network in it, each in its turn."""
    reader, engine = Reader(engine=name), open_engine(name=name)
    file, _ = words(data, 1)
    batch = normalise(prepare(file[0], engine.spec)[np.newaxis], engine.spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.png"
        path.write_bytes(file[0])
        rounds = [
            (typical(lambda: reader.read(path), seconds / 8), typical(lambda: engine.run(batch), seconds / 8))
            for _ in range(4)
        ]
    whole, network = (median(of) for of in zip(*rounds, strict=True))
    more = 1000 * (whole - network)
    print(f"one word: {1000 * whole:.2f} ms, {more:.2f} ms more than the network's {1000 * network:.2f} (at most 0.7)")
    return {"latency": whole, "network_latency": network}


def growth(name: str, data: Path, most: int) -> list[dict[str, float]]:
    """Seconds for more and more words, and the process's peak memory up to then."""
    reader = Reader(engine=name)
    source = LmdbReader(data)
    counts = [count for count in (1, 4, 16, 64, 256, 1024, 4096, 16384) if count <= most]
    rows = []
    for count in counts:
        items = (source.image_bytes(i % len(source)) for i in range(count))
        began = time.perf_counter()
        for _ in reader.read_many(items):
            pass
        rows.append({"words": count, "seconds": time.perf_counter() - began, "memory": float(peak_memory() or 0)})
    last = rows[-1]
    print(f"{last['words']:.0f} words: {last['seconds']:.2f} s")
    return rows


def start_to_end(data: Path, engine: str) -> float:
    """Seconds of ``crnn read`` as a new process, its files in the system's cache."""
    file, _ = words(data, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.png"
        path.write_bytes(file[0])
        command = [sys.executable, "-m", "crnn", "read", "--engine", engine, str(path)]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
