"""What was measured and found, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crnn.datasets.audit import KINDS, Audit, Rules
from crnn.datasets.words import WordSource
from crnn.outputs import visible


def counted(number: int, what: str) -> str:
    """``1 word``, ``2,000 words``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def stats_lines(values: dict[str, Any]) -> Iterator[str]:
    """The lines for what :func:`crnn.datasets.stats.measure` gives."""
    labels = values["labels"]
    different = counted(labels["distinct"], "different label")
    yield visible(f"{values['path']}: {counted(values['words'], 'word')}, {different}")
    if values["left_out"]:
        yield "  cannot be used  " + ", ".join(f"{n:,} {kind}" for kind, n in values["left_out"].items())
    if not values["words"]:
        return
    yield f"  length          {labels['mean_length']:.1f} characters on average"
    yield "  by length       " + " ".join(f"{length}:{n}" for length, n in labels["lengths"].items())
    yield "  cases           " + ", ".join(f"{n:,} {kind}" for kind, n in labels["cases"].items())
    shown = (f"{c if c.isprintable() and c != ' ' else ascii(c)}:{n}" for c, n in labels["characters"].items())
    yield f"  {len(labels['characters']):<5} characters " + " ".join(shown)
    yield "  pictures            min      5 %   median     95 %      max"
    for name, measures in values["pictures"].items():
        digits = 0 if name in ("width", "height") else 2
        yield f"    {name:<12}" + "".join(f"{value:9.{digits}f}" for value in measures.values())


def audit_lines(sources: Sequence[WordSource], rules: Rules, report: Audit, examples: int) -> Iterator[str]:
    """The lines for what :func:`crnn.datasets.audit.audit` found, with up to so many ``examples`` of each kind."""
    for source, words in zip(sources, report.words, strict=True):
        yield visible(f"{source.path}: {counted(words, 'word')}")
    if report.illegible:
        yield f"{counted(report.illegible, 'place')} marked as illegible passed over"
    if rules.charset is None:
        yield f"labels must fit {rules.steps} time steps; characters were not checked (--charset or --model)"
    else:
        what = "under the alnum36 protocol" if rules.folds else f"of {len(rules.charset)} characters"
        yield f"labels {what} must fit {rules.steps} time steps"
    for kind, (severity, meaning) in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if not found:
            continue
        yield f"{severity}: {meaning}: {len(found):,}"
        for finding in found[:examples]:
            yield visible(f"  {finding.path}: {finding.key}: {finding.detail}")
        if len(found) > examples:
            yield f"  ... and {len(found) - examples:,} more (--examples N, --json FILE)"
        if kind == ("dropped" if rules.folds else "characters"):
            for character, count in report.characters.most_common():
                key, label = report.examples[character]
                times = counted(count, "time")
                yield visible(f"  {character!r} U+{ord(character):04X} {times}, first in {key}: {label!r}")
    warnings = len(report.findings) - report.errors
    yield f"{counted(report.errors, 'error')}, {counted(warnings, 'warning')}"
