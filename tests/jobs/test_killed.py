"""Killed at any moment and started again, a job loses no row, doubles none, and reads little twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.jobs.conftest import archive, folder, job, rows
from tests.jobs.light import Light, words_read

from crnn.jobs import run as running

PART = 10
COUNT = 90 * PART

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")


def child(source: Path, output: Path, log: Path, kill_at: int | None) -> None:
    """One run; ``kill_at``: it kills itself at the n-th file that takes its name."""
    replace, taken = os.replace, [0]

    def counted(old: os.PathLike[str], new: os.PathLike[str]) -> None:
        taken[0] += 1
        if taken[0] == kill_at and kill_at % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(old, new)
        if taken[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted  # type: ignore[assignment]
    wanted = job(source, output, PART, reader={"engine": Light(log, seconds=0.004)})
    running.run(wanted, running.Here())


@pytest.fixture(scope="module")
def starter() -> multiprocessing.context.ForkServerContext:
    """Starts a process in no time, from one that has everything imported and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.jobs.test_killed"])
    return context


def killed(starter: multiprocessing.context.ForkServerContext, after: float | None, *arguments: object) -> bool:
    """Whether a run was killed, by us ``after`` it has written its first new file, or by itself."""
    output = Path(str(arguments[1]))
    before = len(list(output.glob("*.parquet")))
    process = starter.Process(target=child, args=arguments)
    process.start()
    if after is not None:
        while process.is_alive() and len(list(output.glob("*.parquet"))) == before:
            time.sleep(0.001)
        time.sleep(after)
        process.kill()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("kind", ["folder", "archives"])
def test_killed_at_random_moments(
    kind: str, starter: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    source, output, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    if kind == "folder":
        folder(source, range(COUNT))
    else:
        source.mkdir()
        for i in range(0, COUNT, PART):
            (source / f"{i:06}.tar").write_bytes(archive(range(i, i + PART)))
    chance = random.Random(kind)
    kills = 0
    for at in (1, 2, 3, 4):  # by itself, before or after the listing, the manifest, a shard get their names
        kills += killed(starter, None, source, output, log, at)
    for _ in range(10):  # by us: of two kinds of input, that makes twenty
        kills += killed(starter, chance.uniform(0, 0.012), source, output, log, None)
    assert kills == 14
    done = len(list(output.glob("part-*.parquet")))
    assert 0 < done < COUNT / PART, "the kills came too late to tell anything"
    before = words_read(log)
    assert not killed(starter, None, source, output, log, None)
    assert words_read(log) - before == COUNT - done * PART  # what was there is not read again
    found = rows(output)
    assert sorted(row["text"] for row in found) == [f"{i:06}" for i in range(COUNT)]
    assert len({row["source"] for row in found}) == COUNT and not any(row["error"] for row in found)
    assert not [path for path in output.iterdir() if ".tmp" in path.name]
    assert (
        before <= (done + 3 * kills) * PART
    )  # a killed run has little in hand: a part and what the Reader looks ahead
