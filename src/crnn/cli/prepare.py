"""``crnn prepare``: a data set as the files the offline tools read."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from crnn.errors import OptionError


class Aipp(StrEnum):
    """What an AIPP stage on the device takes."""

    gray = "gray"
    rgb = "rgb"
    bgr = "bgr"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("prepare")(prepare)


def prepare(
    dataset: Annotated[Path, typer.Argument(metavar="LMDB", help="Data set of labelled words.")],
    out: Annotated[Path, typer.Argument(help="Folder for test_1.bin, test_2.bin, ...")],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the labels go.", show_default="label.txt in the current folder"),
    ] = None,
    npy: Annotated[bool, typer.Option("--npy", help="Write NumPy's .npy instead of raw .bin.")] = False,
    info: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also the info file for benchmark's -input_text_path.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Prepare words as this model takes them.", show_default="1 x 32 x 100 gray, float32"),
    ] = None,
    aipp: Annotated[
        Aipp | None, typer.Option(help="Raw uint8 pixels, for an .om compiled with this AIPP stage.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first word that cannot be used.")] = False,
) -> None:
    """Write the words of a data set as test_{i}.bin, the network's input, and their labels.

    i counts from 1 as the data set's keys do. Words that cannot be used (a damaged picture, a label without 0-9 or
    a-z) get neither file nor label and are listed. Labels are in lower case; for a model of other characters than 0-9
    and a-z they are as they are. A run that was stopped goes on where it was.
    """
    import dataclasses

    from rich.console import Console

    from crnn.evaluation.tables import progress_bar
    from crnn.offline.bins import prepare_words
    from crnn.offline.info import write_info
    from crnn.offline.labels import DEFAULT
    from crnn.offline.models import spec_of
    from crnn.spec import DELIVERABLE

    spec = DELIVERABLE if model is None else spec_of(model)
    if aipp is not None:
        if spec.aipp not in ("", aipp):
            raise OptionError(f"{model}: compiled with AIPP for {spec.aipp}, which --aipp {aipp} contradicts")
        spec = dataclasses.replace(spec, aipp=aipp.value)
    if info is not None and npy:
        raise OptionError("--info lists .bin files, and --npy writes none")
    labels = labels or DEFAULT
    for file in (labels, info):
        if file is not None and not os.path.isdir(file.absolute().parent):
            raise OptionError(f"{file}: there is no such folder to write it to")
    err = Console(emoji=False, stderr=True, highlight=False)
    with progress_bar(err) as bar:
        task = bar.add_task(dataset.name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        done = prepare_words(dataset, out, labels, spec, npy=npy, strict=strict, progress=show)
    if info is not None:
        write_info(out, info, (spec.width, spec.height))
    for key, reason in done.skipped:
        typer.echo(f"left out {key}: {reason}", err=True)
    for key in done.mended:
        typer.echo(f"{key}: a line break in its label was written as a space", err=True)
    there = f" ({done.words - done.written:,} were there)" if done.written < done.words else ""
    files = "file" if done.words == 1 else "files"
    typer.echo(
        f"{out}: {done.words:,} {files}{there}, {' x '.join(map(str, spec.input_shape))} {spec.input_dtype} each"
    )
    typer.echo(f"{labels}: {done.words:,} labels" + (f"; {info}" if info else ""))
    if done.skipped:
        typer.echo(f"crnn: {len(done.skipped):,} words left out, listed above with the reason", err=True)
