"""A job's memory over many real words, read by the real network."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from crnn.datasets.lmdb import LmdbReader
from crnn.engines.processors import processor
from crnn.jobs.run import Here, Job, Status, run

# Without instructions for int8, as many words as elsewhere take nine minutes; benchmarks/job_memory.py reads them all.
COUNT = 50_000 if {"amx_int8", "avx512_vnni", "avx_vnni"}.intersection(processor()["features"]) else 20_000


@pytest.mark.long
def test_it_is_level_over_many_words(data_dir: Path, tmp_path: Path) -> None:
    links(data_dir / "IIIT5K_train_lmdb", tmp_path / "in")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # which holds nothing of other tests
        held = pool.submit(watched, tmp_path / "in", tmp_path / "out").result()
    assert len(held) == COUNT // 1000
    tenth = len(held) // 10
    early, late = held[2 * tenth : 5 * tenth], held[7 * tenth :]  # the first words make room for what is used again
    # It goes up and down by some 30 MiB with how many pictures wait at the moment; losing 1 kB a word would show, and
    # 2 kB where the words are fewer.
    assert median(late) - median(early) < 16 << 20, [round(size / 2**20) for size in held]


def links(source: Path, folder: Path) -> None:
    """A folder with :data:`COUNT` names for the pictures of a data set."""
    folder.mkdir()
    reader = LmdbReader(source)
    pictures = [reader.image_bytes(i) for i in range(len(reader))]
    for i in range(COUNT):
        file = folder / f"{i:06}.png"
        if i < len(pictures):
            file.write_bytes(pictures[i])
        else:
            os.link(folder / f"{i % len(pictures):06}.png", file)


def watched(source: Path, output: Path) -> list[int]:
    """Bytes that this process holds after each thousand words of a job; called in a process of its own."""
    held: list[int] = []

    def watch(status: Status) -> None:
        if status.words >= 1000 * (len(held) + 1):
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    # int8: the bundled weights on every processor, and the quickest of their precisions on most.
    made = run(Job(str(source), str(output), {"engine": "openvino", "precision": "int8"}), Here(), watch)
    assert made["counts"]["words"] == COUNT and not made["counts"]["errors"]
    return held
