"""The same rows on Ray, a worker killed in the middle included; and the Reader in a Ray job of one's own."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from tests.jobs import light
from tests.jobs.conftest import rows

import crnn
from crnn.datasets.lmdb import LmdbReader
from crnn.errors import EngineError, OptionError
from crnn.jobs import onray
from crnn.jobs.onray import OnRay
from crnn.jobs.reading import TooManyErrors
from crnn.jobs.run import Here, Job, run
from crnn.jobs.units import Layout

ray = pytest.importorskip("ray")

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"
READER = {"engine": "onnxruntime", "precision": "float32", "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of two processors on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    options = {"include_dashboard": False, "object_store_memory": 100 << 20, "log_to_driver": False}
    ray.init(num_cpus=2, logging_level=logging.ERROR, **options)
    yield
    ray.shutdown()


def job(source: Path, output: Path, **options: Any) -> Job:
    return Job(str(source), str(output), READER, Layout(20), **options)


def workers() -> set[int]:
    """The process ids of the workers that read."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapBatches" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:  # it has ended
            continue
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of 200 pictures, two of them bad."""
    (tmp_path / "in").mkdir()
    sample = LmdbReader(SAMPLE)
    for i in range(200):
        data = b"nothing" if i in (33, 150) else sample.image_bytes(i % 100)
        (tmp_path / "in" / f"{i:03}.png").write_bytes(data)
    return tmp_path / "in"


def test_the_same_rows_with_a_worker_killed_in_the_middle(source: Path, tmp_path: Path) -> None:
    here = run(job(source, tmp_path / "here", characters=True), Here())
    output = tmp_path / "there"
    seen: list[int] = []

    def kill() -> None:
        while not list(output.glob("part-*.parquet")) or len(workers()) < 2:
            time.sleep(0.01)
        os.kill(max(workers()), signal.SIGKILL)
        seen.append(len(list(output.glob("part-*.parquet"))))

    killer = threading.Thread(target=kill)
    killer.start()
    with OnRay(workers=2) as runner:
        there = run(job(source, output, characters=True), runner)
    killer.join()
    assert 1 <= seen[0] < 10  # it was in the middle
    assert rows(output) == rows(tmp_path / "here")
    assert there["counts"] == here["counts"] == {"parts": 10, "words": 200, "errors": 2}
    assert {**there, "seconds": 0} == {**here, "seconds": 0}
    assert ray.is_initialized()  # it was not ours to end


def test_it_goes_on_there_with_what_began_here(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(job(source, output), Here())
    before = rows(output)
    kept = (output / "part-000003.parquet").stat().st_mtime_ns
    for part in (1, 8):  # there is a bad picture in 1, and the other one in 7
        (output / f"part-{part:06}.parquet").unlink()
    begun, done = [], []
    with OnRay(workers=1) as runner:
        with pytest.raises(TooManyErrors, match="stopped: 2 of"):
            run(job(source, output, max_errors=1), runner, lambda status: begun.append(status.words))
        whole = run(job(source, output, max_errors=2), runner, lambda status: done.append(status.words))
    assert 180 in begun  # what is one too many was read there
    assert done[-1:] in ([200], [])  # nothing is left where part 8 was read before the stop was told
    assert whole["complete"] and rows(output) == before
    assert (output / "part-000003.parquet").stat().st_mtime_ns == kept


def test_what_cannot_work(source: Path, tmp_path: Path) -> None:
    with OnRay(npus=1) as runner, pytest.raises(OptionError, match=r"room for a worker \(1 processors and 1 NPU\)"):
        run(job(source, tmp_path / "out"), runner)
    with OnRay() as runner, pytest.raises(EngineError, match="no such model"):
        run(Job(str(source), str(tmp_path / "out"), {**READER, "model": "gone.onnx"}), runner)
    with OnRay() as runner, pytest.raises(OptionError, match="memory:// is of one process"):
        run(Job(str(source), "memory://out", READER, Layout(20)), runner)
    assert not (tmp_path / "out").exists()


def test_what_a_worker_raises_is_told() -> None:
    def broken() -> None:
        raise RuntimeError("a library of the worker is broken")

    with pytest.raises(EngineError, match=r"has failed \(RuntimeError: a library of the worker is broken\); the same"):
        OnRay()._result(lambda: ray.get(ray.remote(broken).remote()))


def test_a_part_that_kills_every_worker(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onray, "_TRIES", 1)
    ray.cloudpickle.register_pickle_by_value(light)
    poison = Job(str(source), str(tmp_path / "out"), {"engine": light.Deadly()}, Layout(400))
    with (
        OnRay(workers=1) as runner,
        pytest.raises(EngineError, match=r"part 0, .*000.png: reading it has ended its wor"),
    ):
        run(poison, runner)
    assert rows(tmp_path / "out") == []


def test_parts_do_not_pile_up_at_a_slow_worker(source: Path, tmp_path: Path) -> None:
    """Back-pressure: a worker has one part in hand and one waiting; the rest goes to whoever is free."""
    ray.cloudpickle.register_pickle_by_value(light)
    (tmp_path / "read").mkdir()
    uneven = Job(str(source), str(tmp_path / "out"), {"engine": light.Uneven(tmp_path / "read", 2.0)}, Layout(10))
    with OnRay(workers=2) as runner:
        made = run(uneven, runner)
    slow, others = light.Uneven.read(tmp_path / "read")
    assert made["counts"]["words"] == len(rows(tmp_path / "out")) == 200
    assert slow + others == 198  # two of the pictures are bad
    assert 0 < slow <= 50  # of 200, of which half would be its share


def test_all_workers_read_with_what_one_has_chosen(source: Path) -> None:
    with OnRay() as runner:
        found = runner.read_by({"engine": "auto", "threads": 1})
        assert runner._reader["engine"] == found["engine"]["name"]
        assert runner._reader["precision"] == found["engine"]["precision"] == crnn.Reader().network.precision
        runner.read_by({"engine": "torch", "threads": 1})
        assert runner._reader["engine"] == "torch" and "precision" not in runner._reader


def test_the_reader_in_a_job_of_ones_own(source: Path, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import ray" in block]
    for i in (33, *range(100, 200)):
        (source / f"{i:03}.png").unlink()
    exec(code.replace("s3://lake/crops", str(source)).replace("s3://lake/words", str(tmp_path / "out")), {})
    frame = pd.read_parquet(tmp_path / "out")
    words = {Path(path).name: text for path, text in zip(frame["path"], frame["text"], strict=True)}
    reader = crnn.Reader()
    assert words == {path.name: reader.read(path).text for path in source.glob("*.png")} and len(words) == 99
