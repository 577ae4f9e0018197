"""``crnn compile``: an ONNX file -> an .om for Ascend devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from crnn.errors import EngineError, OptionError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compile")(compile_)


def compile_(
    model: Annotated[Path, typer.Argument(metavar="ONNX", help="An .onnx that crnn export wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Writes OUT.om, and OUT.json, which describes it.")],
    soc_version: Annotated[
        str, typer.Option(metavar="CHIP", help="Such as Ascend310 or Ascend310P3: see npu-smi info.")
    ],
    batch: Annotated[int | None, typer.Option(min=1, help="Words in one call.", show_default="1")] = None,
    gears: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Several batch sizes instead, chosen call by call.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ATC's name of it, such as cube_fp16in_fp32out.", show_default="fp16"),
    ] = None,
    aipp: Annotated[
        str | None,
        typer.Option(metavar="gray|rgb|bgr", help="The device takes pixels of this kind and normalises them."),
    ] = None,
    cann_version: Annotated[
        str | None, typer.Option(metavar="V", help="Of the toolkit.", show_default="what is installed")
    ] = None,
    tune: Annotated[
        bool | None,
        typer.Option(
            "--tune/--no-tune",
            help="Look for faster kernels; needs the device and can take hours.",
            show_default="on where ATC has --auto_tune_mode, as the original did",
        ),
    ] = None,
    log: Annotated[str, typer.Option(metavar="LEVEL", help="ATC's: debug, info, warning, error or null.")] = "error",
    keep: Annotated[bool, typer.Option("--keep", help="Keep what ATC is given: OUT.plain.onnx, OUT.aipp.cfg.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command, one line for bash, and do nothing more.")
    ] = False,
) -> None:
    """Compile a network for an Ascend device with CANN's ATC. Not yet run on hardware.

    ATC is found through the variables of CANN's set_env.sh, on the PATH, or where CANN's installers put it, and its log
    is shown as it runs. It gets a plain float32 copy of the network; the device computes in float16 unless --precision
    says otherwise. --dry-run needs no CANN; with --keep it also writes the files that the command names.
    """
    if batch is not None and gears is not None:
        raise OptionError("give either --batch or --gears")
    if aipp not in (None, "gray", "rgb", "bgr"):
        raise OptionError(f"--aipp {aipp}: choose gray, rgb or bgr")
    batches = (batch or 1,) if gears is None else _gears(gears)
    try:
        from crnn.export import ascend
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise EngineError("crnn compile needs onnx: pip install onnx") from None
    planned = ascend.plan(
        model,
        out,
        soc_version,
        batches,
        precision=precision,
        aipp_input=aipp or "",
        cann_version=cann_version,
        tune=tune,
        log=log,
    )
    for note in planned.notes:
        typer.echo(f"crnn: {note}", err=True)
    if keep:
        ascend.keep(planned)
    if dry_run:
        typer.echo(planned.line)
        return
    path, warnings = ascend.compile_model(planned, lambda line: print(line, file=sys.stderr, flush=True))
    for warning in warnings:
        typer.echo(f"crnn: ATC warns: {warning}", err=True)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, for {soc_version}, {_sizes(batches)}")
    typer.echo("Not yet run on hardware: the checklist in docs/ascend.md says what to look at first.")


def _gears(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"--gears {text}: two batch sizes or more, such as 1,4,16; for a single one there is --batch")
    return tuple(sorted(map(int, parts)))


def _sizes(batches: tuple[int, ...]) -> str:
    return f"batch {batches[0]}" if len(batches) == 1 else f"gears {', '.join(map(str, batches))}"
