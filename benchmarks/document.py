"""Writes the tables and plots of docs/performance.md from the figures that the other benchmarks left in JSON.

``python benchmarks/document.py docs/performance.md``: the JSON files lie in the folder beside it, docs/performance/,
and the plots go there too. Between ``<!-- NAME -->`` and ``<!-- end -->`` the text is replaced by the table of that
name; all else is left as it is. Plots need matplotlib.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table. ``head`` are its headings, parted by ``|``; the first column is text, others are figures."""
    columns = head.split("|")
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, rule, *rows])


def machine(bench: Figures, **_: Figures) -> str:
    """What everything was measured on."""
    found = bench["machine"]
    processor = found["processor"]
    features = " ".join(processor["features"])
    memory = "" if found["memory"] is None else f", {found['memory'] / 2**30:.0f} GiB of memory"
    return (
        f"{processor['name']} ({processor['family']}), {processor['usable']} processors{memory}; {features}. "
        f"{found['platform']}."
    )


def batches(bench: Figures, **_: Figures) -> str:
    """words/s of every batch size, on all processors."""
    results = bench["results"]
    most = max(one["threads"] for one in results)
    kinds = list(dict.fromkeys((one["engine"], one["precision"]) for one in results))
    speeds = {
        (one["engine"], one["precision"], one["batch_size"]): one["words_per_second"]
        for one in results
        if one["threads"] == most
    }
    sizes = sorted({size for _, _, size in speeds})
    rows = [[str(size), *(f"{speeds[*kind, size]:,.0f}" for kind in kinds)] for size in sizes]
    return table(f"batch, {most} threads|" + "|".join(" ".join(kind) for kind in kinds), rows)


def engines(bench: Figures, **_: Figures) -> str:
    """Every engine, precision and number of threads, at the smallest and at the usual batch size."""
    usual = max(one["batch_size"] for one in bench["results"] if one["batch_size"] <= 64)
    rows = [
        [
            f"{one['engine']} {one['version']}",
            one["precision"],
            str(one["threads"]),
            str(one["batch_size"]),
            f"{one['words_per_second']:,.0f}",
            f"{1000 * one['p50']:.2f}",
            f"{1000 * one['p99']:.2f}",
            "-" if one["memory"] is None else f"{one['memory'] / 1e6:.0f}",
            "-" if one["share"] is None else f"{one['share']:.0%}",
        ]
        for one in bench["results"]
        if one["batch_size"] in (1, usual)
    ]
    return table("engine|precision|threads|batch|words/s|p50 ms|p99 ms|MB|of peak", rows)


def peaks(bench: Figures, **_: Figures) -> str:
    """The matrix products."""
    rows = [
        [one["library"], one["precision"], str(one["threads"]), f"{2 * one['rate'] / 1e12:.3f}"]
        for one in bench["products"]
    ]
    return table("library|precision|threads|TFLOP/s", rows)


def precisions(precisions: Figures, **_: Figures) -> str:
    """What the precisions read."""
    first = precisions["rows"][0]
    rows = [
        [
            f"{one['engine']} {one['precision']}",
            f"{one['accuracy']:.2%}",
            f"{100 * (one['accuracy'] - first['accuracy']):+.2f}",
            f"{one['same']:.2%}",
        ]
        for one in precisions["rows"]
    ]
    return table("engine and precision|accuracy|points more|texts as in the first row", rows)


def pipeline(pipeline: Figures, pipeline_onnxruntime: Figures | None = None, **_: Figures) -> str:
    """From files to words."""
    rows = []
    for one in (pipeline, pipeline_onnxruntime):
        if one is not None:
            more = 1000 * (one["latency"] - one["network_latency"])
            rows.append(
                [
                    f"{one['engine']} {one['precision']}",
                    f"{one['words_per_second']:.0f}",
                    f"{one['network']:.0f}",
                    f"{one['share']:.0%}",
                    f"{1000 * one['latency']:.2f}",
                    f"{more:+.2f}",
                    f"{one['cold'][len(one['cold']) // 2]:.2f}",
                ]
            )
    head = "engine|words/s from LMDB|network alone|share (>= 75 %)|one word, ms|more than the network (<= 0.7 ms)"
    return table(head + "|`crnn read`, cold, s (< 1)", rows)


def decoding(decoding: Figures, **_: Figures) -> str:
    """What a word costs beside the network."""
    rows = [
        [one["what"], f"{one['milliseconds']:.3f}", "-" if one["limit"] is None else f"{one['limit']:g}"]
        for one in decoding["rows"]
    ]
    return table("what, on one core|ms|at most", rows)


def lexicon(lexicon: Figures, **_: Figures) -> str:
    """What a lexicon costs, and whether its word is the one that scoring every word finds."""
    rows = [
        [
            f"{one['words']:,}",
            f"{one['milliseconds']:.2f}",
            f"{one['limit']:g}",
            f"{one['recall']:.1%}",
            *(f"{each['recall']:.1%} ({each['milliseconds']:.1f} ms)" for each in one["candidates"]),
            f"{one['opening']:.2f}",
        ]
        for one in lexicon["rows"]
    ]
    ways = "|".join(f"within {each['distance']}" for each in lexicon["rows"][0]["candidates"])
    return table(f"words in the lexicon|ms a word, on one core|at most|same choice|{ways}|opened in, s", rows)


def rivals(rivals: Figures, **_: Figures) -> str:
    """This package beside others."""
    rows = [
        [
            f"{one['reader']} ({one['version']})",
            f"{one['words_per_second']:.0f}",
            f"{one['ratio']:.2f} ({one['ratios'][0]:.2f}-{one['ratios'][1]:.2f})",
            f"{one['accuracy']:.2%}",
        ]
        for one in rivals["rows"]
    ]
    return table("reader|words/s|crnn is so many times as fast|accuracy", rows)


def service(**figures: Figures) -> str:
    """The service under load, of each engine it was measured with."""
    rows = []
    for name in ("service_onnxruntime", "service_openvino", "service_bfloat16"):
        one = figures[name]
        engine = one["engine"]
        busy = "" if not one["others"] or one["others"] <= 0.05 else f" (other processes took {one['others']:.0%})"
        shares = sorted(turn["words_per_second"] / turn["network"] for turn in one["turns"])
        rows.append(
            [
                f"{engine['name']} {engine['version']}, {engine['precision']}{busy}",
                f"{one['words_per_second']:.0f}",
                f"{one['network']:.0f}",
                f"{one['share']:.0%} ({shares[0]:.0%}-{shares[-1]:.0%})",
                f"{1000 * one['p50']:.0f}",
                f"{1000 * one['p99']:.0f}",
                f"{one['p99_batches']:.1f}",
            ]
        )
    head = "engine|words/s served|network alone, batches of 64|share|p50 ms|p99 ms|p99 in batches (< 5)"
    return table(head, rows)


def training(training: Figures, **_: Figures) -> str:
    """The trainer beside the reference loop."""
    base = next(one["images_per_second"] for one in training["rows"] if one["what"] == "reference")
    rows = [
        [one["what"], f"{one['images_per_second']:.1f}", f"{one['images_per_second'] / base:.2f}"]
        for one in training["rows"]
    ]
    low, high = training["ratios"]
    note = (
        f"`crnn train` computed in {training['precision']}, waited for data {training['waited']:.1%} of the time, and "
        f"was {training['ratio']:.2f} ({low:.2f}-{high:.2f}) times as fast as the reference loop in the same turn."
    )
    return table("loop|images/s|of the reference", rows) + "\n\n" + note


TABLES: dict[str, Callable[..., str]] = {
    made.__name__: made
    for made in (machine, batches, engines, peaks, precisions, pipeline, decoding, lexicon, rivals, service, training)
}


def replace_blocks(page: str, made: Callable[[str], str | None]) -> str:
    """The page with what ``made`` gives for its name between each ``<!-- NAME -->`` and ``<!-- end -->``.

    A block for which it gives None is left as it is.
    """

    def block(found: re.Match[str]) -> str:
        text = made(found[1])
        return found[0] if text is None else f"<!-- {found[1]} -->\n{text}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def with_note(text: str, others: float | None) -> str:
    """The text, and that it should not be kept if other processes took such a share of the processors."""
    if others is None or others <= 0.05:
        return text
    return text + f"\n\n**Other processes took {others:.0%} of the processors meanwhile: measure again.**"


def write_block(page: Path, name: str, lines: list[str], others: float | None) -> None:
    """Writes lines into the block of that name in a page; its other blocks stay.

    ``others`` is the share of the processors that other processes took while the figures were measured.
    """
    text = replace_blocks(page.read_text(encoding="utf-8"), {name: with_note("\n".join(lines), others)}.get)
    page.write_text(text, encoding="utf-8")


def fill(page: str, figures: dict[str, Figures]) -> str:
    """The page with its tables made anew."""

    def one(name: str) -> str:
        try:
            return with_note(TABLES[name](**figures), figures.get(name, figures["bench"])["others"])
        except (KeyError, TypeError) as error:
            sys.exit(f"the table {name} cannot be made: {error}")

    return replace_blocks(page, one)


def plotter(folder: Path) -> tuple[Any, Callable[[str], None]]:
    """Matplotlib's pyplot, set to draw the same SVG each time, and what saves the plot at hand in ``folder``."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "crnn", "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    from matplotlib import pyplot

    def save(name: str) -> None:
        pyplot.tight_layout()
        pyplot.savefig(folder / name, metadata={"Date": None})
        pyplot.close()

    return pyplot, save


def plots(folder: Path, figures: dict[str, Figures]) -> None:
    """words/s and latency by batch size, words/s by threads, seconds by number of words."""
    pyplot, save = plotter(folder)

    results = figures["bench"]["results"]
    most = max(one["threads"] for one in results)
    kinds = list(dict.fromkeys((one["engine"], one["precision"]) for one in results))

    def series(kind: tuple[str, str], by: str, **same: int) -> list[Figures]:
        mine = [one for one in results if (one["engine"], one["precision"]) == kind]
        return sorted((one for one in mine if all(one[k] == v for k, v in same.items())), key=lambda one: int(one[by]))

    _, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for kind in kinds:
        line = series(kind, "batch_size", threads=most)
        sizes = [one["batch_size"] for one in line]
        left.plot(sizes, [one["words_per_second"] for one in line], marker="o", label=" ".join(kind))
        right.plot(sizes, [1000 * one["p50"] for one in line], marker="o", label=" ".join(kind))
    for axes, title in ((left, "words/s"), (right, "milliseconds of a call (p50)")):
        axes.set(xscale="log", xlabel=f"batch size, {most} threads", title=title)
        axes.set_xticks(sorted({one["batch_size"] for one in results}))
        axes.get_xaxis().set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    left.set_ylim(bottom=0)
    right.set(yscale="log")
    left.legend()
    save("batch.svg")

    _, axes = pyplot.subplots(figsize=(5, 3.4))
    largest = max(one["batch_size"] for one in results)
    for kind in kinds:
        line = series(kind, "threads", batch_size=largest)
        axes.plot(
            [one["threads"] for one in line],
            [one["words_per_second"] for one in line],
            marker="o",
            label=" ".join(kind),
        )
    axes.set(xlabel=f"threads, batches of {largest}", title="words/s")
    axes.set_xticks(sorted({one["threads"] for one in results}))
    axes.set_ylim(bottom=0)
    axes.legend()
    save("threads.svg")

    _, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for name in ("pipeline", "pipeline_onnxruntime"):
        if one := figures.get(name):
            counts = [row["words"] for row in one["growth"]]
            label = f"{one['engine']} {one['precision']}"
            left.plot(counts, [row["seconds"] for row in one["growth"]], marker="o", label=label)
            right.plot(counts, [row["memory"] / 1e6 for row in one["growth"]], marker="o", label=label)
    left.set(xscale="log", yscale="log", xlabel="words", title="seconds from LMDB to words")
    right.set(xscale="log", xlabel="words", title="peak memory of the process, MB")
    right.set_ylim(bottom=0)
    left.legend()
    save("words.svg")


def main() -> None:
    """See the module."""
    if len(sys.argv) != 2:
        sys.exit("which page? python benchmarks/document.py docs/performance.md")
    page = Path(sys.argv[1])
    folder = page.with_suffix("")
    figures = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    page.write_text(fill(page.read_text(encoding="utf-8"), figures), encoding="utf-8")
    plots(folder, figures)


if __name__ == "__main__":
    main()
