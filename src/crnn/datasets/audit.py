"""What is wrong with a data set, errors apart from warnings; and which of its words are clean."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from crnn.charset import Charset
from crnn.ctc import required_steps
from crnn.datasets.duplicates import Fingerprints, alike
from crnn.datasets.words import Unusable, WordSource, checked
from crnn.protocols import alnum36, protocol_of

Severity = Literal["error", "warning"]

KINDS: dict[str, tuple[Severity, str]] = {
    "missing": ("error", "picture or label is not there"),
    "unreadable": ("error", "picture or label is damaged"),
    "empty": ("error", "empty label"),
    "characters": ("error", "characters outside the charset"),
    "infeasible": ("error", "more characters than the network has time steps for"),
    "contradiction": ("error", "the same picture with another label"),
    "overlap": ("error", "the same picture in two data sets"),
    "near-duplicate": ("warning", "a picture that looks the same in two data sets"),
    "duplicate": ("warning", "the same picture and label again"),
    "aspect": ("warning", "extreme aspect"),
    "dropped": ("warning", "characters that the alnum36 protocol leaves out"),
    "spaces": ("warning", "spaces at the ends of a label"),
    "unicode": ("warning", "a label that is not in Unicode's composed form (NFC)"),
}
"""Every kind of finding: how bad it is, and what it means."""

WIDEST, TALLEST = 16.0, 0.5
"""Width / height beyond which a picture is extreme. (Words of three letters and more that are taller than wide are
vertical or turned, and a network that reads from left to right cannot read them.)"""


class Finding(NamedTuple):
    """Something to know about the word ``key`` of the data set at ``path``; ``place`` counts its entries from 0."""

    kind: str
    path: Path
    key: str
    place: int
    detail: str

    @property
    def severity(self) -> Severity:
        """Whether it is an error or a warning."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Rules:
    """What labels must fit: a network of ``steps`` time steps that writes ``charset`` (None: any character).

    The 36 characters of the field's protocol stand for that protocol: labels are lower-cased, what is outside it is
    dropped, and what remains is looked at.
    """

    steps: int
    charset: Charset | None = None

    @property
    def folds(self) -> bool:
        """Whether labels are looked at under the alnum36 protocol."""
        return self.charset is not None and protocol_of(self.charset) == "alnum36"


@dataclass
class Audit:
    """What was found: ``words`` of each data set, and the ``illegible`` places of all, which are not words.

    ``characters`` are those that the charset lacks or the protocol drops, with their counts; ``examples`` has the key
    and the label in which each came first.
    """

    findings: list[Finding] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    illegible: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def unclean(self, path: Path) -> frozenset[int]:
        """The places of the words that the data set at ``path`` is better without.

        Those are words with errors, and those that look like a word of a later data set; of copies the first is kept.
        """
        return frozenset(
            finding.place
            for finding in self.findings
            if finding.path == path and (finding.severity == "error" or finding.kind in ("duplicate", "near-duplicate"))
        )


@dataclass
class _Pictures:
    """The usable pictures of one data set, in parallel: its places, hashes of contents and of labels."""

    path: Path
    keys: list[str] = field(default_factory=list)
    places: array[int] = field(default_factory=lambda: array("Q"))
    contents: array[int] = field(default_factory=lambda: array("Q"))
    labels: array[int] = field(default_factory=lambda: array("Q"))
    fingerprints: Fingerprints = field(default_factory=Fingerprints)


def audit(
    sources: Sequence[WordSource],
    rules: Rules,
    advance: Callable[[WordSource, int], object] = lambda source, done: None,
) -> Audit:
    """Look at every word of ``sources``, and for pictures that are in more than one of them.

    About 250 bytes a word are held. Raises DatasetError if a data set cannot be read on.
    """
    report = Audit()
    several = len(sources) > 1
    sets = [_look(source, rules, report, several, advance) for source in sources]
    for one in sets:
        _within(one, report)
    for one, other in combinations(sets, 2):
        _between(one, other, report)
    return report


def _look(
    source: WordSource,
    rules: Rules,
    report: Audit,
    several: bool,
    advance: Callable[[WordSource, int], object],
) -> _Pictures:
    pictures = _Pictures(source.path)
    words = 0
    for place, entry in enumerate(source):
        advance(source, place + 1)
        word = checked(entry)
        if isinstance(word, Unusable):
            if word.kind == "illegible":
                report.illegible += 1
                continue
            words += 1
            report.findings.append(Finding(word.kind, pictures.path, entry.key, place, word.reason))
            continue
        words += 1
        found = _label_findings(entry.key, word.label, rules, report)
        width, height = word.picture.size
        if width > WIDEST * height or (width < TALLEST * height and len(word.label) > 2):
            found.append(("aspect", f"{width} x {height} pixels for {word.label!r}"))
        report.findings += (Finding(kind, pictures.path, entry.key, place, detail) for kind, detail in found)
        pictures.keys.append(entry.key)
        pictures.places.append(place)
        pictures.contents.append(_hash(word.image))
        label = alnum36(word.label) if rules.folds else word.label
        pictures.labels.append(_hash(label.encode()))
        if several:
            pictures.fingerprints.add(word.picture)
    report.words.append(words)
    return pictures


def _label_findings(key: str, label: str, rules: Rules, report: Audit) -> list[tuple[str, str]]:
    found = []
    known = set(rules.charset.symbols if rules.charset is not None else label)
    outside = Counter(c for c in label if (c.lower() if rules.folds else c) not in known)
    if outside:
        report.characters += outside
        for character in outside:
            report.examples.setdefault(character, (key, label))
        listed = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in outside)
        found.append(("dropped" if rules.folds else "characters", f"{listed} in {label!r}"))
    text = alnum36(label) if rules.folds else label
    steps = required_steps(text)
    if not text:
        found.append(("empty", f"the alnum36 protocol leaves nothing of {label!r}"))
    elif steps > rules.steps:
        found.append(("infeasible", f"{label!r} needs {steps} time steps, the network has {rules.steps}"))
    if label != label.strip():
        found.append(("spaces", repr(label)))
    if not unicodedata.is_normalized("NFC", label):
        found.append(("unicode", f"{label!r}, composed {unicodedata.normalize('NFC', label)!r}"))
    return found


def _within(pictures: _Pictures, report: Audit) -> None:
    contents, labels = np.array(pictures.contents, np.uint64), np.array(pictures.labels, np.uint64)
    _, which, counts = np.unique(contents, return_inverse=True, return_counts=True)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for k in np.flatnonzero(counts[which] > 1).tolist():
        groups[int(which[k])].append(k)
    for members in groups.values():
        contradict = len({int(labels[k]) for k in members}) > 1
        for place, k in enumerate(members):
            if contradict:
                other = next(m for m in members if labels[m] != labels[k])
                report.findings.append(
                    _finding("contradiction", pictures, k, f"labelled otherwise as {pictures.keys[other]}")
                )
            elif place:
                report.findings.append(_finding("duplicate", pictures, k, f"as {pictures.keys[members[0]]}"))


def _between(one: _Pictures, other: _Pictures, report: Audit) -> None:
    """Findings of words of ``one`` that are in ``other`` too, or look alike."""
    contents, first = np.unique(np.array(other.contents, np.uint64), return_index=True)
    mine = np.array(one.contents, np.uint64)
    place = np.minimum(np.searchsorted(contents, mine), max(0, len(contents) - 1))
    same = contents[place] == mine if len(contents) else np.zeros(len(mine), bool)
    for k in np.flatnonzero(same).tolist():
        report.findings.append(_finding("overlap", one, k, f"as {other.path}: {other.keys[int(first[place[k]])]}"))
    for pair in alike(one.fingerprints, other.fingerprints):
        if not same[pair.first]:
            detail = f"like {other.path}: {other.keys[pair.second]} (correlation {pair.correlation:.3f})"
            report.findings.append(_finding("near-duplicate", one, pair.first, detail))


def _finding(kind: str, pictures: _Pictures, k: int, detail: str) -> Finding:
    return Finding(kind, pictures.path, pictures.keys[k], pictures.places[k], detail)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def as_json(sources: Sequence[WordSource], rules: Rules, report: Audit) -> dict[str, Any]:
    """The audit as JSON values."""
    return {
        "datasets": [
            {"path": str(source.path), "format": source.format, "read_as": source.decided, "words": words}
            for source, words in zip(sources, report.words, strict=True)
        ],
        "charset": rules.charset.symbols if rules.charset is not None else None,
        "protocol": "alnum36" if rules.folds else None,
        "steps": rules.steps,
        "illegible": report.illegible,
        "errors": report.errors,
        "warnings": len(report.findings) - report.errors,
        "characters": [
            {"character": c, "code_point": f"U+{ord(c):04X}", "count": n, "key": report.examples[c][0]}
            | {"label": report.examples[c][1]}
            for c, n in report.characters.most_common()
        ],
        "findings": [
            {"severity": f.severity, "kind": f.kind, "dataset": str(f.path), "key": f.key, "detail": f.detail}
            for f in report.findings
        ],
    }
