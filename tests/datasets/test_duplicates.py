"""The index finds exactly the pairs that comparing all with all finds, and quickly."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crnn.datasets.duplicates import CORRELATION, Fingerprints, _near, alike


def hashes(count: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64)


def flipped(values: NDArray[np.uint64], bits: int, seed: int) -> NDArray[np.uint64]:
    """``values`` with just so many bits changed in each."""
    dice = np.random.default_rng(seed)
    masks = [sum(1 << int(bit) for bit in dice.choice(64, bits, replace=False)) for _ in values]
    return values ^ np.array(masks, np.uint64)


@pytest.mark.parametrize("bits", [0, 1, 4, 7, 8, 12])
def test_up_to_seven_bits_are_found(bits: int) -> None:
    first = hashes(500, 1)
    pairs = _near(first, flipped(first, bits, 2))
    expected = [(k, k) for k in range(500)] if bits <= 7 else []
    assert [tuple(pair) for pair in pairs.tolist()] == expected


def test_the_index_agrees_with_comparing_all_with_all() -> None:
    dice = np.random.default_rng(4)
    first = dice.integers(0, 4, (300, 8), np.uint8).view(np.uint64).ravel()  # few bits set: many near pairs
    second = dice.integers(0, 4, (200, 8), np.uint8).view(np.uint64).ravel()
    distance = np.array([[bin(int(a) ^ int(b)).count("1") for b in second] for a in first])
    expected = np.argwhere(distance <= 7)
    assert len(expected) > 100
    assert _near(first, second).tolist() == expected.tolist()


def test_nothing_is_near_where_nothing_is() -> None:
    none = np.empty(0, np.uint64)
    assert _near(none, none).shape == _near(none, hashes(3, 0)).shape == _near(hashes(3, 0), none).shape == (0, 2)
    assert alike(Fingerprints(), Fingerprints()) == []


def prints(pictures: list[Image.Image]) -> Fingerprints:
    found = Fingerprints()
    for picture in pictures:
        found.add(picture)
    return found


def test_the_most_alike_is_named_and_plain_pictures_are_like_nothing() -> None:
    dice = np.random.default_rng(7)
    pictures = [Image.fromarray(dice.integers(0, 256, (8, 25), np.uint8)).resize((100, 32)) for _ in range(40)]
    plain = [Image.new("L", (60, 20), value) for value in (0, 128, 255)]
    worse = [picture.point([min(255, v * 3 // 4 + 40) for v in range(256)]).rotate(1) for picture in pictures]
    found = alike(prints([*plain, *pictures]), prints([*plain, *worse, *reversed(pictures)]))
    assert [(pair.first, pair.second) for pair in found] == [(3 + k, 3 + 40 + 39 - k) for k in range(40)]
    assert all(pair.correlation >= max(CORRELATION, 0.9999) for pair in found)


def test_large_sets_and_many_copies_take_seconds() -> None:
    """50,000 against 50,000, where comparing all with all would be 2,500,000,000 pairs."""
    first, second = hashes(50_000, 1), hashes(50_000, 2)
    second[:100] = flipped(first[:100], 6, 3)
    start = time.perf_counter()
    pairs = [(a, b) for a, b in _near(first, second).tolist()]
    assert time.perf_counter() - start < 60
    by_chance = set(pairs) - {(k, k) for k in range(100)}
    assert len(pairs) - len(by_chance) == 100
    assert len(by_chance) < 3 and all(bin(int(first[a] ^ second[b])).count("1") <= 7 for a, b in by_chance)

    copies = prints([Image.linear_gradient("L").rotate(90)] * 2000)
    assert len(alike(copies, copies)) == 2000
