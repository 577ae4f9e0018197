"""The labelled words of a data set on their way to a network: which ones, with what labels, and their pixels."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.split import is_held_out
from crnn.errors import CrnnError
from crnn.images import prepare
from crnn.protocols import COMPARED, Protocol
from crnn.spec import ModelSpec


def usable_labels(
    reader: LmdbReader, held_out: bool = False, protocol: Protocol = "alnum36"
) -> tuple[dict[int, str], dict[int, str]]:
    """(labels after the protocol, reasons why other words have none), both by index.

    ``held_out`` looks only at the words that training leaves alone (:mod:`crnn.datasets.split`).
    """
    labels: dict[int, str] = {}
    skipped: dict[int, str] = {}
    for i in range(len(reader)):
        if held_out and not is_held_out(i):
            continue
        try:
            stored = reader.label(i)
        except CrnnError as error:
            skipped[i] = str(error)
            continue
        if label := COMPARED[protocol](stored):
            labels[i] = label
        else:
            skipped[i] = f"nothing is left of the label {stored!r} under {protocol}"
    return labels, skipped


def prepared(
    reader: LmdbReader, indices: Sequence[int], spec: ModelSpec, batch_size: int
) -> Iterator[tuple[list[int], NDArray[np.uint8], dict[int, str]]]:
    """Words in order, as (indices, uint8[len(indices), *spec.picture_shape], reasons of those that cannot be decoded).

    Threads decode the next batches while the caller works on the last one: Pillow lets go of the interpreter lock.
    """

    def load(i: int) -> NDArray[np.uint8] | str:
        try:
            return prepare(reader.image(i, spec.picture_mode), spec)
        except CrnnError as error:
            return str(error)

    empty = np.empty((0, *spec.picture_shape), np.uint8)
    remaining = iter(indices)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode") as pool:

        def submit() -> list[tuple[int, Future[NDArray[np.uint8] | str]]]:
            return [(i, pool.submit(load, i)) for i in islice(remaining, batch_size)]

        ahead = deque([submit(), submit()])
        try:
            while batch := ahead.popleft():
                ahead.append(submit())
                results = [(i, future.result()) for i, future in batch]
                good = [(i, result) for i, result in results if not isinstance(result, str)]
                pixels = np.stack([result for _, result in good]) if good else empty
                yield [i for i, _ in good], pixels, {i: result for i, result in results if isinstance(result, str)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
