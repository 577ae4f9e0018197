"""``crnn read``: the words in pictures."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli._knowledge import Beam, Characters, LexiconFile, PriorFile, PriorWeight, SecondLook, read_prior
from crnn.cli._options import Engine, Model, Precision, Threads
from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.reader import Item, Reader
    from crnn.word import Word

_ROWS = 40  # of the table are laid out together, so that it grows while words come in


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("read")(read)


def read(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Pictures, folders, LMDB data sets, tar archives; - for standard input (a picture or a tar archive).",
        ),
    ] = None,
    list_file: Annotated[
        str | None,
        typer.Option("--list", metavar="FILE", help="Also the paths in FILE, one a line; - is standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, with every character's place.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print a JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append to a .jsonl or .csv file what is not in it yet; print nothing."),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Leave out words that are less probable than P.")
    ] = 0.0,
    min_kept: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="With --lexicon or --characters: leave out words whose text was most probably another, "
            "those that keep less than P of the probability.",
        ),
    ] = 0.0,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    lexicon: LexiconFile = None,
    prior: PriorFile = None,
    prior_weight: PriorWeight = None,
    characters: Characters = None,
    beam: Beam = None,
    second_look: SecondLook = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Words in one call of the network.")] = 64,
    pixel_limit: Annotated[int, typer.Option(min=1, metavar="N", help="Refuse pictures of more pixels.")] = 64_000_000,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say which engine reads, and why.")] = False,
) -> None:
    """Read the word in each picture: its text, and the probability that the text is right.

    On a terminal the words are a table. Into a pipe or a file go lines of
    text, confidence and source, separated by tabs:
    `crnn read sign.jpg | cut -f1` is the text alone.

    Whatever cannot be read is named on standard error, with the reason, and
    counted at the end; the exit status is then 1 (0: all read, 2: wrong usage).
    With --out, a run that was stopped goes on where it was when it is started
    again: pictures whose source is in FILE are not read again. Another model,
    precision or lexicon than before is refused.
    """
    if not paths and list_file is None:
        raise OptionError("name pictures, folders, LMDB data sets or tar archives to read; see crnn read --help")
    if (paths or []).count("-") + (list_file == "-") > 1:
        raise OptionError("standard input can be read only once; give - only once")
    chosen = [name for name, on in (("--json", as_json), ("--jsonl", as_jsonl), ("--csv", as_csv)) if on]
    chosen += ["--out"] if out is not None else []
    if len(chosen) > 1:
        raise OptionError(f"{' and '.join(chosen)} exclude each other; choose one")
    if min_kept and lexicon is None and characters is None:
        raise OptionError("--min-kept belongs to --lexicon or --characters, without which all texts are possible")

    import warnings

    from PIL import Image
    from rich.console import Console

    from crnn.images import PIXEL_LIMIT
    from crnn.inputs import listed, pictures
    from crnn.outputs import ResultFile
    from crnn.reader import Reader

    # Pillow warns of oddities in files, the same ones that we report as errors if they matter
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if pixel_limit > PIXEL_LIMIT:
        Image.MAX_IMAGE_PIXELS = None  # ours is the limit then, and not Pillow's
    err = Console(emoji=False, stderr=True, highlight=False)
    named: Iterable[str] = chain(paths or [], listed(list_file) if list_file is not None else [])
    with ExitStack() as stack:
        results = stack.enter_context(ResultFile(out)) if out is not None else None
        had = len(results.sources) if results else 0
        reader = Reader(
            model,
            engine=engine or "auto",
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            pixel_limit=pixel_limit,
            lexicon=lexicon,
            prior=read_prior(prior, prior_weight),
            characters=characters,
            beam=beam,
            second_look=second_look,
        )
        if results:
            results.made_by(_facts(reader))
        for note in (reader.engine, *reader.notes) if verbose else reader.notes:
            err.print(f"crnn: {note}", markup=False, soft_wrap=True)
        table = not chosen and sys.stdout.isatty()
        # Rows that appear are progress enough, and the two would write over each other.
        show = err.is_terminal and not (sys.stdout.isatty() and not results)
        tick = stack.enter_context(_progress(err) if show else nullcontext(lambda: None))
        skipped = _Skipped(err)
        items: Iterator[Item] = pictures(named, on_skip=skipped)
        if results:
            # What standard input holds is another each time, though it has the same name.
            items = (item for item in items if item.source.split("/")[0] == "-" or results.claim(item.source))
        words = skipped.sort_out(reader.read_many(items, on_error="record"), tick)
        below = _Counting(lambda word: word.confidence >= min_confidence)
        foreign = _Counting(lambda word: word.kept is None or word.kept >= min_kept)
        kept = below.filter(foreign.filter(words))
        if results:
            for word in kept:
                results.add(word)
        elif table:
            _print_table(kept, Console(emoji=False, highlight=False))
        else:
            _print(kept, chosen[0] if chosen else None)
    if results:
        there = f" ({had:,} were there already)" if had else ""
        err.print(f"crnn: {results.path}: {below.passed:,} words added{there}", markup=False, soft_wrap=True)
    if foreign.stopped:
        what = f"{foreign.stopped:,} words that keep less than {min_kept:g} of the probability were left out"
        err.print(f"crnn: {what}", markup=False, soft_wrap=True)
    if below.stopped:
        what = f"{below.stopped:,} words less probable than {min_confidence:g} were left out"
        err.print(f"crnn: {what}", markup=False, soft_wrap=True)
    if skipped.reasons:
        skipped.summarise()
        raise typer.Exit(1)


def _facts(reader: Reader) -> dict[str, Any]:
    """What decides which texts are read."""
    from crnn.evaluation.report import model_entries

    entries = model_entries(reader.network)
    known = {  # a file's name is as it was typed; its contents count
        what: {name: it for name, it in value.items() if name != "name"} if isinstance(value, dict) else value
        for what, value in reader.known.items()
    }
    return {"model": entries["model"]["sha256"], "precision": entries["engine"]["precision"], **known}


class _Counting:
    """A filter that counts what it let through and what it did not."""

    def __init__(self, passes: Callable[[Word], bool]) -> None:
        self._passes, self.passed, self.stopped = passes, 0, 0

    def filter(self, words: Iterable[Word]) -> Iterator[Word]:
        for word in words:
            if self._passes(word):
                self.passed += 1
                yield word
            else:
                self.stopped += 1


class _Skipped:
    """What could not be read: told at once, a line each, and counted by reason."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.reasons: Counter[str] = Counter()
        self.read = 0

    def __call__(self, source: str, reason: str) -> None:
        from crnn.outputs import visible

        line = f"crnn: {visible(source)}: {' '.join(reason.split())}"
        self._console.print(line, markup=False, soft_wrap=True)
        self.reasons[re.split(r" \(|[;:,] ", reason)[0]] += 1  # without the particulars

    def sort_out(self, words: Iterable[Word], tick: Callable[[], None]) -> Iterator[Word]:
        """The words that were read; the others are skipped."""
        for word in words:
            tick()
            if word.error is None:
                self.read += 1
                yield word
            else:
                self(word.source or "picture", word.error)

    def summarise(self) -> None:
        shown = [f"{count:,} {reason}" for reason, count in self.reasons.most_common(5)]
        if (more := self.reasons.total() - sum(count for _, count in self.reasons.most_common(5))) > 0:
            shown.append(f"{more:,} for other reasons")
        line = f"crnn: {self.read:,} read, {self.reasons.total():,} skipped: {'; '.join(shown)}"
        self._console.print(line, markup=False, soft_wrap=True)


def _progress(console: Console) -> Any:
    """A context manager that gives a function to call for each picture."""
    from contextlib import contextmanager

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    @contextmanager
    def running() -> Iterator[Callable[[], None]]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.completed:,.0f} words"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
            task = progress.add_task("", total=None, speed="")

            def tick() -> None:
                # written out by the display's own thread, ten times a second
                progress.advance(task)
                state = progress.tasks[0]
                if state.completed % 64 == 0 and state.elapsed:
                    progress.update(task, speed=f"{state.completed / state.elapsed:,.0f} words/s")

            yield tick

    return running()


def _print(words: Iterable[Word], form: str | None) -> None:
    """To standard output, for programs."""
    from crnn.outputs import CSV_HEADER, JsonArray, csv_line, json_line, plain_line

    out = typer.get_binary_stream("stdout")
    if form == "--json":
        array = JsonArray(out.write)
        for word in words:
            array.add(word)
        array.finish()
    else:
        line = {"--jsonl": json_line, "--csv": csv_line, None: plain_line}[form]
        if form == "--csv":
            out.write(CSV_HEADER)
        for word in words:
            out.write(line(word))
            out.flush()  # whoever reads the pipe need not wait for more
    out.flush()


def _print_table(words: Iterable[Word], console: Console) -> None:
    """To a terminal, for people. The columns only ever grow wider, so that rows need not wait for the last one."""
    from rich.cells import cell_len
    from rich.text import Text

    from crnn.outputs import visible

    width, headed = len("text"), False
    rows: list[tuple[str, float, str]] = []

    def lay_out() -> None:
        nonlocal width, headed
        width = max([width, *(cell_len(text) for text, _, _ in rows)])
        if rows and not headed:
            console.print(Text(f"{'text':{width}}  confidence  source", "bold"))
            headed = True
        for text, confidence, source in rows:
            line = Text(text + " " * (width - cell_len(text)))
            line.append(f"  {confidence:10.3f}  ", "yellow" if confidence < 0.5 else "")
            line.append(source, "dim")
            console.print(line, soft_wrap=True)
        rows.clear()

    for word in words:
        rows.append((visible(word.text), word.confidence, visible(word.source or "")))
        if len(rows) >= _ROWS:
            lay_out()
    lay_out()
