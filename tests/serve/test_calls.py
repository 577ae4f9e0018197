"""Which calls of the network words come into."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from tests.serve.light import Bars, Client, png, serving

from crnn.engines.lanes import Lane, Lanes
from crnn.serve.calls import Calls


def test_a_client_alone_gets_all_threads_and_a_crowd_gets_calls_beside_each_other() -> None:
    together = Barrier(2, timeout=20)
    crowded = False

    def meet(_: object) -> None:
        if crowded:
            together.wait()  # no call ends before another one runs beside it

    single, beside = Bars(), Bars(meet)
    lanes = Lanes.of(single, 1)
    lanes._stream = Lane(beside, 2)
    with serving(lanes, max_batch=4) as client:
        single.sizes.clear()
        assert [client.read(png(text)).texts for text in ("one", "two", "six")] == [["one"], ["two"], ["six"]]
        assert (single.sizes, beside.sizes) == ([1, 1, 1], [])
        crowded = True
        pictures = [("images", "", png(f"word{n}")) for n in range(8)]
        assert client.read_form(*pictures).texts == [f"word{n}" for n in range(8)]
        assert (len(single.sizes), beside.sizes) == (3, [4, 4])


def test_crowds_of_clients_are_read_right_in_both_ways() -> None:
    single, beside = Bars(), Bars()
    lanes = Lanes.of(single, 1)
    lanes._stream = Lane(beside, 2)
    with serving(lanes) as client, ThreadPoolExecutor(8) as pool:

        def read(number: int) -> bool:
            own = Client(client.port)
            return all(own.read(png(f"{number}a{n}")).texts == [f"{number}a{n}"] for n in range(20))

        assert all(pool.map(read, range(8)))
        assert sum(beside.sizes) > 0


def test_a_turn_is_given_back_whatever_fails() -> None:
    calls = Calls(Lanes.of(Bars(), 1))
    rows = np.zeros((1, 1, 32, 100), np.float32)

    def broken() -> np.ndarray:
        raise MemoryError("no room for the batch")

    for _ in range(3):  # with one turn in all, a lost one would be missed
        assert calls.take_turn(wait=False)
        with pytest.raises(MemoryError):
            calls.run(1, broken, alone=True)
        assert calls.failing and calls.longest() == 0
    assert calls.take_turn(wait=False)
    assert calls.run(1, lambda: rows, alone=True).shape == (26, 1, 37) and not calls.failing
