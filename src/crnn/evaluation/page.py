"""A report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from crnn.evaluation import breakdown, charts
from crnn.evaluation.breakdown import Alignment, CharacterCount, Words
from crnn.evaluation.calibration import Bin
from crnn.evaluation.evidence import Pick, Reopened
from crnn.evaluation.markup import Child, described, folded, page, section, table, tag, visible, word
from crnn.evaluation.posterior import card, legend
from crnn.evaluation.report import known_in_words

_ROWS = 40  # of a table that could have one for each character there is
_PAIRS = 20
_SKIPPED = 20


def worst(report: Mapping[str, Any], count: int) -> list[Pick]:
    """The ``count`` wrong words of all data sets that the network was surest of, surest first."""
    wrong = [
        (which, each)
        for which, data in enumerate(report["datasets"])
        for each in data["words"]
        if each["text"] != each["label"]
    ]
    return sorted(wrong, key=lambda pick: -pick[1]["confidence"])[:count]


def render(report: Mapping[str, Any], picks: Sequence[Pick], found: Reopened) -> str:
    """The page of a report; ``picks`` are the words shown one by one, ``found`` what is left to see of them.

    It is one file without scripts, and shows the figures of each chart as a table too. Its size depends on the number
    of ``picks`` and data sets, not on that of words.
    """
    words = [each for data in report["datasets"] for each in data["words"]]
    model = report["model"]
    title = f"{Path(model['path']).name if model else 'Results'} on {_names(report)}"
    alignment = breakdown.align(words)
    sections = [
        section("summary", "Summary", *_summary(report)),
        section("length", "By length", *_lengths(words)),
        section("characters", "By character", *_characters(alignment)),
        section("confusions", "Confusions", *_confusions(alignment)),
        section("confidence", "By confidence", *_confidence(report, words)),
        section("errors", "Surest errors", *_errors(report, words, picks, found)),
    ]
    if skipped := [(data["path"], each) for data in report["datasets"] for each in data["skipped"]]:
        sections.append(section("skipped", "Skipped words", *_skipped(skipped)))
    return page(title, found.notes, sections)


def _figures(data: Mapping[str, Any]) -> list[str]:
    """The figures of a data set, or of all of them, as cells of a table."""
    low, high = data["interval"]
    speed = data.get("words_per_second")
    return [
        f"{data['accuracy']:.2%}",
        f"{low:.1%} to {high:.1%}",
        f"{data['ned']:.4f}",
        f"{data['cer']:.2%}",
        f"{data['ece']:.3f}",
        f"{data['used']:,}",
        f"{data['total'] - data['used']:,}",
        f"{speed:,.0f}" if speed else "",
    ]


def facts(report: Mapping[str, Any]) -> Element:
    """What was measured, with what."""
    model, engine, measured = report["model"], report["engine"], report.get("measured")
    where = f"{measured['processor']}, {measured['device']}, crnn {measured['crnn']}" if measured else "unknown"
    return described(
        [
            ("model", f"{model['path']} (sha256 {model['sha256']})" if model else "unknown"),
            ("engine", f"{engine['name']} {engine['version']}, {engine['precision']}" if engine else "unknown"),
            ("measured on", where),
            ("temperature", f"{report['temperature']:.4g}"),
            ("protocol", report["protocol"]),
            ("words", report["subset"]),
            *([("decoded with", known_in_words(report["knowledge"]))] if report.get("knowledge") else []),
            *[("data set", f"{data['path']} (sha256 {data['sha256']})") for data in report["datasets"]],
        ]
    )


def _summary(report: Mapping[str, Any]) -> list[Child]:
    rows: list[list[Child]] = [[Path(data["path"]).name, *_figures(data)] for data in report["datasets"]]
    several = len(rows) > 1
    if several:
        rows.append(["all", *_figures(report["overall"])])
    headings = ("data set", "accuracy", "95 % interval", "1-NED", "CER", "ECE", "words", "skipped", "words/s")
    known = report.get("knowledge")
    return [
        table("Accuracy and its relatives", headings, rows, last=several),
        tag("p", "The interval is Wilson's. Skipped words count neither as right nor as wrong."),
        tag("p", f"Words were decoded with {known_in_words(known)}.") if known else None,
        folded("Model, engine and data", facts(report)),
        tag("p", "All that follows is over the words of all data sets together.") if several else None,
    ]


def _lengths(words: Words) -> list[Child]:
    groups = breakdown.by_length(words)
    rows = [
        [
            group.name,
            f"{group.words:,}",
            f"{group.right:,}",
            f"{group.accuracy:.1%}",
            "{:.1%} to {:.1%}".format(*group.interval),
        ]
        for group in groups
    ]
    headings = ("characters", "words", "right", "accuracy", "95 % interval")
    return [
        tag("p", "Words read without a fault, by the number of characters in the label."),
        charts.by_group(groups, "characters in the label"),
        folded("As a table", table("Accuracy by length", headings, rows)),
    ]


def _characters(alignment: Alignment) -> list[Child]:
    ranked = sorted(alignment.characters.items(), key=lambda item: (-item[1].faults, item[0]))

    def row(character: str, count: CharacterCount) -> list[Child]:
        return [
            word(character),
            f"{count.labels:,}",
            f"{count.read:,}",
            f"{count.right:,}",
            _share(count.precision),
            _share(count.recall),
        ]

    headings = ("character", "in labels", "read", "right", "precision", "recall")
    shown = sorted(ranked[:_ROWS]) if len(ranked) <= _ROWS else ranked[:_ROWS]
    which = "" if len(ranked) <= _ROWS else f", the {_ROWS} with the most faults of {len(ranked):,}"
    return [
        tag(
            "p",
            "Labels and texts are aligned by the fewest edit operations. Precision: of the times a character was read, "
            "the share that is right. Recall: of the times it is in a label, the share that was read.",
        ),
        table(f"Characters{which}", headings, [row(*each) for each in shown]),
    ]


def _confusions(alignment: Alignment) -> list[Child]:
    counts = alignment.operations
    if not counts:
        return [tag("p", "None: every word was read without a fault.")]
    kinds = {
        "Substitutions": [pair for pair in counts if all(pair)],
        "Deletions": [pair for pair in counts if not pair[1]],
        "Insertions": [pair for pair in counts if not pair[0]],
    }
    tables: list[Child] = []
    for name, pairs in kinds.items():
        if not pairs:
            continue
        rows: list[list[Child]] = []
        for pair in sorted(pairs, key=lambda pair: (-counts[pair], pair))[:_PAIRS]:
            label, text = alignment.examples[pair]
            sides = [word(side) if side else tag("span", "nothing", class_="empty") for side in pair]
            rows.append([*sides, f"{counts[pair]:,}", tag("span", word(label), " read as ", word(text))])
        which = f", the {_PAIRS} most frequent of {len(pairs):,} kinds" if len(pairs) > _PAIRS else ""
        total = sum(counts[pair] for pair in pairs)
        headings = ("in the label", "read as", "times", "for example")
        tables.append(table(f"{name}: {total:,}{which}", headings, rows, texts=(0, 1, 3)))
    return [tag("div", *tables, class_="tables")]


def _confidence(report: Mapping[str, Any], words: Words) -> list[Child]:
    overall = report["overall"]
    bins = [Bin(**each) for each in overall["calibration"]]
    rows = [
        [f"{b.low:.3f} to {b.high:.3f}", f"{b.words:,}", f"{b.confidence:.3f}", f"{b.accuracy:.3f}"]
        for b in bins
        if b.confidence is not None and b.accuracy is not None
    ]
    kept = [
        [
            f"{least.confidence:g}",
            f"{least.words / len(words):.1%}",
            f"{least.words:,}",
            f"{least.words - least.right:,}",
            f"{least.right / least.words:.2%}" if least.words else "",
        ]
        for least in breakdown.above(words)
    ]
    meaning = "Confidence is the CTC probability of the text that was read, at the model's temperature."
    known = report.get("knowledge", {})
    if known.keys() - {"second_look"}:
        meaning = (
            "Confidence is the probability of the text that was read, at the model's temperature, given what was known "
            "of the texts. Where texts were excluded, kept is the share of the network's own probability on the others."
        )
    if "second_look" in known:
        meaning += " Of words that were looked at again it is the mean of the looks."
    calibrated = (
        f"The expected calibration error (ECE) is {overall['ece']:.3f}: how far the confidence is from the share of "
        "right words, on average. The dots of a calibrated reader lie on the diagonal; below it, it is too sure of "
        "itself."
    )
    return [
        tag("p", meaning),
        tag(
            "div",
            tag("div", tag("h3", "Reliability"), charts.reliability(bins)),
            tag(
                "div",
                tag("h3", "If unsure words are put aside"),
                charts.coverage_curve(breakdown.coverage(words), len(words)),
            ),
            class_="charts",
        ),
        tag("p", calibrated),
        table("Words kept at least so sure", ("confidence", "kept", "words", "wrong", "accuracy"), kept),
        folded("Reliability as a table", table("Reliability", ("confidence", "words", "mean", "accuracy"), rows)),
    ]


def _errors(report: Mapping[str, Any], words: Words, picks: Sequence[Pick], found: Reopened) -> list[Child]:
    wrong = sum(each["label"] != each["text"] for each in words)
    cards = [
        card(each, Path(report["datasets"][which]["path"]).name, seen, found.spec, f"word-{k}")
        for k, ((which, each), seen) in enumerate(zip(picks, found.words, strict=True), 1)
    ]
    which = f"; shown are {len(picks)}, first those the network was surest of" if picks else ""
    drawn = any(seen.posterior is not None for seen in found.words)
    how = (
        "Each picture is shown twice: as it is, and stretched to the network's view with the posterior over it. The "
        "height of an area is the probability (up to 1) of its character, at the place in the picture that the frame "
        "looks at."
    )
    return [
        tag("p", f"{wrong:,} of {len(words):,} words were read wrongly{which}."),
        tag("p", how) if drawn else None,
        legend() if drawn else None,
        tag("div", *cards, class_="cards"),
    ]


def _skipped(skipped: Sequence[tuple[str, Mapping[str, str]]]) -> list[Child]:
    rows = [[each["key"], Path(path).name, _cut(each["reason"])] for path, each in skipped[:_SKIPPED]]
    caption = f"The first {len(rows)} of {len(skipped):,}" if len(skipped) > len(rows) else "All of them"
    return [table(caption, ("key", "data set", "reason"), rows, texts=(0, 1, 2))]


def _names(report: Mapping[str, Any]) -> str:
    names = [Path(data["path"]).name for data in report["datasets"]]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _share(value: float | None) -> Child:
    """A fraction as a bar and a percentage; nothing where there is none."""
    if value is None:
        return None
    full = tag("span", class_="share", style=f"width:{100 * value:.0f}%")
    return tag("span", tag("span", full, class_="track", aria_hidden="true"), f" {value:.1%}")


def _cut(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= 300 else f"{shown[:299]}…"
