"""Reports on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn.evaluation.report import known_in_words, most_confident_errors
from crnn.protocols import dropped

if TYPE_CHECKING:
    from rich.console import Console


def progress_bar(console: Console) -> Any:
    """A Rich progress display on ``console``, which shows nothing unless that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def show(console: Console, report: dict[str, Any], device: str | None = None) -> None:
    """The figures of a report, and what read the words how fast, as far as the report knows; ``device`` is where."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    which = report["protocol"] + (", held-out words" if report["subset"] == "held-out" else "")
    model = Path(report["model"]["path"]).name if report["model"] else "results"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title=escape(f"{model} ({which})"))
    table.add_column("data set", overflow="fold")
    for heading in ("accuracy", "95 %", "1-NED", "CER", "ECE", "used"):
        table.add_column(heading, justify="right", no_wrap=True)
    for data in report["datasets"]:
        table.add_row(escape(Path(data["path"]).name), *_figures(data))
    if len(report["datasets"]) > 1:
        table.add_section()
        table.add_row("all", *_figures(report["overall"]))
    console.print(table)
    if knowledge := report.get("knowledge"):
        console.print(f"decoded with {known_in_words(knowledge)}", markup=False, soft_wrap=True)
    if engine := report["engine"]:
        where = f" on {device}" if device else ""
        temperature = "" if report["temperature"] == 1 else f", temperature {report['temperature']:.3g}"
        line = f"{engine['name']} {engine['version']}{where}, {engine['precision']}{temperature}{_speed(report)}"
        console.print(line, style="dim", markup=False, soft_wrap=True)


def show_dropped(console: Console, name: str, protocol: str, labels: Iterable[str]) -> None:
    """What the alnum36 protocol took from the labels of the data set called ``name``, if anything."""
    if counts := dropped(labels):
        what = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        console.print(f"{name}: {protocol} dropped from the labels: {what}", markup=False, soft_wrap=True)


def show_skipped(console: Console, skipped: Sequence[dict[str, Any]], all_of_them: str) -> None:
    """The first reasons why words were skipped; ``all_of_them`` says where the others are listed."""
    shown = 5
    for word in skipped[:shown]:
        console.print(f"skipped {word['key']}: {word['reason']}", markup=False, soft_wrap=True)
    if (more := len(skipped) - shown) > 0:
        console.print(f"... and {more} more skipped; {all_of_them}", markup=False, soft_wrap=True)


def show_errors(console: Console, report: dict[str, Any], count: int) -> None:
    """The ``count`` wrong words of each data set that the network was surest of."""
    from rich.markup import escape
    from rich.table import Table

    from crnn.evaluation.markup import visible

    for data in report["datasets"]:
        table = Table("key", "label", "read as", title=escape(f"{Path(data['path']).name}: surest errors"))
        table.add_column("confidence", justify="right")
        for word in most_confident_errors(data["words"], count):
            texts = (escape(visible(text)) for text in (word["key"], word["label"], word["text"]))
            table.add_row(*texts, f"{word['confidence']:.3f}")
        console.print(table)


def _speed(report: dict[str, Any]) -> str:
    if any(data["words_per_second"] is None for data in report["datasets"]):
        return ""
    seconds = sum(data["used"] / data["words_per_second"] for data in report["datasets"])
    return f": {report['overall']['used'] / seconds:,.0f} words/s"


def _figures(data: dict[str, Any]) -> tuple[str, ...]:
    low, high = data["interval"]
    return (
        f"{data['accuracy']:.2%}",
        f"{100 * low:.1f}-{100 * high:.1f}",
        f"{data['ned']:.4f}",
        f"{data['cer']:.2%}",
        f"{data['ece']:.3f}",
        f"{data['used']}/{data['total']}",
    )
