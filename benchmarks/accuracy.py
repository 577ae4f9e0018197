"""Writes the tables and plots of docs/accuracy.md: where the bundled weights read well, and where they don't.

``python benchmarks/accuracy.py docs/accuracy.md TEST.json HELD_OUT.json``, the two from ``crnn evaluate --json``: of
IIIT5K's test words, and, with ``--held-out``, of the training sets. The learning curve comes from ``curve.tsv`` in the
folder beside the page (docs/accuracy/), where the plots go too. Between ``<!-- NAME -->`` and ``<!-- end -->`` the text
is replaced by the table of that name; all else is left as it is. Plots need matplotlib.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

from document import plotter, replace_blocks, table

from crnn.evaluation.breakdown import above, align, by_length
from crnn.evaluation.calibration import calibration
from crnn.evaluation.metrics import wilson
from crnn.evaluation.saved import load_result

_FEW = 20
"""Characters that are in fewer labels say little."""


class Figures(NamedTuple):
    """What the page is made of."""

    test: dict[str, Any]
    held_out: dict[str, Any]
    curve: list[dict[str, str]]

    @property
    def words(self) -> list[dict[str, Any]]:
        """The test words."""
        return [word for dataset in self.test["datasets"] for word in dataset["words"]]

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The words that were held out."""
        return [word for dataset in self.held_out["datasets"] for word in dataset["words"]]


def _right(words: list[dict[str, Any]]) -> int:
    return sum(word["label"] == word["text"] for word in words)


def _share(right: int, words: int) -> list[str]:
    low, high = wilson(right, words)
    return [str(words), f"{right / words:.1%}", f"{low:.1%}-{high:.1%}"]


def sets(figures: Figures) -> str:
    """Accuracy of each set."""
    rows = []
    for result, note in ((figures.test, ""), (figures.held_out, ", held out")):
        for dataset in result["datasets"]:
            words = dataset["words"]
            name = Path(dataset["path"]).name.removesuffix("_lmdb") + note
            rows.append([name, *_share(_right(words), len(words)), f"`{dataset['sha256'][:16]}`"])
    rows.append(["all that was held out", *_share(_right(figures.kept), len(figures.kept)), ""])
    return table("words of|number|right|95 %|contents, SHA-256", rows)


def lengths(figures: Figures) -> str:
    """Accuracy by the number of characters."""
    both = [{group.name: group for group in by_length(words)} for words in (figures.words, figures.kept)]
    rows = []
    for name in dict.fromkeys([*both[0], *both[1]]):
        cells = []
        for groups in both:
            group = groups.get(name)
            cells += _share(group.right, group.words) if group else ["-", "-", "-"]
        rows.append([name, *cells])
    head = "characters|IIIT5K test: words|right|95 %|held out: words|right|95 %"
    return table(head, sorted(rows, key=lambda row: int(row[0].rstrip("+"))))


def characters(figures: Figures) -> str:
    """The characters that are missed most often, for how often there are."""
    found = {name: one for name, one in align(figures.words).characters.items() if one.labels >= _FEW}
    worst = sorted(found.items(), key=lambda pair: pair[1].recall or 0)[:12]
    rows = [[f"`{name}`", str(one.labels), f"{one.recall:.1%}", f"{one.precision or 0:.1%}"] for name, one in worst]
    return table("character|in labels|of them read|of those read, right", rows)


def confusions(figures: Figures) -> str:
    """The most frequent faults."""
    found = align(figures.words)
    rows = []
    for (label, text), count in found.operations.most_common(15):
        what = f"`{label}` read as `{text}`" if label and text else f"`{label}` lost" if label else f"`{text}` added"
        example = found.examples[label, text]
        rows.append([what, str(count), f"{example[0]} as {example[1] or 'nothing'}"])
    return table("fault|times|such as", rows)


def confidence(figures: Figures) -> str:
    """How many words are left, and how many of them right, from a confidence on."""
    rows = []
    for level in above(figures.words):
        share = f"{level.words / len(figures.words):.1%}"
        rows.append([f"{level.confidence:g}", share, f"{level.right / level.words:.1%}" if level.words else "-"])
    made = calibration(
        [word["confidence"] for word in figures.words], [word["label"] == word["text"] for word in figures.words]
    )
    return table("confidence at least|words left|of them right", rows) + (
        f"\n\nExpected calibration error, 15 bins: {made.ece:.3f}."
    )


def curve(figures: Figures) -> str:
    """The learning curve."""
    head = list(figures.curve[0])
    return table("|".join(head), [[row[name] or "" for name in head] for row in figures.curve])


TABLES = {made.__name__: made for made in (sets, lengths, characters, confusions, confidence, curve)}


def fill(page: str, figures: Figures) -> str:
    """The page with its tables made anew."""
    return replace_blocks(page, lambda name: TABLES[name](figures))


def plots(folder: Path, figures: Figures) -> None:
    """Accuracy by length, a reliability diagram, accuracy by share of the words kept, and the learning curve."""
    pyplot, save = plotter(folder)

    _, axes = pyplot.subplots(figsize=(6, 3.4))
    for words, name, shift in ((figures.words, "IIIT5K test", -0.15), (figures.kept, "held out", 0.15)):
        groups = [group for group in by_length(words) if group.words >= 5 and group.name.isdigit()]
        places = [int(group.name) + shift for group in groups]
        bounds = [[100 * abs(group.accuracy - group.interval[side]) for group in groups] for side in (0, 1)]
        axes.errorbar(places, [100 * group.accuracy for group in groups], bounds, fmt="o", capsize=2, label=name)
    axes.set(xlabel="characters in the word", ylabel="% right", ylim=(0, 100))
    axes.legend()
    save("length.svg")

    sure = [word["confidence"] for word in figures.words]
    hit = [word["label"] == word["text"] for word in figures.words]
    _, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    bins = [one for one in calibration(sure, hit).bins if one.words]
    left.plot([0, 1], [0, 1], color="gray", linewidth=1)
    left.scatter([one.confidence for one in bins], [one.accuracy for one in bins], [5 + one.words / 20 for one in bins])
    left.set(xlabel="confidence", ylabel="fraction right", title="IIIT5K test, 15 bins")
    order = sorted(range(len(sure)), key=lambda i: -sure[i])
    total, shares, accuracies = 0, [], []
    for rank, i in enumerate(order, 1):
        total += hit[i]
        if rank >= 30:
            shares.append(100 * rank / len(order))
            accuracies.append(100 * total / rank)
    right.plot(shares, accuracies)
    right.set(xlabel="% of the words, the surest first", ylabel="% of them right", title="IIIT5K test")
    save("confidence.svg")

    _, axes = pyplot.subplots(figsize=(6, 3.4))
    names = [name for name in figures.curve[0] if name not in ("stage", "pictures")]
    for name in names:
        points = [(int(row["pictures"].replace(",", "")), float(row[name])) for row in figures.curve if row[name]]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="pictures seen", ylabel="% right", ylim=(0, 100))
    axes.get_xaxis().set_major_formatter("{x:,.0f}")
    axes.legend()
    save("curve.svg")


def main() -> None:
    """See the module."""
    if len(sys.argv) != 4:
        sys.exit("python benchmarks/accuracy.py docs/accuracy.md TEST.json HELD_OUT.json")
    page, test, held_out = map(Path, sys.argv[1:])
    folder = page.with_suffix("")
    with (folder / "curve.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    figures = Figures(load_result(test), load_result(held_out), rows)
    page.write_text(fill(page.read_text(encoding="utf-8"), figures), encoding="utf-8")
    plots(folder, figures)


if __name__ == "__main__":
    main()
