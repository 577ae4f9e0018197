"""Which calls of the network words come into."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.serve.light import Bars, Client, png, serving

from crnn.engines.lanes import Lane, Lanes


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
