"""``crnn bench``: how fast this machine reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

_BUSY = 0.05  # of the processors' time, taken by others, makes figures that are not worth keeping


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("bench")(bench)


def bench(
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An engine to measure; may be repeated.", show_default="those installed"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="float32, bfloat16 or int8; may be repeated.", show_default="all"),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="N", help="Words in a call; may be repeated.", show_default="1, 8 and 64"),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="N", help="Threads of a call; may be repeated.", show_default="all processors"),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="An .onnx, an .om, a .safetensors or a run's folder.", show_default="the bundled weights"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each is measured in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each has its turn.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
) -> None:
    """Measure engines, precisions, batch sizes and threads in turn, each in a process of its own.

    The network alone is measured, on prepared words of the bundled sample. Latency is the time of a call: the middle
    one (p50), and the one that 99 of 100 calls stay below (p99). Memory is the most that the process held, libraries
    included. The last column compares the network with the fastest large matrix product in the same precision, measured
    in the same rounds: 100 % would be all that the processor can do.

    Nothing is kept between runs: figures of different times do not belong beside each other.
    """
    from rich.console import Console

    from crnn.bench.run import BATCH_SIZES
    from crnn.bench.run import bench as run
    from crnn.files import write_whole

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise OptionError(f"{json_file}: there is no such folder to write it to")
    out, err = Console(emoji=False, highlight=False), Console(emoji=False, stderr=True, highlight=False)
    with _progress(err) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        report = run(
            model,
            engine or (),
            precision or (),
            batch_size or BATCH_SIZES,
            threads or (),
            seconds=seconds,
            rounds=rounds,
            progress=show,
        )
    _show(out, report)
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=1) + "\n")


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show(console: Console, report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    processor = report["machine"]["processor"]
    title = f"{report['model']} on {processor['name']}, {processor['usable']} usable"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title=Text(title))
    table.add_column("engine", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    for heading in ("threads", "batch", "words/s", "p50 ms", "p99 ms", "MB", "of peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    last: tuple[Any, ...] = ()
    for result in report["results"]:
        kind = tuple(result[name] for name in ("engine", "precision", "threads"))
        if last not in ((), kind):
            table.add_section()
        last = kind
        table.add_row(*map(str, kind), *_figures(result))
    console.print(table)
    for line in _remarks(report):
        console.print(line, markup=False, soft_wrap=True)


def _figures(result: dict[str, Any]) -> tuple[str, ...]:
    memory, share = result["memory"], result["share"]
    return (
        str(result["batch_size"]),
        f"{result['words_per_second']:,.0f}",
        f"{1000 * result['p50']:.2f}",
        f"{1000 * result['p99']:.2f}",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
        "-" if share is None else f"{share:.0%}",
    )


def _remarks(report: dict[str, Any]) -> list[str]:
    """What the figures rest on: the products, the choices left out, and whether the machine was idle."""
    fastest: dict[tuple[str, int], dict[str, Any]] = {}
    for one in sorted(report["products"], key=lambda one: float(one["rate"])):
        fastest[one["precision"], one["threads"]] = one
    lines = [
        f"peak: {one['precision']}, {threads} thread{'s' * (threads != 1)}: "
        f"{2 * one['rate'] / 1e12:.3f} TFLOP/s ({one['library']})"
        for (_, threads), one in sorted(fastest.items())
    ]
    lines.append(f"a word: {report['multiply_adds'] / 1e9:.3f} billion multiply-adds, two FLOP each")
    reasons = dict.fromkeys(one["reason"] for one in report["left_out"])
    lines += [f"left out: {reason}" for reason in reasons]
    others = report["others"]
    if others is not None and others > _BUSY:
        lines.append(f"other processes took {others:.0%} of the processors meanwhile: these figures are too low")
    return lines
