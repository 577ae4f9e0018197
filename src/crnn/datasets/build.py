"""Building an LMDB data set from labelled words of any format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from crnn.datasets.lmdb import LmdbWriter
from crnn.datasets.words import Entry, Unusable, WordSource, checked
from crnn.errors import DatasetError

Advance = Callable[[WordSource, int], object]
"""Called with a source and how many of its entries have been looked at."""


class Built(NamedTuple):
    """How many words were written, and how many were left out by the kind of reason."""

    words: int
    left_out: Counter[str]


def build(
    sources: Iterable[WordSource],
    out: Path,
    *,
    overwrite: bool = False,
    skip: Callable[[WordSource, int], bool] = lambda source, place: False,
    on_left_out: Callable[[WordSource, Entry, Unusable], object] = lambda source, entry, why: None,
    advance: Advance = lambda source, done: None,
) -> Built:
    """Write the words of ``sources``, one after the other, as one LMDB data set; only a few words are held at a time.

    Pictures are stored as they are, after a check that they can be decoded; labels are never changed. What cannot be
    used (:func:`crnn.datasets.words.checked`) is handed to ``on_left_out``. ``skip`` may pass over the entry at a
    place of its source, counted from 0.

    Raises DatasetError if the data set cannot be written, or if nothing is left to write; then nothing is.
    """
    left_out: Counter[str] = Counter()
    with LmdbWriter(out, overwrite=overwrite) as writer:
        for source in sources:
            for place, entry in enumerate(source):
                if not skip(source, place):
                    word = checked(entry)
                    if isinstance(word, Unusable):
                        left_out[word.kind] += 1
                        on_left_out(source, entry, word)
                    else:
                        writer.add(word.image, word.label)
                advance(source, place + 1)
        if not len(writer):
            raise DatasetError(f"{out}: not written, for there is no usable word to write")
        return Built(len(writer), left_out)
