"""A comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from crnn.evaluation import charts
from crnn.evaluation.compare import p_text, ranked, verdict
from crnn.evaluation.evidence import Pick, Reopened, Seen
from crnn.evaluation.markup import Child, described, page, section, table, tag, word
from crnn.evaluation.page import facts
from crnn.evaluation.posterior import drawing

HEADINGS = ("data set", "A", "B", "B - A", "95 % interval", "both", "only A", "only B", "neither", "p")


def picks(comparison: Mapping[str, Any], count: int) -> dict[str, list[Pick]]:
    """Of the words that only A, and that only B reads right, the ``count`` the other was surest of."""
    found: dict[str, list[Pick]] = {}
    for winner in "ab":
        other = "b" if winner == "a" else "a"
        won = [
            (k, dict(each))
            for k, data in enumerate(comparison["datasets"])
            for each in ranked(data["differing"], winner)
        ]
        found[winner] = sorted(won, key=lambda pick: -pick[1][other]["confidence"])[:count]
    return found


def rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The figures of a comparison as cells under :data:`HEADINGS`, the last row that of all if there are several."""
    named = [(Path(data["path"]).name, data) for data in comparison["datasets"]]
    if len(named) > 1:
        named.append(("all", comparison["overall"]))
    return [
        [
            name,
            *[f"{accuracy:.2%}" for accuracy in data["accuracy"]],
            f"{100 * data['difference']:+.2f}",
            "{:+.1f} to {:+.1f}".format(*[100 * end for end in data["interval"]]),
            *[f"{data[key]:,}" for key in ("both", "only_a", "only_b", "neither")],
            p_text(data["p"]).removeprefix("= "),
        ]
        for name, data in named
    ]


def render(
    comparison: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    shown: Mapping[str, Sequence[Pick]],
    found: Reopened,
) -> str:
    """The page of a comparison of two ``reports``; ``shown`` are the words of :func:`picks`, ``found`` what is left to
    see of A's and then of B's.
    """
    cells = rows(comparison)
    several = len(comparison["datasets"]) > 1
    lines = [
        charts.Difference(row[0], data["difference"], *data["interval"])
        for row, data in zip(cells, [*comparison["datasets"], comparison["overall"]], strict=False)
    ]
    said = verdict(comparison["overall"])
    summary: list[Child] = [
        tag("p", tag("strong", f"{said[0].upper()}{said[1:]}.")),
        table("Accuracy of A and B on the same words", HEADINGS, [list(row) for row in cells], last=several),
        charts.differences(lines),
        tag(
            "p",
            f"p: {comparison['test']}. Interval: {comparison['interval']}. Both are about the words that only one of "
            "the two reads right; several data sets are several tests, and p is not corrected for that.",
        ),
    ]
    sections = [section("summary", "Summary", *summary)]
    seen = iter(found.words)
    for side, which in (("a", "A"), ("b", "B")):
        total = comparison["overall"][f"only_{side}"]
        cards = []
        for k, (place, each) in enumerate(shown[side]):
            cards.append(_card(each, comparison["datasets"][place]["path"], next(seen), f"{side}-{k}"))
        told = f"{total:,} words" + (f"; shown are {len(cards)}, first what the other was surest of:" if cards else ".")
        sections.append(
            section(f"only-{side}", f"Only {which} is right", tag("p", told), tag("div", *cards, class_="cards"))
        )
    sides = [part for name, report in zip("AB", reports, strict=True) for part in (tag("h3", name), facts(report))]
    sections.append(section("sources", "What was compared", *sides))
    names = [comparison[side]["name"] for side in "ab"]
    return page(f"{names[0]} (A) and {names[1]} (B)", [*comparison["notes"], *found.notes], sections)


def _card(each: Mapping[str, Any], path: str, seen: Seen, name: str) -> Element:
    """A word that one of the two reads right; ``name`` is its own on the page."""
    pairs: list[tuple[str, Child]] = [
        ("label", word(each["label"])),
        *[(side.upper(), tag("span", word(each[side]["text"]), f" ({each[side]['confidence']:.3f})")) for side in "ab"],
        ("key", f"{each['key']} of {Path(path).name}"),
    ]
    missing = tag("p", f"No picture: {seen.problem}.", class_="problem") if seen.problem else None
    return tag("article", drawing(each, seen, None, name), missing, described(pairs), class_="card")
