"""``crnn compare``: two results on the same words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare")(compare)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="What `crnn evaluate --json` wrote of one model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The same of another model, or of another precision.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write a page with pictures of the words.")
    ] = None,
    words: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="Show N words that only A, and N that only B reads right.")
    ] = 10,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the figures and all words that differ."),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where a data set is now, for -o; may be repeated.", show_default="as A says"),
    ] = None,
) -> None:
    """Say which of two models reads the same words better, and whether chance could have made the difference.

    p is that of McNemar's exact test, the interval of the difference is Newcombe's for paired proportions.
    """
    import json

    from rich.console import Console

    from crnn.cli.evaluate import json_path, show_notes
    from crnn.cli.report import looking, page_path
    from crnn.errors import OptionError
    from crnn.evaluation import compare as comparing
    from crnn.evaluation import compare_page
    from crnn.evaluation.evidence import reopen
    from crnn.evaluation.saved import load_result
    from crnn.files import write_whole

    if dataset and out is None:
        raise OptionError("--dataset is for the pictures of a page: name it with -o")
    page = None if out is None else page_path(out, a, b)
    json_file = json_path(json_file)
    if json_file is not None:
        page_path(json_file, a, b, *([page] if page else []))
    reports = load_result(a), load_result(b)
    found = comparing.compare(*reports, names=(str(a), str(b)))
    console, err = Console(emoji=False, highlight=False), Console(emoji=False, stderr=True, highlight=False)
    notes = tuple(found["notes"])
    if json_file is not None:
        write_whole(json_file, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    shown = compare_page.picks(found, words)
    if page is not None:
        with looking(err) as tell:
            every = [*shown["a"], *shown["b"]]
            seen = reopen(reports[0], every, beside=a.parent, datasets=dataset or (), network=False, progress=tell)
        write_whole(page, compare_page.render(found, reports, shown, seen))
        notes += seen.notes
    _show(console, found, shown)
    show_notes(err, notes)


def _show(console: Console, found: dict[str, Any], shown: dict[str, list[tuple[int, dict[str, Any]]]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from crnn.evaluation.compare import verdict
    from crnn.evaluation.compare_page import HEADINGS, rows
    from crnn.evaluation.markup import visible
    from crnn.evaluation.report import known_in_words

    for side in "ab":
        known = found[side].get("knowledge")
        decoded = f", decoded with {known_in_words(known)}" if known else ""
        console.print(f"{side.upper()}: {found[side]['name']}{decoded}", markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    short = {"95 % interval": "95 %", "neither": "none"}  # all of it has to fit into 80 columns
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(short.get(heading, heading), justify="right", no_wrap=True)
    for row in rows(found):
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(verdict(found["overall"]), markup=False, soft_wrap=True)
    for side in "ab":
        if not shown[side]:
            continue
        total = found["overall"][f"only_{side}"]
        title = f"only {side.upper()} is right: {len(shown[side])} of {total:,}"
        listed = Table("key", "label", "A", "B", title=title, box=box.SIMPLE_HEAD, show_edge=False)
        for _, word in shown[side]:
            sides = [f"{word[name]['text']} ({word[name]['confidence']:.3f})" for name in "ab"]
            listed.add_row(*[escape(visible(text)) for text in (word["key"], word["label"], *sides)])
        console.print(listed)
