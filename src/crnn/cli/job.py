"""``crnn job``: millions of pictures, from any storage to Parquet files, here or on Ray."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli._knowledge import Beam, Characters, LexiconFile, PriorFile, PriorWeight, SecondLook, read_prior
from crnn.cli._options import Engine, Model, Precision
from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.jobs.run import Status

_EVERY = 60.0  # seconds between lines where there is no terminal


class On(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("job")(job)


def job(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder, tar archives, Parquet files or an LMDB data set: a path, a URL such as s3://bucket/crops,"
            " or a pattern such as 's3://bucket/train-*.tar'.",
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the results: a path or a URL.")],
    on: Annotated[On, typer.Option(help="This process, or workers on Ray.")] = On.local,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster; auto finds one.", show_default="$RAY_ADDRESS, or a Ray of its own here"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers on Ray.", show_default="as many as there is room for")
    ] = None,
    npus: Annotated[
        float, typer.Option(min=0, help="Ascend NPUs of each worker, which Ray knows as the resource NPU.")
    ] = 0,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Processors to use; on Ray, of each worker.", show_default="all; on Ray 1"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Words in one call of the network.")] = 64,
    part: Annotated[
        int, typer.Option(min=1, metavar="N", help="Pictures a part, where they can be counted out.")
    ] = 5000,
    with_characters: Annotated[bool, typer.Option(help="Also every character, its score and its place.")] = False,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of Parquet files.", show_default="the one that holds pictures")
    ] = None,
    source_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of Parquet files: what to call a picture.", show_default="FILE/row N"),
    ] = None,
    max_errors: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Stop when more pictures cannot be read.", show_default="never"),
    ] = None,
    lexicon: LexiconFile = None,
    prior: PriorFile = None,
    prior_weight: PriorWeight = None,
    characters: Characters = None,
    beam: Beam = None,
    second_look: SecondLook = False,
) -> None:
    """Read every picture in INPUT into Parquet files in OUTPUT_DIR.

    Stopped or killed, the same command goes on where it was: what is there
    is not read again. A picture that cannot be read is a row with an error.

    INPUT is read in parts: so many picture files, a tar archive, so many rows
    of a Parquet file or words of an LMDB data set; each gives one file of
    results, which appears whole. Storage other than this machine's disks
    needs its fsspec driver, such as s3fs.

    The exit status is 1 if --max-errors stopped the job, 2 for wrong usage or
    an input or output that fails, 130 after Ctrl-C.
    """
    if on is On.local and (address is not None or workers is not None or npus):
        raise OptionError("--address, --workers and --npus belong to --on ray")

    import warnings

    from rich.console import Console

    from crnn.decoding.lexicon import Lexicon

    try:
        from crnn.jobs.reading import TooManyErrors
        from crnn.jobs.run import Here, Job, Runner, run
        from crnn.jobs.storage import place
        from crnn.jobs.units import Layout
    except ModuleNotFoundError as error:
        if error.name not in ("pyarrow", "fsspec"):
            raise
        raise OptionError(f"crnn job needs {error.name}: pip install 'crnn[jobs]'") from None

    # Pillow warns of oddities in files, the same ones that we report as errors if they matter
    warnings.filterwarnings("ignore", module=r"PIL\.")
    reader: dict[str, Any] = {
        "model": model,
        "engine": engine or "auto",
        "precision": precision,
        "threads": (threads or 1) if on is On.ray else threads,
        "batch_size": batch_size,
        "lexicon": Lexicon.from_file(lexicon) if lexicon is not None else None,
        "prior": read_prior(prior, prior_weight),
        "characters": characters,
        "beam": beam,
        "second_look": second_look,
    }
    wanted = Job(source, output, reader, Layout(part, image_column, source_column), with_characters, max_errors)
    err = Console(emoji=False, stderr=True, highlight=False)
    done: Status | None = None
    try:
        with ExitStack() as stack:
            runner: Runner = Here()
            if on is On.ray:
                from crnn.jobs.onray import OnRay

                runner = stack.enter_context(OnRay(address, workers, cpus=threads or 1, npus=npus))
            show = stack.enter_context(_progress(err))

            def count(status: Status) -> None:
                nonlocal done
                done = status
                show(status)

            complete = run(wanted, runner, count)
    except TooManyErrors as error:
        err.print(f"crnn: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("crnn: stopped; the same command goes on", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    for note in complete["notes"]:
        err.print(f"crnn: {note}", markup=False, soft_wrap=True)
    _summary(place(output).url, complete, done)


def _summary(output: str, complete: dict[str, Any], done: Status | None) -> None:
    counts, engine = complete["counts"], complete["engine"]
    bad = f"; {counts['errors']:,} could not be read" if counts["errors"] else ""
    typer.echo(f"{output}: {counts['words']:,} words in {counts['parts']:,} files{bad}")
    if done is None:
        typer.echo("all of them were there")
        return
    there = f"{done.there:,} were there, " if done.there else ""
    by = f"{engine['name']} {engine['version']} on {engine['device']}, {engine['precision']}"
    read = done.words - done.there
    typer.echo(f"{there}{read:,} read in {_clock(done.seconds)}, {done.speed:,.0f} words/s, by {by}")


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if seconds >= 60 else f"{seconds:.1f} s"


def _in_words(status: Status) -> str:
    left = "" if status.left is None else f", {_clock(status.left)} left"
    bad = f", {status.errors:,} could not be read" if status.errors else ""
    return f"{status.words:,} words{bad}, {status.speed:,.0f} words/s{left}"


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Status], None]]:
    """A function to call with every status: a bar on a terminal, elsewhere a line from time to time."""
    if not console.is_terminal:
        last = time.monotonic()

        def line(status: Status) -> None:
            nonlocal last
            if time.monotonic() - last >= _EVERY:
                last = time.monotonic()
                print(f"crnn: {status.fraction:.1%}: {_in_words(status)}", file=sys.stderr, flush=True)

        yield line
        return

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=1.0, words="looking at the input")
        last = 0.0

        def draw(status: Status) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.2:
                last = time.monotonic()
                bar.update(task, completed=status.fraction, words=_in_words(status))

        yield draw
