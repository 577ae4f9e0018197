"""``crnn export``: trained weights -> an ONNX file that is known to read the same words, or another project's .pth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli.import_ import Gates, Layout, Resampling, Symbols, Width, show_notes
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
        Path,
        typer.Argument(
            metavar="RUN_OR_WEIGHTS",
            help="A run's folder, a .safetensors, an .onnx of ours, or a checkpoint that `crnn import` understands.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The .onnx to write, or with --layout the .pth.", show_default=False),
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of OUT: a model repository for Triton Inference Server.")
    ] = None,
    triton_batch_first: Annotated[
        bool, typer.Option("--triton-batch-first", help="With --triton: output N x 26 x 37, which Triton can batch.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Store the weights as float16: half the size.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Fix the batch to N words, for compilers that need every size.",
            show_default="free",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="LMDB", help="Words that must read the same as in torch. [default: the bundled sample]"),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(metavar="LMDB", help="Fit confidences to this training set's held-out words; repeatable."),
    ] = None,
    layout: Layout = None,
    charset: Symbols = None,
    gates: Gates = "pytorch",
    resampling: Resampling = None,
    width: Width = None,
) -> None:
    """Export a trained network to ONNX (opset 11, any batch), or to a checkpoint for another project's scripts.

    The file is written only if it reads every word of the check set as torch does. With --calibrate, the temperature
    that makes confidences match the share of right words is fitted to the tenth of each data set that training left
    out, and is stored in the file; texts stay as they are.

    An OUT.pth has the layout ascend or meijieru, as `pth2onnx.py` and crnn.pytorch load it. --gates npu is for scripts
    that exchange the LSTM gates when they load, such as Ascend's newest `pth2onnx.py`.

    --triton DIR writes DIR/crnn/config.pbtxt and DIR/crnn/1/model.onnx. The network's output has its batch axis second,
    so Triton runs each request by itself, unless --triton-batch-first turns the output round.
    """
    if (out is None) == (triton is None):
        raise OptionError("name the file to write, or a model repository with --triton DIR")
    if triton_batch_first and triton is None:
        raise OptionError("--triton-batch-first goes with --triton DIR")
    if triton is not None and batch is not None:
        raise OptionError("--batch is for a file: a Triton repository's batch is free")
    described = {"layout": layout, "charset": charset, "resampling": resampling, "width": width}
    if out is not None and out.suffix == ".pth":
        given = [name for name in ("charset", "resampling", "width") if described[name] is not None]
        others = {"fp16": fp16, "batch": batch, "check": check, "calibrate": calibrate}
        given += [name for name, value in others.items() if value]
        if given:
            raise OptionError(f"--{given[0]} does not go with a .pth, whose format has no room for it")
        _export_checkpoint(weights, out, layout, gates)
        return
    if out is not None and out.suffix != ".onnx":
        raise OptionError(f"OUT must end in .onnx, or in .pth with --layout, and {out} does not")
    if _is_ours(weights) and (gates != "pytorch" or any(value is not None for value in described.values())):
        raise OptionError(
            "--layout, --charset, --gates, --resampling and --width describe a foreign checkpoint, and these weights"
            " have their spec with them"
        )
    from crnn.export import parity

    state_dict, spec = _load(weights) if _is_ours(weights) else _import(weights, gates=gates, **described)
    if calibrate and not _is_ours(weights):
        raise OptionError(f"--calibrate needs imported weights: crnn import {weights} OUT.safetensors first")
    words = parity.load_check_set(check or parity.sample_words(), spec)
    if calibrate:
        spec = _calibrated(weights, spec, calibrate)
    if out is not None:
        _show(parity.export(state_dict, spec, out, words, fp16=fp16, batch=batch))
    elif triton is not None:
        from crnn.export.triton import export as export_repository

        report = export_repository(state_dict, spec, triton, words, fp16=fp16, batch_first=triton_batch_first)
        _show(report)


def _export_checkpoint(weights: Path, out: Path, layout: str | None, gates: str) -> None:
    if layout is None:
        raise OptionError("say with --layout ascend or --layout meijieru whose scripts are to load the .pth")
    if not _is_ours(weights):
        raise OptionError(f"{weights} is a checkpoint of that kind already: crnn import it first")
    from crnn.training.foreign import save

    state_dict, spec = _load(weights)
    save(out, state_dict, spec, layout, gates)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {layout} layout, {gates} gate order")


def _is_ours(weights: Path) -> bool:
    """Whether the weights have a spec with them: a run, a .safetensors, an export. Other files are other projects'."""
    return weights.suffix in (".safetensors", ".onnx") or not weights.is_file()


def _import(path: Path, **described: Any) -> tuple[dict[str, Tensor], ModelSpec]:
    from crnn.training.foreign import load

    imported = load(path, **described)
    show_notes(imported, checked=False)
    return imported.weights, imported.spec


def _load(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """The weights of a run (its averaged ones), of a weights file, or of a file exported before."""
    from crnn.export.onnx import weights_from_onnx
    from crnn.training.checkpoints import load_weights

    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: give a run's folder, a .safetensors, an exported .onnx or a .pth")
    return weights_from_onnx(path) if path.suffix == ".onnx" else load_weights(path)


def _calibrated(weights: Path, spec: ModelSpec, datasets: list[Path]) -> ModelSpec:
    """The spec with the temperature that suits the weights."""
    from rich.console import Console

    from crnn.engines import open_engine
    from crnn.evaluation.calibration import calibrate

    fit = calibrate(open_engine(weights, "torch"), datasets)
    temperature = round(fit.temperature, 4)
    Console(emoji=False, highlight=False).print(
        f"Temperature {temperature}, fitted to {fit.words} held-out words: expected calibration error {fit.after:.3f}"
        f" (each half with the temperature fitted to the other), {fit.before:.3f} at temperature 1.",
        soft_wrap=True,
    )
    return replace(spec, temperature=temperature)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(emoji=False, highlight=False)
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
