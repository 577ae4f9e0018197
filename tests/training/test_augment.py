"""How far real words are distorted."""

from __future__ import annotations

from random import Random

import numpy as np

from crnn.training.augment import LOW, _lit, augment


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


def test_another_light_moves_the_ground_and_leaves_the_letters() -> None:
    picture = np.tile(np.linspace(100, 140, 96, dtype=np.float32), (32, 1))
    picture[8:24, 40:44] = 230
    grounds = []
    for seed in range(200):
        lit = _lit(picture, Random(seed))
        assert lit.dtype == np.float32
        beside = lit[8:24, [34, 35, 48, 49]].mean()
        assert lit[8:24, 40:44].mean() - beside > 30
        grounds.append(float(beside))
    assert np.std(grounds) > 5
