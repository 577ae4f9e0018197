"""What several commands take: options that say what reads the words, and places with a share."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated

import typer

from crnn.errors import OptionError

Model = Annotated[
    Path | None,
    typer.Option(help="An .onnx, a .safetensors, a run's folder or an .om.", show_default="the bundled weights"),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="onnxruntime, openvino, torch, ascend or cann.", show_default="the fastest installed that runs it"
    ),
]
Precision = Annotated[
    str | None, typer.Option(help="What the engine computes in, such as float32.", show_default="its choice")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute in.", show_default="all processors")]


def place_and_share(text: str, option: str = "--train") -> tuple[str, float]:
    """PLACE or PLACE:SHARE, as given to ``option``; the share is 1 where none is given.

    Raises OptionError unless it is above 0 and finite.
    """
    place, _, share = text.rpartition(":")
    try:
        value = float(share) if place else 1.0
    except ValueError:
        return text, 1.0
    if not 0 < value < inf:
        raise OptionError(f"{option} {text}: the share must be a number above 0, not {share}")
    return place or text, value
