"""``crnn score``: result files against labels."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli.evaluate import Protocol, Schema, json_path, show_extra, show_notes, write_report


class Dtype(StrEnum):
    """What a .bin holds."""

    float32 = "float32"
    float16 = "float16"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("score")(score)


def score(
    results: Annotated[
        Path, typer.Argument(metavar="RESULT_DIR", help="Result files, or the folder of their dumpOutput_device{K}.")
    ],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The labels, as `crnn prepare` wrote them.")] = Path(
        "label.txt"
    ),
    model: Annotated[
        Path | None,
        typer.Option(help="Whose results they are.", show_default="what `crnn infer` left there, or 26 x N x 37"),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="alnum36: 0-9 and a-z only, in lower case. raw: all, as the original did.",
            show_default="raw for results of a model of other characters than 0-9 and a-z, else alnum36",
        ),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="What .bin files hold; float16 of --output_type=FP16.")] = Dtype.float32,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the report; a name without a suffix gets .json."),
    ] = None,
    schema: Annotated[Schema, typer.Option(help="Of --json: our report, or ModelZoo's figures.")] = Schema.crnn,
    misses: Annotated[bool, typer.Option("--misses", help="Print every wrong word, as the original did.")] = False,
    errors: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show the N wrong words the model was surest of.")
    ] = 0,
) -> None:
    """Decode result files of benchmark, ais_bench or `crnn infer` and count the right words.

    One word a file (matched with the labels by name) or a batch a file (matched by order). Exit status 1 if a label
    has no result or a malformed one; these words are listed and do not count.
    """
    from rich.console import Console

    from crnn.evaluation import tables
    from crnn.offline.models import spec_of
    from crnn.offline.score import score_results

    json_file = json_path(json_file)
    spec = None if model is None else spec_of(model)
    out, err = Console(emoji=False, highlight=False), Console(emoji=False, stderr=True, highlight=False)
    with tables.progress_bar(err) as bar:
        task = bar.add_task(results.name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        scored = score_results(
            results,
            labels,
            spec=spec,
            protocol=protocol.value if protocol else None,
            dtype=dtype.value,
            progress=show,
        )
    report = scored.report
    if json_file is not None:
        write_report(json_file, report, schema, scored.spec.charset.classes)
    show_notes(err, scored.notes)
    words = report["datasets"][0]["words"]
    wrong = [word for word in words if word["label"] != word["text"]]
    if misses:
        for word in wrong:
            typer.echo(f"label:{word['label']}  pred:{word['text']}")
    tables.show(out, report)
    frame = "*" * 50
    typer.echo(frame)
    typer.echo(f"rightNum: {len(words) - len(wrong)}")
    typer.echo(f"totalNum: {len(words)}")
    typer.echo(f"accuracy_rate: {100 * report['overall']['accuracy']:.2f}")
    typer.echo(frame)
    tables.show_skipped(out, report["datasets"][0]["skipped"], "--json FILE lists them all")
    show_extra(out, scored.extra)
    if errors:
        tables.show_errors(out, report, errors)
    if not scored.complete:
        missing = f"{len(scored.missing):,} missing, {len(scored.malformed):,} malformed"
        typer.echo(f"crnn: {missing}: {len(words):,} of {report['overall']['total']:,} labels were scored", err=True)
        raise typer.Exit(1)
