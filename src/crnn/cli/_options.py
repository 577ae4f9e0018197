"""Options that say what reads the words, for every command that runs a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
