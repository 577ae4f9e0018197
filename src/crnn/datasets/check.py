"""Which words of a data set a network can be trained on, and why not the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from crnn.ctc import required_steps
from crnn.errors import CrnnError

if TYPE_CHECKING:
    from crnn.datasets.lmdb import LmdbReader
    from crnn.spec import ModelSpec


@dataclass(frozen=True)
class Skipped:
    """A word left out: the key of its picture, the kind of reason (for counting) and the reason in words."""

    key: str
    kind: Literal["unreadable", "empty", "charset", "infeasible"]
    reason: str


class Usable(NamedTuple):
    """What :func:`usable` found: parallel lists of indices into the reader and labels, and what was left out."""

    indices: list[int]
    labels: list[str]
    skipped: list[Skipped]


def usable(reader: LmdbReader, spec: ModelSpec, protocol: Callable[[str], str], *, decode: bool = True) -> Usable:
    """The words that ``spec``'s network can learn, with their labels after ``protocol``.

    Left out, with a reason: pictures and labels that are missing or cannot be decoded ("unreadable"; ``decode=False``
    looks at the labels only), labels of which the protocol leaves nothing ("empty"), labels with characters outside
    the spec's charset ("charset"), and labels for which the network has too few time steps ("infeasible",
    :func:`crnn.ctc.required_steps`).

    Raises DatasetError if the data set cannot be opened.
    """
    found = Usable([], [], [])
    for i in range(len(reader)):
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
            found.skipped.append(Skipped(key, "charset", f"the label {label!r} has characters outside the charset"))
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
