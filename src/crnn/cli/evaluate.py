"""``crnn evaluate``: how well a model reads labelled words."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate")(evaluate)


def evaluate(
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="LMDB data sets of labelled words.")],
    model: Annotated[
        Path | None,
        typer.Option(help="An .onnx, a .safetensors or a run's folder.", show_default="the bundled weights"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="onnxruntime or torch.", show_default="torch for .safetensors and runs, else onnxruntime"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    errors: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show the N wrong words the model was surest of, of each data set.")
    ] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Of training sets: only the tenth of the words kept from training.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Words in one call of the network.")] = 64,
) -> None:
    """Read labelled words and count the right ones: case-insensitive, 0-9 and a-z only.

    Words that cannot be used (a damaged picture, an empty label) are listed as skipped and do not count. ECE, the
    expected calibration error, is how far confidences are from the share of right words, on average; of few words,
    chance alone makes it large (0.06 of 200).
    """
    from rich.console import Console

    from crnn.engines import open_engine
    from crnn.evaluation.evaluate import evaluate as run

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise OptionError(f"{json_file}: there is no such folder to write it to")
    opened = open_engine(model, engine)
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    for note in opened.notes:
        err.print(f"crnn: {note}", style="yellow", markup=False, soft_wrap=True)
    with _progress(err) as progress:
        tasks: dict[str, Any] = {}

        def show(path: str, done: int, total: int) -> None:
            if path not in tasks:
                tasks[path] = progress.add_task(Path(path).name)
            progress.update(tasks[path], completed=done, total=total)

        report = run(datasets, opened, batch_size, held_out=held_out, progress=show)
    if json_file is not None:
        _write(json_file, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    _show(out, report, opened.device)
    _show_left_out(out, report)
    if errors:
        _show_errors(out, report, errors)


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show(console: Console, report: dict[str, Any], device: str) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    engine = report["engine"]
    which = report["protocol"] + (", held-out words" if report["subset"] == "held-out" else "")
    title = escape(f"{Path(report['model']['path']).name} ({which})")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title=title)
    table.add_column("data set", overflow="fold")
    for heading in ("accuracy", "95 %", "1-NED", "CER", "ECE", "used"):
        table.add_column(heading, justify="right", no_wrap=True)
    for data in report["datasets"]:
        table.add_row(escape(Path(data["path"]).name), *_figures(data))
    if len(report["datasets"]) > 1:
        table.add_section()
        table.add_row("all", *_figures(report["overall"]))
    console.print(table)
    temperature = "" if report["temperature"] == 1 else f", temperature {report['temperature']:.3g}"
    speed = report["overall"]["used"] / sum(data["used"] / data["words_per_second"] for data in report["datasets"])
    console.print(
        f"{engine['name']} {engine['version']} on {device}, {engine['precision']}{temperature}: {speed:,.0f} words/s",
        style="dim",
        soft_wrap=True,
    )


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


def _show_left_out(console: Console, report: dict[str, Any]) -> None:
    """What the protocol took from the labels, and the first reasons why words were skipped."""
    from crnn.datasets.lmdb import LmdbReader
    from crnn.datasets.split import is_held_out
    from crnn.errors import LabelError
    from crnn.evaluation.protocols import dropped

    def labels(reader: LmdbReader) -> list[str]:
        found = []
        for i in range(len(reader)):
            if report["subset"] == "held-out" and not is_held_out(i):
                continue
            try:
                found.append(reader.label(i))
            except LabelError:  # listed as skipped
                continue
        return found

    for data in report["datasets"]:
        if counts := dropped(labels(LmdbReader(data["path"]))):
            what = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
            line = f"{Path(data['path']).name}: {report['protocol']} dropped from the labels: {what}"
            console.print(line, markup=False, soft_wrap=True)
        shown = 5
        for word in data["skipped"][:shown]:
            console.print(f"skipped {word['key']}: {word['reason']}", markup=False, soft_wrap=True)
        if (more := len(data["skipped"]) - shown) > 0:
            console.print(f"... and {more} more skipped; --json FILE lists them all")


def _show_errors(console: Console, report: dict[str, Any], count: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from crnn.evaluation.evaluate import most_confident_errors

    for data in report["datasets"]:
        table = Table("key", "label", "read as", title=escape(f"{Path(data['path']).name}: surest errors"))
        table.add_column("confidence", justify="right")
        for word in most_confident_errors(data["words"], count):
            table.add_row(word["key"], escape(word["label"]), escape(word["text"]), f"{word['confidence']:.3f}")
        console.print(table)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: written under another name in the same folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
