"""``crnn infer``: prepared words through a network, into result files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli._options import Engine, Model, Precision, Threads
from crnn.errors import OptionError


class Naming(StrEnum):
    """Whose names result files have."""

    benchmark = "benchmark"
    ais_bench = "ais_bench"


class Format(StrEnum):
    """What result files hold."""

    bin = "bin"
    txt = "txt"
    npy = "npy"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("infer")(infer)


def infer(
    folder: Annotated[
        Path | None, typer.Argument(metavar="BIN_DIR", help="Words that `crnn prepare` wrote.", show_default=False)
    ] = None,
    info: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of BIN_DIR: an info file that names them.")
    ] = None,
    model: Model = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")] = Path("result"),
    naming: Annotated[
        Naming, typer.Option(help="dumpOutput_device0/test_1_1.* in --out, or ais_bench's test_1_0.* there.")
    ] = Naming.benchmark,
    form: Annotated[Format, typer.Option("--format", help="Raw float32, text, or NumPy's.")] = Format.bin,
    batch_size: Annotated[
        int, typer.Option("--batch", min=1, help="Words in one call of the network; the last call is padded.")
    ] = 16,
    device: Annotated[
        int, typer.Option(min=0, help="Number of the device in benchmark's names; it chooses no device.")
    ] = 0,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Do what benchmark and ais_bench do, on any engine: one result file a word, and how long it took.

    A result is the network's output for one word: 26 x 1 x 37 float32, cut out along the batch axis, which is 1. A run
    that was stopped goes on where it was.
    """
    from rich.console import Console

    from crnn.cli.evaluate import show_notes
    from crnn.engines import open_engine
    from crnn.evaluation.tables import progress_bar
    from crnn.offline.bins import prepared_words
    from crnn.offline.infer import infer as run
    from crnn.offline.info import read_info

    if (folder is None) == (info is None):
        raise OptionError("name a folder of prepared words, or a list of them with --info FILE")
    files = prepared_words(folder) if folder is not None else None
    opened = open_engine(model, engine, threads, precision)
    if files is None and info is not None:
        files = read_info(info, (opened.spec.width, opened.spec.height))
    err = Console(emoji=False, stderr=True, highlight=False)
    show_notes(err, opened.notes)
    with progress_bar(err) as bar:
        task = bar.add_task(opened.path.name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        done = run(
            files or [],
            opened,
            out,
            naming=naming.value,
            form=form.value,
            batch_size=batch_size,
            device=device,
            progress=show,
        )
    for line in done.lines:
        typer.echo(line)
    there = f" ({done.kept:,} were there)" if done.kept else ""
    typer.echo(f"{done.folder}: {done.words + done.kept:,} results{there}")
    if done.performance is None:
        typer.echo("nothing was left to run, so nothing was measured; delete the folder to measure again")
    else:
        typer.echo(f"{done.performance}: {opened.name} {opened.version} on {opened.device}, {opened.precision}")
