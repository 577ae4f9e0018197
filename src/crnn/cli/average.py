"""``crnn average``: one network from several that went on from the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crnn.cli._options import place_and_share
from crnn.errors import OptionError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("average")(average)


def average(
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    weights: Annotated[
        list[str],
        typer.Argument(
            metavar="WEIGHTS[:PARTS]...",
            help="Two or more of: bundled, a run's folder, a .safetensors, an .onnx of ours. [parts: 1]",
        ),
    ],
) -> None:
    """Average the weights of networks that were trained on from the same ones.

    The mean sometimes reads better than each of them, at no cost; it is for held-out words to say whether it does:
    `crnn evaluate DATASETS --held-out --engine torch --model OUT`. OUT is exported like a run.
    """
    if out.suffix != ".safetensors":
        raise OptionError(f"OUT must end in .safetensors, and {out} does not")
    from crnn.training import averaging
    from crnn.training.checkpoints import save_weights

    mean, spec = averaging.average([place_and_share(each, "average") for each in weights])
    save_weights(out, mean, spec)
    typer.echo(f"{out}: {spec.lineage[-1]}")
