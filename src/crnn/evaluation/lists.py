"""A word list for each word of a data set: its label among labels of other words, drawn by chance.

Papers report accuracy with lists of 50 and 1,000 words a picture (Wang, Babenko and Belongie 2011; Shi, Bai and Yao
2015), which their data sets bring along. These are not those lists: they are drawn here, from the labels at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from crnn.ctc import Scores
from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.decoder import Decoder, Reading
from crnn.decoding.lexicon import Lexicon
from crnn.errors import OptionError
from crnn.evaluation.words import usable_labels
from crnn.protocols import Protocol


class Lists:
    """Lists of ``size`` words, drawn with ``seed`` from ``labels``.

    Raises OptionError if there are not so many different labels, or fewer than 2 are asked for.
    """

    def __init__(self, labels: Iterable[str], size: int, seed: int = 0) -> None:
        self._pool = sorted(set(labels))
        if size < 2:
            raise OptionError(f"a list has at least 2 words, the label and another, not {size}")
        if size > len(self._pool):
            raise OptionError(
                f"lists of {size:,} words cannot be drawn from {len(self._pool):,} different labels; "
                "give more data sets, or a smaller --lexicon-size"
            )
        self.size, self.seed = size, seed
        self._place = {label: place for place, label in enumerate(self._pool)}

    @classmethod
    def of(cls, readers: Iterable[LmdbReader], size: int, seed: int = 0, protocol: Protocol = "alnum36") -> Lists:
        """Lists drawn from the labels, under the protocol, of all words of data sets, held out or not."""
        labels = (usable_labels(reader, protocol=protocol)[0] for reader in readers)
        return cls((label for each in labels for label in each.values()), size, seed)

    @property
    def known(self) -> dict[str, object]:
        """What a report says of the lists."""
        lists = {"size": self.size, "seed": self.seed, "drawn_from": len(self._pool)}
        return {
            "lists": {**lists, "origin": "drawn by this tool from the labels of the data sets, not published lists"}
        }

    def list_of(self, label: str, index: int) -> Lexicon:
        """The list of the word at ``index`` of its data set, in alphabetical order; depends on nothing else.

        Raises OptionError for a label that is none of those the lists are drawn from.
        """
        own = self._place.get(label)
        if own is None:
            raise OptionError(f"{label!r} is none of the labels that lists are drawn from")
        drawn = np.random.default_rng([self.seed, index]).choice(len(self._pool) - 1, self.size - 1, replace=False)
        others = drawn + (drawn >= own)  # all places but its own
        return Lexicon([self._pool[place] for place in np.sort(np.append(others, own)).tolist()], "list")


def decode(decoder: Decoder, lists: Lists | None, logp: Scores, words: Sequence[tuple[str, int]]) -> list[Reading]:
    """The N words of ``logp``, float[T, N, C], each with the list of its label and index in ``words``, if there are
    ``lists``.
    """
    if lists is None:
        return decoder.decode(logp)
    return [
        decoder.with_lexicon(lists.list_of(label, index)).decode(logp[:, n : n + 1])[0]
        for n, (label, index) in enumerate(words)
    ]
