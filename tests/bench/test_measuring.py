from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from crnn.bench.machine import Others, describe, peak_memory
from crnn.bench.products import LIBRARIES, open_product, rate
from crnn.bench.run import bench, percentile
from crnn.bench.worker import Worker
from crnn.errors import EngineError, ModelError, OptionError


def test_a_percentile_is_a_value_that_enough_others_do_not_exceed() -> None:
    dice = random.Random(0)
    for count in range(1, 40):
        values = sorted(dice.random() for _ in range(count))
        for percent in (1, 50, 99, 100):
            found = percentile(values, percent)
            below = [value for value in values if value < found]
            assert len(below) < count * percent / 100 <= sum(value <= found for value in values)


def test_memory_that_was_given_back_still_counts() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not count it")
    block = bytearray(256 << 20)
    block[:: 1 << 12] = bytes(len(block[:: 1 << 12]))
    del block
    after = peak_memory()
    assert after is not None and after >= before
    assert after >= 256 << 20


def test_own_work_is_not_that_of_others_nor_is_that_of_children() -> None:
    others = Others([])
    before = others._now()
    if before is None:
        pytest.skip("this system does not count it")
    work = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    after = others._now()
    assert after is not None
    assert after[2] - before[2] >= 0.35  # the child's
    assert after[1] - before[1] >= after[2] - before[2] - 0.1  # all work holds our own, but for the clocks' ticks
    share = others.share()
    assert share is not None and 0 <= share <= 1
    assert Others([0]).share() is None  # no such process: nothing can be said


def test_the_machine_has_a_name_and_processors() -> None:
    processor = describe()["processor"]
    assert processor["name"] and processor["usable"] >= 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_product_can_be_measured(library: str) -> None:
    pytest.importorskip(library)
    for precision in LIBRARIES[library]:
        multiply = open_product(library, precision, threads=1, size=128)
        began = time.perf_counter()
        found = rate(multiply, size=128, seconds=0.02)
        assert found >= 128**3 / (time.perf_counter() - began)  # the best call is no slower than all of them together


def test_a_worker_raises_what_goes_wrong_in_it_and_goes_on() -> None:
    worker = Worker(1)
    try:
        with pytest.raises(ModelError, match="no such model"):
            worker.ask(do="open", model="none.onnx", engine="onnxruntime", precision=None, threads=1)
        assert worker.ask(do="open", model=None, engine="onnxruntime", precision=None, threads=1)["threads"] == 1
        assert len(worker.ask(do="run", batch=2, seconds=0.01)["calls"]) >= 1
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended with status -9"):
            worker.ask(do="run", batch=2, seconds=0.01)
    finally:
        worker.close()


def test_options_are_checked_before_anything_starts() -> None:
    with pytest.raises(OptionError, match="batch sizes"):
        bench(batch_sizes=[0])
    with pytest.raises(OptionError, match="seconds"):
        bench(seconds=0)
    with pytest.raises(OptionError, match="unknown precision 'float8'"):
        bench(precisions=["float8"])
