"""Which words of a data set a network can be trained on, and why not the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from crnn.ctc import required_steps
from crnn.errors import CrnnError

if TYPE_CHECKING:
    from crnn.datasets.lmdb import LmdbReader
    from crnn.spec import ModelSpec


_TOLD = 1000  # words looked at from one time that it is told to the next


@dataclass(frozen=True)
class Skipped:
    """A word left out: the key of its picture, the kind of reason (for counting) and the reason in words.

    ``characters`` are those of its label that the charset lacks, if that is the reason.
    """

    key: str
    kind: Literal["unreadable", "empty", "charset", "infeasible"]
    reason: str
    characters: str = ""


class Usable(NamedTuple):
    """What :func:`usable` found: parallel lists of indices into the reader and labels, and what was left out."""

    indices: list[int]
    labels: list[str]
    skipped: list[Skipped]


def usable(
    reader: LmdbReader,
    spec: ModelSpec,
    protocol: Callable[[str], str],
    *,
    decode: bool = True,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> Usable:
    """The words that ``spec``'s network can learn, with their labels after ``protocol``.

    Left out, with a reason: pictures and labels that are missing or cannot be decoded ("unreadable"; ``decode=False``
    looks at the labels only), labels of which the protocol leaves nothing ("empty"), labels with characters outside
    the spec's charset ("charset"), and labels for which the network has too few time steps ("infeasible",
    :func:`crnn.ctc.required_steps`). ``advance`` is told how many words of how many were looked at, now and then.

    Raises DatasetError if the data set cannot be opened.
    """
    found = Usable([], [], [])
    for i in range(total := len(reader)):
        if i % _TOLD == 0:
            advance(i, total)
        key = reader.key(i)
        try:
            stored = reader.label(i)
            label = protocol(stored)
            if decode:
                reader.image(i)
        except CrnnError as error:
            found.skipped.append(Skipped(key, "unreadable", str(error)))
            continue
        steps = required_steps(label)
        if not label:
            found.skipped.append(Skipped(key, "empty", f"nothing is left of the label {stored!r}"))
        elif not spec.charset.can_encode(label):
            unknown = "".join(c for c in dict.fromkeys(label) if not spec.charset.can_encode(c))
            reason = f"the label {label!r} has characters outside the charset"
            found.skipped.append(Skipped(key, "charset", reason, unknown))
        elif steps > spec.steps:
            reason = f"the label {label!r} needs {steps} time steps, the network has {spec.steps}"
            found.skipped.append(Skipped(key, "infeasible", reason))
        else:
            found.indices.append(i)
            found.labels.append(label)
    return found


def summary(skipped: Iterable[Skipped]) -> str:
    """What was left out, in one line: ``"3 empty, 1 infeasible"``; ``"none"`` if nothing was."""
    counts = Counter(word.kind for word in skipped)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none"


def unknown_characters(skipped: Sequence[Skipped], most: int = 8) -> str:
    """The characters for which words were left out, the most frequent first, in one line; empty if there are none."""
    counts = Counter(character for word in skipped for character in word.characters)
    if not counts:
        return ""
    shown = [f"{c!r} U+{ord(c):04X} in {n:,} label{'s' * (n != 1)}" for c, n in counts.most_common(most)]
    more = f" and {len(counts) - most:,} more" if len(counts) > most else ""
    first = next(word for word in skipped if word.characters)
    return f"{', '.join(shown)}{more}; the first in {first.key}: {first.reason}"
