"""``crnn data``: labelled words of any format, built into a data set, measured, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.datasets.audit import Rules
    from crnn.datasets.words import WordSource


class Format(StrEnum):
    """What a data set is; see `crnn.datasets.formats`."""

    lmdb = "lmdb"
    table = "table"
    icdar = "icdar"
    scenes = "scenes"
    pairs = "pairs"
    names = "names"
    webdataset = "webdataset"
    parquet = "parquet"


_In = Annotated[list[Path], typer.Argument(metavar="IN...", help="Data sets: files or folders.")]
_Format = Annotated[Format | None, typer.Option(help="What they are.", show_default="recognised")]
_Images = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the pictures are that a table names, or of scenes.")
]
_ImageColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column that names the pictures: its name, or number from 1.")
]
_LabelColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the labels: its name, or number from 1.")
]
_Pattern = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Where the label is in a file's name (without suffix): its first group."),
]
_Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON; - prints it.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Labelled words: build data sets, measure and check them.")
    group.command()(build)
    group.command()(stats)
    group.command()(check)
    app.add_typer(group, name="data")


def build(
    paths: Annotated[list[Path], typer.Argument(metavar="IN... OUT", help="Data sets, then the LMDB to write.")],
    format: _Format = None,
    images: _Images = None,
    image_column: _ImageColumn = None,
    label_column: _LabelColumn = None,
    label_pattern: _Pattern = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="End with 0 although words were left out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an LMDB data set.")] = False,
) -> None:
    """Build an LMDB data set from labelled words of any format.

    Pictures and labels are stored as they are. Words that cannot be used (no picture, a damaged one, no label) are
    left out and listed with the reason; the command then ends with 1, unless --skip-bad says that it may be so.
    """
    from crnn.datasets.build import build as build_words
    from crnn.datasets.show import counted
    from crnn.datasets.words import Entry, Unusable
    from crnn.outputs import visible

    if len(paths) < 2:
        raise OptionError(f"{paths[0]}: name the data sets first, then the LMDB to write: crnn data build IN OUT")
    *places, out = paths
    _check_out(out, overwrite, places)
    sources, err = _opened(places, format, images, image_column, label_column, label_pattern)

    def left_out(source: WordSource, entry: Entry, why: Unusable) -> None:
        if why.kind != "illegible":  # counted below; there may be as many of them as words, and nothing is wrong
            typer.echo(visible(f"left out {source.path}: {entry.key}: {why.reason}"), err=True)

    with _Bars(err) as bars:
        built = build_words(sources, out, overwrite=overwrite, on_left_out=left_out, advance=bars.advance)
    typer.echo(f"{out}: {counted(built.words, 'word')}")
    illegible = built.left_out.pop("illegible", 0)
    if illegible:
        typer.echo(f"{counted(illegible, 'place')} marked as illegible passed over")
    if built.left_out:
        what = ", ".join(f"{count:,} {kind}" for kind, count in built.left_out.most_common())
        total = counted(built.left_out.total(), "word")
        typer.echo(f"crnn: {total} left out ({what}), listed above with the reason", err=True)
        if not skip_bad:
            raise typer.Exit(1)


def stats(
    paths: _In,
    format: _Format = None,
    images: _Images = None,
    image_column: _ImageColumn = None,
    label_column: _LabelColumn = None,
    label_pattern: _Pattern = None,
    json: _Json = None,
) -> None:
    """Count and measure data sets: labels, characters, cases, sizes of pictures, aspect, contrast."""
    from functools import partial

    from crnn.datasets.show import stats_lines
    from crnn.datasets.stats import measure

    _check_json(json, paths)
    sources, err = _opened(paths, format, images, image_column, label_column, label_pattern)
    found = []
    with _Bars(err) as bars:
        for source in sources:
            found.append(measure(source, partial(bars.advance, source)))
    _tell([line for values in found for line in stats_lines(values)], json, found)


def check(
    paths: _In,
    format: _Format = None,
    images: _Images = None,
    image_column: _ImageColumn = None,
    label_column: _LabelColumn = None,
    label_pattern: _Pattern = None,
    charset: Annotated[
        str | None,
        typer.Option(metavar="FILE_OR_TEXT", help="Characters that labels may have: a file, or as they are."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Model whose characters and time steps labels must fit.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=4, help="Width of the network's input, which gives its time steps: 100 has 26.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the first data set's clean words as LMDB.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an LMDB data set.")] = False,
    json: _Json = None,
    examples: Annotated[int, typer.Option(min=0, help="Findings of a kind that are printed.")] = 5,
) -> None:
    """Check data sets for what would spoil training or evaluation; ends with 1 if there are errors.

    Of several data sets, it is also looked for pictures that are in more than one. With --fix, the first data set's
    words are written but for those with errors, further copies, and those that are or look like one in another set.
    No label is ever changed.
    """
    from crnn.datasets.audit import as_json, audit
    from crnn.datasets.build import build as build_words
    from crnn.datasets.show import audit_lines, counted

    rules = _rules(charset, model, width)
    _check_json(json, paths)
    if fix is not None:
        _check_out(fix, overwrite, paths)
    sources, err = _opened(paths, format, images, image_column, label_column, label_pattern)
    with _Bars(err) as bars:
        report = audit(sources, rules, bars.advance)
    _tell(audit_lines(sources, rules, report, examples), json, as_json(sources, rules, report))
    if fix is not None:
        unclean = report.unclean(sources[0].path)
        with _Bars(err) as bars:
            built = build_words(
                sources[:1],
                fix,
                overwrite=overwrite,
                skip=lambda source, place: place in unclean,
                advance=bars.advance,
            )
        typer.echo(f"{fix}: {counted(built.words, 'clean word')}; {len(unclean):,} left out", err=True)
    if report.errors:
        raise typer.Exit(1)


class _Bars:
    """A progress bar for each data set, on standard error if that is a terminal."""

    def __init__(self, console: Console) -> None:
        from crnn.evaluation.tables import progress_bar

        self._progress = progress_bar(console)
        self._tasks: dict[Path, Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def advance(self, source: WordSource, done: int) -> None:
        """Show that so many entries of a source have been looked at."""
        if source.path not in self._tasks:
            self._tasks[source.path] = self._progress.add_task(source.path.name, total=source.count)
        self._progress.update(self._tasks[source.path], completed=done)


def _opened(
    paths: Sequence[Path],
    format: Format | None,
    images: Path | None,
    image_column: str | None,
    label_column: str | None,
    pattern: str | None,
) -> tuple[list[WordSource], Console]:
    """The data sets; how each is read, with its first word, is said on standard error."""
    from rich.console import Console

    from crnn.datasets.formats import open_words
    from crnn.datasets.words import ReadOptions
    from crnn.outputs import visible

    err = Console(emoji=False, stderr=True, highlight=False)
    options = ReadOptions(images, image_column, label_column, pattern)
    sources = []
    for path in paths:
        source = open_words(path, format.value if format else None, options)
        first = next((entry for entry in islice(source, 20) if isinstance(entry.label, str)), None)
        example = f"; first word: {first.key} -> {first.label!r}" if first else ""
        err.print(visible(f"{path}: {source.decided}{example}"), markup=False, soft_wrap=True)
        sources.append(source)
    return sources, err


def _rules(charset: str | None, model: Path | None, width: int | None) -> Rules:
    from crnn.charset import read_charset
    from crnn.datasets.audit import Rules
    from crnn.offline.models import spec_of
    from crnn.spec import DELIVERABLE, FRAME_PITCH

    if model is not None and width is not None:
        raise OptionError("--width and --model: the model has its own width; leave one of them out")
    spec = DELIVERABLE if model is None else spec_of(model)
    symbols = read_charset(charset) if charset is not None else spec.charset if model is not None else None
    return Rules(spec.steps if width is None else width // FRAME_PITCH + 1, symbols)


def _check_out(out: Path, overwrite: bool, places: Iterable[Path]) -> None:
    """Say at once, and not after all the work, that ``out`` cannot be written."""
    from crnn.datasets.lmdb import check_target

    for place in filter(os.path.exists, places):  # what is read is never replaced, whatever --overwrite says
        theirs = [path for path in (place, place / "data.mdb") if os.path.exists(path)]
        ours = [path for path in (out, out / "data.mdb") if os.path.exists(path)]
        if any(os.path.samefile(own, other) for own in ours for other in theirs):
            raise OptionError(f"{out}: one of the data sets to read; choose another name to write to")
    check_target(out, overwrite)


def _check_json(file: Path | None, inputs: Iterable[Path]) -> None:
    if file is None or str(file) == "-":
        return
    if not file.name or not os.path.isdir(file.absolute().parent):
        raise OptionError(f"{file}: there is no such folder to write it to, or no name of a file")
    for path in inputs if os.path.exists(file) else ():
        within = file.resolve().is_relative_to(path.resolve())  # where a report of before may be replaced, no labels
        if within and (file.suffix != ".json" or os.path.samefile(file, path)):
            raise OptionError(f"{file}: is what is to be read, or lies in it; name another file")


def _tell(lines: Iterable[str], file: Path | None, content: Any) -> None:
    """Print what was found, and write all of it to ``file`` as JSON; ``-`` prints the JSON instead."""
    import json

    from crnn.files import write_whole

    if file is None or str(file) != "-":
        typer.echo("\n".join(lines))
    if file is not None:
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        if str(file) == "-":
            typer.echo(text.encode("utf-8", "backslashreplace"), nl=False)
        else:
            write_whole(file, text)
