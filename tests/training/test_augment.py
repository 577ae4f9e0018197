"""How far real words are distorted."""

from __future__ import annotations

from random import Random

import numpy as np

from crnn.training.augment import LOW, augment


def spread(height: int) -> float:
    """Standard deviation of where a mark in the middle comes to lie, in heights of the picture."""
    picture = np.full((height, 3 * height), 40, np.uint8)
    middle = 3 * height // 2
    picture[:, middle - 1 : middle + 2] = 220
    places = []
    for seed in range(400):
        shown = augment(picture, 5, Random(seed)).astype(float)
        columns = np.abs(shown - np.median(shown)).mean(0)
        places.append(float(columns.argmax()) * 3 / shown.shape[1])
    return float(np.std(places))


def test_low_pictures_are_moved_half_as_far() -> None:
    assert 0.3 < spread(LOW - 1) / spread(2 * LOW) < 0.7


def test_very_wide_pictures() -> None:
    for height, width in ((48, 22_000), (20, 33_000), (1, 70_000), (300, 200_000)):
        picture = np.full((height, width), 90, np.uint8)
        for seed in range(12):
            assert augment(picture, 5, Random(seed)).ndim == 2
