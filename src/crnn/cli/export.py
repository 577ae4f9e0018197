"""``crnn export``: trained weights -> an ONNX file that is known to read the same words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crnn.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from crnn.export.parity import Report
    from crnn.spec import ModelSpec


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    weights: Annotated[
        Path, typer.Argument(metavar="RUN_OR_WEIGHTS", help="A run's folder, a .safetensors, or an .onnx of ours.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Store the weights as float16: half the size.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(metavar="LMDB", help="Words that must read the same as in torch. [default: the bundled sample]"),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(metavar="LMDB", help="Fit confidences to this training set's held-out words; repeatable."),
    ] = None,
) -> None:
    """Export a trained network to ONNX (opset 11, dynamic batch).

    The file is written only if it reads every word of the check set as torch does. With --calibrate, the temperature
    that makes confidences match the share of right words is fitted to the tenth of each data set that training left
    out, and is stored in the file; texts stay as they are.
    """
    if out.suffix != ".onnx":
        raise OptionError(f"OUT must end in .onnx, and {out} does not")
    from crnn.export import parity

    state_dict, spec = _load(weights)
    words = parity.load_check_set(check or parity.sample_words(), spec)
    if calibrate:
        spec = _calibrated(weights, spec, calibrate)
    _show(parity.export(state_dict, spec, out, words, fp16=fp16))


def _load(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """The weights of a run (its averaged ones), of a weights file, or of a file exported before."""
    from crnn.export.onnx import weights_from_onnx
    from crnn.training.checkpoints import load_weights

    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: give a run's folder, a .safetensors or an exported .onnx")
    return weights_from_onnx(path) if path.suffix == ".onnx" else load_weights(path)


def _calibrated(weights: Path, spec: ModelSpec, datasets: list[Path]) -> ModelSpec:
    """The spec with the temperature that suits the weights."""
    from rich.console import Console

    from crnn.engines import open_engine
    from crnn.evaluation.calibration import calibrate

    fit = calibrate(open_engine(weights, "torch"), datasets)
    temperature = round(fit.temperature, 4)
    Console(highlight=False).print(
        f"Temperature {temperature}, fitted to {fit.words} held-out words: expected calibration error {fit.after:.3f}"
        f" (each half with the temperature fitted to the other), {fit.before:.3f} at temperature 1.",
        soft_wrap=True,
    )
    return replace(spec, temperature=temperature)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("batch", "largest difference from torch", title="Log-probabilities")
    for size, difference in report.differences.items():
        table.add_row(str(size), f"{difference:.1e}")
    console.print(table)
    rounding = report.rounding
    if rounding and rounding.changed:
        table = Table("word", "label", "float32", "float16", title="Read otherwise since the weights were rounded")
        for word in rounding.changed:
            table.add_row(*map(escape, (word.key, word.label, word.before, word.after)))
        console.print(table)
    if rounding:
        console.print(
            f"Rounding to float16 changed {len(rounding.changed)} of {report.words} words"
            f" and log-probabilities by {rounding.difference:.1e} at most.",
            soft_wrap=True,
        )
    skipped = f", {report.skipped} more could not be decoded and were left out" if report.skipped else ""
    console.print(f"{report.words} words of the check set read the same as in torch{skipped}.", soft_wrap=True)
    if not report.read:
        console.print("All of them read as nothing: is the network trained?", style="yellow")
    console.print(f"{report.path}: {report.size / 1e6:.1f} MB", markup=False, soft_wrap=True)
