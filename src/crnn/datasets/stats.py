"""What a data set is made of: labels and pictures, counted and measured."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from crnn.datasets.words import Unusable, WordSource, checked

PERCENTILES = (0, 5, 50, 95, 100)
"""Those that are given of each measure of the pictures."""


def measure(source: WordSource, advance: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
    """Counts and measures of a data set, as JSON values.

    ``words`` and ``left_out`` (by kind: :class:`crnn.datasets.words.Unusable`) count entries; all else is of the words
    that can be used. ``labels``: number of ``distinct`` ones, ``lengths`` and ``cases`` (see :func:`case`) with their
    counts, ``mean_length``, and each of the ``characters`` with its count, the most frequent first. ``pictures``: the
    percentiles :data:`PERCENTILES` of ``width`` and ``height`` in pixels, of the ``aspect`` (width / height) and of the
    ``contrast``, which is the difference between the 99th and the 1st percentile of a picture's gray values, 0 to 1.

    Raises DatasetError if the data set cannot be read on.
    """
    lengths: Counter[int] = Counter()
    cases: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    distinct: set[str] = set()
    pictures = {name: array("f") for name in ("width", "height", "aspect", "contrast")}
    for done, entry in enumerate(source, 1):
        advance(done)
        word = checked(entry)
        if isinstance(word, Unusable):
            left_out[word.kind] += 1
            continue
        lengths[len(word.label)] += 1
        cases[case(word.label)] += 1
        characters.update(word.label)
        distinct.add(word.label)
        picture = word.picture
        for name, value in zip(
            pictures, (*picture.size, picture.width / picture.height, contrast(picture)), strict=True
        ):
            pictures[name].append(value)
    words = lengths.total()
    return {
        "path": str(source.path),
        "format": source.format,
        "read_as": source.decided,
        "words": words,
        "left_out": dict(left_out.most_common()),
        "labels": {
            "distinct": len(distinct),
            "mean_length": round(sum(k * n for k, n in lengths.items()) / words, 3) if words else None,
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
            "cases": dict(cases.most_common()),
            "characters": dict(sorted(characters.items(), key=lambda item: (-item[1], item[0]))),
        },
        "pictures": {name: _percentiles(values) for name, values in pictures.items()},
    }


def case(label: str) -> str:
    """``lower``, ``upper``, ``capitalised`` (upper, then lower), ``mixed``; without letters ``digits`` or ``other``.

    Letters that have no case, as in Chinese, are ``other`` too.
    """
    letters = "".join(character for character in label if character.isalpha())
    if letters.lower() == letters.upper():
        return "digits" if not letters and any(character.isdigit() for character in label) else "other"
    if letters == letters.lower():
        return "lower"
    if letters == letters.upper():
        return "upper"
    return "capitalised" if letters == letters[0].upper() + letters[1:].lower() else "mixed"


def contrast(picture: Image.Image) -> float:
    """The difference between the 99th and the 1st percentile of a gray picture's values, 0 to 1."""
    share = np.cumsum(picture.histogram()) / (picture.width * picture.height)
    low, high = np.searchsorted(share, (0.01, 0.99))
    return float(high - low) / 255


def _percentiles(values: array[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(np.array(values), PERCENTILES).tolist()
    return {f"p{p}": round(value, 3) for p, value in zip(PERCENTILES, found, strict=True)}
