"""``crnn import``: a checkpoint of another project -> weights with their spec; and the options that describe one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crnn.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from crnn.training.foreign import Imported
    from crnn.training.gates import Verdict

_ORIGIN = "Of a foreign checkpoint: "
Layout = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="ascend, meijieru, dtrb, mmocr or parseq. [default: recognised from the keys]"),
]
Symbols = Annotated[
    str | None,
    typer.Option(
        "--charset",
        metavar="FILE_OR_STRING",
        help=_ORIGIN + "its characters in the order of their classes, without the blank. [default: the layout's own]",
    ),
]
Gates = Annotated[
    str, typer.Option(metavar="pytorch|npu", help="Order of the LSTM gates; npu for weights of early Ascend training.")
]
Resampling = Annotated[
    str | None, typer.Option(metavar="FILTER", help=_ORIGIN + "how its pictures were resized. [default: the layout's]")
]
Width = Annotated[
    int | None, typer.Option(metavar="PIXELS", help=_ORIGIN + "the width of its pictures. [default: the layout's]")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import")(import_)


def import_(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pth, .pt, .ckpt, .tar or .safetensors.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    layout: Layout = None,
    charset: Symbols = None,
    gates: Gates = "pytorch",
    check: Annotated[
        Path | None,
        typer.Option(metavar="LMDB", help="Words to read with both gate orders; the wrong one is refused."),
    ] = None,
    resampling: Resampling = None,
    width: Width = None,
    mean: Annotated[float | None, typer.Option(help="(v / 255 - mean) / std. [default: the layout's]")] = None,
    std: Annotated[float | None, typer.Option(help="(v / 255 - mean) / std. [default: the layout's]")] = None,
    pad: Annotated[bool, typer.Option("--PAD", help="DTRB's option: refused, pictures are stretched here.")] = False,
) -> None:
    """Import a checkpoint of another CRNN: Ascend's, crnn.pytorch's, DTRB's, MMOCR's, PARSeq's.

    Nothing in the file is run. The network stays the same function; BatchNorm is folded into the convolutions. OUT can
    be exported, evaluated and read with like weights of our own training.
    """
    if out.suffix != ".safetensors":
        raise OptionError(f"OUT must end in .safetensors, and {out} does not")
    from crnn.training.checkpoints import save_weights
    from crnn.training.foreign import load

    imported = load(
        checkpoint,
        layout=layout,
        charset=charset,
        gates=gates,
        resampling=resampling,
        width=width,
        mean=mean,
        std=std,
        pad=pad,
    )
    verdict = _checked(imported, check) if check else None
    save_weights(out, imported.weights, imported.spec)
    _show(imported, verdict, out)


def show_notes(imported: Imported, checked: bool) -> None:
    """Say what to know about a foreign checkpoint, on standard error."""
    notes = list(imported.notes)
    if imported.layout.name == "ascend" and not checked:
        notes.append(
            f"the gate order ({imported.gates}) was not checked: some Ascend checkpoints have the other, and then read"
            " nothing right; `crnn import --check LMDB` tells"
        )
    for note in notes:
        typer.echo(f"Note: {note}.", err=True)


def _checked(imported: Imported, words: Path) -> Verdict:
    """The verdict on the gate order; CheckpointError if the other one is the right one."""
    from crnn.training.gates import compare

    verdict = compare(imported.weights, imported.spec, imported.gates, words)
    if verdict.better not in (None, imported.gates):
        raise CheckpointError(
            f"not written: of {verdict.words} words the gate order {imported.gates} reads"
            f" {verdict.right[imported.gates]} right and {verdict.better} {verdict.right[verdict.better]}:"
            f" use --gates {verdict.better}"
        )
    return verdict


def _show(imported: Imported, verdict: Verdict | None, out: Path) -> None:
    spec, layout = imported.spec, imported.layout.name
    size = f"{spec.channels} x {spec.height} x {spec.width}, {spec.resampling}"
    values = f"(v / 255 - {spec.mean:.4g}) / {spec.std:.4g}"
    typer.echo(f"{layout} layout, {spec.charset.classes} classes, trunk {spec.trunk}, pictures {size}, {values}.")
    if verdict:
        counts = ", ".join(f"{order} {right}" for order, right in verdict.right.items())
        result = f"{verdict.better} is right" if verdict.better else "these words do not tell which is right"
        typer.echo(f"Gate order: of {verdict.words} words, right with {counts}: {result}.")
    show_notes(imported, checked=verdict is not None)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
