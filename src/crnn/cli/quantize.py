"""``crnn quantize``: ranges for int8."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("quantize")(quantize)


def quantize(
    datasets: Annotated[list[Path], typer.Argument(metavar="LMDB...", help="The training sets.")],
    model: Annotated[Path | None, typer.Option(help="An .onnx file.", show_default="the bundled weights")] = None,
    words: Annotated[int, typer.Option(min=1, help="How many words to calibrate on.")] = 512,
    engine: Annotated[
        str | None, typer.Option(help="What measures the loss: openvino or onnxruntime.", show_default="the fastest")
    ] = None,
) -> None:
    """Calibrate a model for int8 on training words, and measure what that loses.

    Writes MODEL.int8.json beside the model, from which engines make the int8 network when they load it. Accuracy is
    measured on the tenth of the words that training leaves out. int8 is chosen automatically only where it is the
    fastest and has lost at most half a point.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from crnn.engines import bundled_model
    from crnn.evaluation.ranges import calibrate
    from crnn.quantization import EXACT_ENOUGH, place

    path = model or bundled_model()
    err = Console(emoji=False, stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        ranges = calibrate(path, datasets, words, engine, show)
    typer.echo(
        f"{ranges.held_out} held-out words: {ranges.float32:.2%} right in float32, {ranges.int8:.2%} in int8, "
        f"{ranges.same:.2%} read the same"
    )
    if not ranges.exact_enough:
        typer.echo(f"More than {100 * EXACT_ENOUGH:g} points are lost: int8 has to be asked for by name.")
    typer.echo(f"{place(path)}: ranges of {len(ranges.tops)} tensors")
