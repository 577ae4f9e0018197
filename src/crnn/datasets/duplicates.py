"""Pictures that look alike, found among hundreds of thousands without comparing all with all.

Each picture, prepared as the network sees it (32 x 100, gray), gets two fingerprints: a difference hash of 64 bits
(8 rows of 9 mean values; a bit says whether one is brighter than its left neighbour, by a fifth of the standard
deviation at least, so that noise on plain ground does not count) and a thumbnail of 8 x 16 values. Two pictures look
alike if their hashes differ in at most 7 bits and their thumbnails correlate to 0.95 or more.

The hashes are compared by multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with
multi-index hashing", CVPR 2012): of four bands of 16 bits, two hashes that differ in at most 7 bits have one that
differs in at most 1, so it is enough to look up each band and its 16 neighbours in a sorted list.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crnn.images import prepare
from crnn.spec import DELIVERABLE

CORRELATION = 0.95
_BITS = 7
_ROWS, _COLUMNS = 8, 16  # of a thumbnail
_MARGIN = 0.2  # standard deviations
_PLAIN = 2.0  # gray values; pictures with less deviation than this show nothing that could be compared
_CHUNK = 1 << 18  # pairs looked at at once

_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


class Alike(NamedTuple):
    """Picture ``first`` of one set looks like picture ``second`` of the other; ``correlation`` of the thumbnails."""

    first: int
    second: int
    correlation: float


class Fingerprints:
    """Those of a set of pictures, 136 bytes each, in the order in which they were added."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._thumbnails = bytearray()

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, picture: Image.Image) -> None:
        """Append a picture's."""
        prepared = Image.fromarray(prepare(picture, DELIVERABLE))
        means = np.asarray(prepared.resize((9, 8), Image.Resampling.BOX), np.float32)
        bits = np.diff(means, axis=1) > np.float32(_MARGIN) * means.std()
        self._hashes.append(int.from_bytes(np.packbits(bits).tobytes(), "little"))
        self._thumbnails += prepared.resize((_COLUMNS, _ROWS), Image.Resampling.BOX).tobytes()

    def hashes(self) -> NDArray[np.uint64]:
        """uint64[N]."""
        return np.array(self._hashes, np.uint64)

    def thumbnails(self) -> NDArray[np.uint8]:
        """uint8[N, 128]."""
        values: NDArray[np.uint8] = np.frombuffer(bytes(self._thumbnails), np.uint8)
        return values.reshape(-1, _ROWS * _COLUMNS)


def alike(first: Fingerprints, second: Fingerprints) -> list[Alike]:
    """The pictures of ``first`` that look like one of ``second``, in order, each with the one it looks most like."""
    hashes1, members1 = _grouped(first.hashes())
    hashes2, members2 = _grouped(second.hashes())
    thumbnails1, thumbnails2 = first.thumbnails(), second.thumbnails()
    pairs = _near(hashes1, hashes2)
    found = []
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    for near in np.split(pairs, starts[1:]) if len(pairs) else []:
        ones = members1[near[0, 0]]
        others = np.concatenate([members2[k] for k in near[:, 1]])
        candidates = _standardised(thumbnails2[others])
        step = max(1, _CHUNK // len(others))
        for part in (ones[start : start + step] for start in range(0, len(ones), step)):
            correlation = _standardised(thumbnails1[part]) @ candidates.T
            best = correlation.argmax(axis=1)
            for k, other in enumerate(best.tolist()):
                if correlation[k, other] >= CORRELATION:
                    found.append(Alike(int(part[k]), int(others[other]), float(correlation[k, other])))
    return sorted(found)


def _grouped(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], list[NDArray[np.intp]]]:
    """The different hashes, and which pictures have each."""
    different, starts = np.unique(np.sort(hashes), return_index=True)
    return different, np.split(np.argsort(hashes, kind="stable"), starts[1:])


def _near(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.intp]:
    """intp[K, 2]: the pairs (index in ``first``, index in ``second``) of hashes that differ in at most 7 bits."""
    found = [np.empty(0, np.intp)]
    for band in range(4):
        shift = np.uint64(16 * band)
        bands = [((hashes >> shift) & np.uint64(0xFFFF)).astype(np.uint16) for hashes in (first, second)]
        order = np.argsort(bands[0], kind="stable")
        ordered = bands[0][order]
        for flipped in (0, *(1 << bit for bit in range(16))):
            wanted = bands[1] ^ np.uint16(flipped)
            starts = np.searchsorted(ordered, wanted, "left")
            counts = np.searchsorted(ordered, wanted, "right") - starts
            for row, offset in _expanded(counts, _CHUNK):
                candidates = order[starts[row] + offset]
                near = _differing(first[candidates], second[row]) <= _BITS
                found.append(np.unique(candidates[near] * len(second) + row[near]))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // max(1, len(second)), pairs % max(1, len(second))], axis=1)


def _differing(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint8]:
    counts: NDArray[np.uint8] = _ONES[(a ^ b).view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)
    return counts


def _expanded(counts: NDArray[np.intp], limit: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(row, offset) for every row and every offset in 0..counts[row], in arrays of at most ``limit``."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, limit):
        flat = np.arange(start, min(start + limit, total))
        row = np.searchsorted(ends, flat, "right")
        yield row, flat - (ends[row] - counts[row])


def _standardised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[N, 128], the scalar products of which are Pearson's correlations; 0 for a plain picture."""
    values = thumbnails - thumbnails.mean(axis=1, keepdims=True, dtype=np.float32)
    deviation = values.std(axis=1, keepdims=True)
    length = np.sqrt(np.float32(values.shape[1])) * np.maximum(deviation, np.float32(_PLAIN))
    return np.where(deviation < _PLAIN, np.float32(0), values / length)
