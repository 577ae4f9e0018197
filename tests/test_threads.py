"""Threads that share a Reader get what one thread gets."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crnn
from crnn import Item, Reader
from crnn.datasets.lmdb import LmdbReader

THREADS = 8
READS = 5000


def test_eight_threads_share_a_reader() -> None:
    words = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb")
    items = [Item(words.key(i), words.image_bytes(i)) for i in range(len(words))]
    reader = Reader(batch_size=16)
    expected = {item.source: reader.read(item).text for item in items}
    assert len(set(expected.values())) > len(items) // 2

    def read(seed: int) -> list[tuple[str | None, str]]:
        """Words one by one and as streams, in an order of the thread's own; as (source, text)."""
        choose = random.Random(seed)
        got: list[tuple[str | None, str]] = []
        while len(got) < READS // THREADS:
            some = choose.choices(items, k=min(choose.choice((1, 5, 40)), READS // THREADS - len(got)))
            found = [reader.read(some[0])] if len(some) == 1 else list(reader.read_many(some))
            assert [word.source for word in found] == [item.source for item in some]
            got += [(word.source, word.text) for word in found]
        return got

    with ThreadPoolExecutor(THREADS) as pool:
        results = [pair for result in pool.map(read, range(THREADS)) for pair in result]
    assert len(results) == READS
    assert [pair for pair in results if pair[1] != expected[pair[0] or ""]] == []
