"""``crnn report``: a result as a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.evaluation.sources import Progress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("report")(report)


def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="What `crnn evaluate --json` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page.", show_default="RESULT with .html"),
    ] = None,
    worst: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="Show the N wrong words the model was surest of.")
    ] = 24,
    model: Annotated[
        Path | None, typer.Option(help="Where the model is now.", show_default="where the result says")
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where a data set is now; may be repeated.", show_default="as it says"),
    ] = None,
    lexicon: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the lexicon is now.", show_default="as it says"),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the prior is now.", show_default="as it says")
    ] = None,
) -> None:
    """Make one self-contained HTML page of a result: where the errors are, and what the network saw.

    Data sets and model are opened again for the pictures of the worst words and the posteriors drawn over them, and the
    lexicon or prior that words were read with. If something is gone or has changed, the page says so, and so does this
    command.
    """
    from rich.console import Console

    from crnn.cli.evaluate import show_notes
    from crnn.evaluation.evidence import reopen
    from crnn.evaluation.page import render
    from crnn.evaluation.page import worst as surest
    from crnn.evaluation.saved import load_result
    from crnn.files import write_whole

    loaded = load_result(result)
    page = page_path(out or result.with_suffix(".html"), result)
    picks = surest(loaded, worst)
    err = Console(emoji=False, stderr=True, highlight=False)
    with looking(err) as tell:
        found = reopen(
            loaded,
            picks,
            beside=result.parent,
            model=model,
            datasets=dataset or (),
            lexicon=lexicon,
            prior=prior,
            progress=tell,
        )
    write_whole(page, render(loaded, picks, found))
    show_notes(err, found.notes)
    typer.echo(f"{page}: {page.stat().st_size / 1000:,.0f} kB")


def page_path(page: Path, *results: Path) -> Path:
    """Where a page is written. Raises OptionError if there is no such folder, or if it is one of the ``results``."""
    from crnn.errors import OptionError

    if not page.absolute().parent.is_dir():
        raise OptionError(f"{page}: there is no such folder to write it to")
    if not page.name:
        raise OptionError(f"{page}: a folder; name a file")
    if page.resolve() in [result.resolve() for result in results]:
        raise OptionError(f"{page}: is a result itself; name another file")
    return page


@contextmanager
def looking(console: Console) -> Iterator[Progress]:
    """Shows on ``console``, if that is a terminal, what is being looked at."""
    from rich.markup import escape

    with console.status("reading") as status:
        yield lambda name: status.update(f"reading {escape(name)}")
