"""``crnn evaluate``: how well a model reads labelled words."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli._knowledge import Beam, Characters, LexiconFile, PriorFile, PriorWeight, SecondLook, read_prior
from crnn.cli._options import Engine, Model, Precision, Threads
from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.offline.score import Scored


class Schema(StrEnum):
    """What ``--json`` writes."""

    crnn = "crnn"
    modelzoo = "modelzoo"


class Protocol(StrEnum):
    """What of labels and texts is compared."""

    alnum36 = "alnum36"
    raw = "raw"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate")(evaluate)


def evaluate(
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DATASET...", help="LMDB data sets of labelled words.", show_default=False),
    ] = None,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    bins: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of data sets: words that `crnn prepare` wrote.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The labels of --bins.", show_default="label.txt")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the report; a name without a suffix gets .json."),
    ] = None,
    schema: Annotated[Schema, typer.Option(help="Of --json: our report, or ModelZoo's figures.")] = Schema.crnn,
    errors: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show the N wrong words the model was surest of, of each data set.")
    ] = 0,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="alnum36: 0-9 and a-z only, in lower case. raw: all, as it is.",
            show_default="alnum36 for a model of these characters, raw for others",
        ),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Of training sets: only the tenth of the words kept from training.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if a word cannot be used, after the report.")
    ] = False,
    lexicon: LexiconFile = None,
    lexicon_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Give each word a list: its label and N - 1 others of the labels, drawn by chance."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --lexicon-size: other lists.", show_default="0")] = None,
    prior: PriorFile = None,
    prior_weight: PriorWeight = None,
    characters: Characters = None,
    beam: Beam = None,
    second_look: SecondLook = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch", min=1, help="Words in one call of the network.")
    ] = 64,
) -> None:
    """Read labelled words and count the right ones, by what the model can write: see --protocol.

    Words that cannot be used (a damaged picture, an empty label) are listed as skipped and do not count. ECE, the
    expected calibration error, is how far confidences are from the share of right words, on average; of few words,
    chance alone makes it large (0.06 of 200). With a lexicon or allowed characters, confidences are among the texts
    that are possible. With --bins, exit status 1 if a labelled word has no usable file.
    """
    from rich.console import Console

    from crnn.decoding.decoder import Decoder
    from crnn.decoding.lexicon import Lexicon
    from crnn.engines import open_engine
    from crnn.evaluation import tables
    from crnn.evaluation.evaluate import evaluate as run

    if bool(datasets) == (bins is not None):
        raise OptionError("evaluate takes data sets, or --bins with --labels; see crnn evaluate --help")
    if bins is None and labels is not None:
        raise OptionError("--labels belongs to --bins")
    if bins is not None and held_out:
        raise OptionError("--held-out is for data sets; prepared words do not say which were held out")
    if lexicon is not None and lexicon_size is not None:
        raise OptionError("--lexicon and --lexicon-size exclude each other; choose one")
    if seed is not None and lexicon_size is None:
        raise OptionError("--seed belongs to --lexicon-size")
    if lexicon_size is not None and beam is not None:
        raise OptionError("--beam does nothing for lists, which are searched whole; leave it out")
    if bins is not None and protocol is not None:
        raise OptionError("--protocol is for data sets; prepared words are compared by what the model can write")
    known = Lexicon.from_file(lexicon) if lexicon is not None else None
    frequencies = read_prior(prior, prior_weight)
    if bins is not None and (known or frequencies or lexicon_size or characters or beam or second_look):
        raise OptionError(
            "--lexicon, --lexicon-size, --prior, --characters, --beam and --second-look are for data sets, not for "
            "--bins"
        )
    json_file = json_path(json_file)
    opened = open_engine(model, engine, threads, precision)
    decoder = Decoder(opened.spec, known, frequencies, characters, beam)
    out, err = Console(emoji=False, highlight=False), Console(emoji=False, stderr=True, highlight=False)
    show_notes(err, opened.notes + decoder.notes)
    scored: Scored | None = None
    with tables.progress_bar(err) as progress:
        tasks: dict[str, Any] = {}

        def show(path: str, done: int, total: int) -> None:
            if path not in tasks:
                tasks[path] = progress.add_task(Path(path).name)
            progress.update(tasks[path], completed=done, total=total)

        if bins is not None:
            from crnn.offline.labels import DEFAULT
            from crnn.offline.score import evaluate_bins

            def count(done: int, total: int) -> None:
                show(str(bins), done, total)

            scored = evaluate_bins(bins, labels or DEFAULT, opened, batch_size=batch_size, progress=count)
            report = scored.report
        else:
            lists = (lexicon_size, seed or 0) if lexicon_size is not None else None
            report = run(
                datasets or [],
                opened,
                batch_size,
                protocol=protocol.value if protocol else None,
                held_out=held_out,
                decoder=decoder,
                lists=lists,
                second_look=second_look,
                progress=show,
            )
    tables.show(out, report, opened.device)
    if scored is None and report["protocol"] == "alnum36":
        _show_dropped(out, report)
    for data in report["datasets"]:
        tables.show_skipped(out, data["skipped"], "--json FILE lists them all")
    if errors:
        tables.show_errors(out, report, errors)
    if json_file is not None:  # last, as what was measured is to be seen though it cannot be written
        write_report(json_file, report, schema, opened.spec.charset.classes)
    if scored is not None:
        show_extra(out, scored.extra)
        if not scored.complete:
            raise typer.Exit(1)
    if strict and (lost := sum(len(data["skipped"]) for data in report["datasets"])):
        what = "word was" if lost == 1 else "words were"
        err.print(f"crnn: --strict: {lost:,} {what} skipped", markup=False, soft_wrap=True)
        raise typer.Exit(1)


def json_path(path: Path | None) -> Path | None:
    """Where a report is written: ``.json`` is appended to a name without a suffix, as the original does.

    Raises OptionError if there is no such folder, or if what a compiled model needs beside it is called so.
    """
    if path is None:
        return None
    if not path.absolute().parent.is_dir():
        raise OptionError(f"{path}: there is no such folder to write it to")
    from crnn.engines import compiled

    if not path.name:
        raise OptionError(f"{path}: a folder; name a file for the report")
    path = path if path.suffix else path.with_name(f"{path.name}.json")
    if compiled.is_description(path):
        raise OptionError(f"{path}: says what was compiled into {path.stem}.om; choose another name for the report")
    return path


def write_report(path: Path, report: dict[str, Any], schema: Schema, classes: int) -> None:
    """Write a report as JSON, whole or not at all."""
    import json

    from crnn.evaluation.report import modelzoo
    from crnn.files import write_whole

    content = modelzoo(report, classes) if schema is Schema.modelzoo else report
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def show_notes(console: Console, notes: tuple[str, ...]) -> None:
    """What a user should know, on standard error."""
    for note in notes:
        console.print(f"crnn: {note}", style="yellow", markup=False, soft_wrap=True)


def show_extra(console: Console, names: tuple[str, ...]) -> None:
    """Files that no label belongs to."""
    if names:
        more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        console.print(f"without a label: {', '.join(names[:5])}{more}", markup=False, soft_wrap=True)


def _show_dropped(console: Console, report: dict[str, Any]) -> None:
    from crnn.datasets.lmdb import LmdbReader
    from crnn.datasets.split import is_held_out
    from crnn.errors import LabelError
    from crnn.evaluation.tables import show_dropped

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
        show_dropped(console, Path(data["path"]).name, report["protocol"], labels(LmdbReader(data["path"])))
