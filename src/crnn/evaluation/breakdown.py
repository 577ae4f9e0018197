"""Where the errors are: the words of a report by length, by character, by confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein

from crnn.evaluation.metrics import wilson

Words = Sequence[dict[str, Any]]
"""Words as a report lists them: ``{key, label, text, confidence}``."""

THRESHOLDS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
_LENGTHS = 20  # more lengths than a chart has room for are put together
_POINTS = 200  # of a curve


class Group(NamedTuple):
    """Words that have something in common, at least one, and how many of them were read right."""

    name: str
    words: int
    right: int

    @property
    def accuracy(self) -> float:
        """The fraction read right."""
        return self.right / self.words

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson(self.right, self.words)


class Taken(NamedTuple):
    """The words of at least a ``confidence``: their number, and how many of them were read right."""

    confidence: float
    words: int
    right: int


@dataclass
class CharacterCount:
    """How one character fares in the alignment of labels and texts."""

    labels: int = 0
    """Times it is in the labels."""
    read: int = 0
    """Times it is in the texts."""
    right: int = 0
    """Times it is in both, at the same place."""

    @property
    def recall(self) -> float | None:
        """Of those in the labels, the fraction read right; None if there are none."""
        return self.right / self.labels if self.labels else None

    @property
    def precision(self) -> float | None:
        """Of those read, the fraction that is right; None if there are none."""
        return self.right / self.read if self.read else None

    @property
    def faults(self) -> int:
        """Times it was lost, or read where it is not."""
        return self.labels + self.read - 2 * self.right


@dataclass
class Alignment:
    """All labels aligned with their texts by the fewest edit operations.

    Where several alignments are equally short (``aab`` read as ``ab``), one of them is taken, always the same.
    """

    characters: dict[str, CharacterCount] = field(default_factory=dict)
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often which character of a label was read as which: ("o", "0"). ("l", "") is lost, ("", "i") added."""
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Of each operation, the (label, text) of the word it first came up in."""


def align(words: Words) -> Alignment:
    """Align the label of each word with its text."""
    result = Alignment()

    def count(character: str) -> CharacterCount:
        return result.characters.setdefault(character, CharacterCount())

    for word in words:
        label, text = word["label"], word["text"]
        for character in label:
            count(character).labels += 1
        for character in text:
            count(character).read += 1
        for piece in Levenshtein.opcodes(label, text):
            lost, added = label[piece.src_start : piece.src_end], text[piece.dest_start : piece.dest_end]
            if piece.tag == "equal":
                for character in lost:
                    count(character).right += 1
                continue
            # A replaced piece is as long as what it is replaced by; of the other two, one side is empty.
            for pair in zip(lost or [""] * len(added), added or [""] * len(lost), strict=True):
                result.operations[pair] += 1
                result.examples.setdefault(pair, (label, text))
    return result


def by_length(words: Words) -> list[Group]:
    """The words by the number of characters in the label, the longest put together if there are many lengths."""
    totals = Counter(len(word["label"]) for word in words)
    rights = Counter(len(word["label"]) for word in words if word["label"] == word["text"])
    lengths = sorted(totals)
    groups = [Group(str(length), totals[length], rights[length]) for length in lengths[:_LENGTHS]]
    if rest := lengths[_LENGTHS:]:
        groups.append(Group(f"{rest[0]}+", sum(totals[k] for k in rest), sum(rights[k] for k in rest)))
    return groups


def above(words: Words, thresholds: Sequence[float] = THRESHOLDS) -> list[Taken]:
    """How many words are left, and how many of them right, if those of less confidence are put aside."""
    return [
        Taken(least, len(kept), sum(word["label"] == word["text"] for word in kept))
        for least in thresholds
        for kept in [[word for word in words if word["confidence"] >= least]]
    ]


def coverage(words: Words) -> list[Taken]:
    """The same for every threshold there is, surest first; thinned out to about 200 of them.

    Words of equal confidence can only be taken together, and so are one point.
    """
    points: list[Taken] = []
    right = 0
    ordered = sorted(words, key=lambda word: -word["confidence"])
    for taken, word in enumerate(ordered, 1):
        right += word["label"] == word["text"]
        point = Taken(word["confidence"], taken, right)
        if points and points[-1].confidence == point.confidence:
            points[-1] = point
        else:
            points.append(point)
    step = -(-len(points) // _POINTS)
    return points[::-1][::step][::-1]  # from the end, so that the last one, all words, stays
