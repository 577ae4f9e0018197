"""The command line: puts the commands together and turns errors into one line on standard error.

Each module of this package is a group of commands with ``register(app)``. They are imported for every ``crnn --help``,
so they import what they need (engines, torch) inside their commands.
"""

from __future__ import annotations

import io
import pkgutil
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crnn import __version__
from crnn.errors import CrnnError

_TRAINING_RING = frozenset(
    ("accelerate", "brotli", "cv2", "fontTools", "onnx", "safetensors", "tensorboard", "torch", "uharfbuzz", "wordfreq")
)

_EXTRAS = {"export": "export", "compile": "ascend"}
"""The extra that brings what a command lacks; for the others it is that of the training ring."""


class _Commands(TyperGroup):
    """Ends every command the same way, on the command line and in tests alike."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):  # a name that is no valid text is shown by its bytes
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone (`crnn ... | head`) shows here, where it ends in silence
            return result
        except CrnnError as error:
            _fail(str(error), debug=ctx.params["debug"])
        except ModuleNotFoundError as error:
            if error.name not in _TRAINING_RING:
                raise
            extra = _EXTRAS.get(ctx.invoked_subcommand, "train")
            _fail(f"this needs {error.name}: pip install 'crnn[{extra}]'", debug=ctx.params["debug"])


def _fail(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    typer.echo(f"crnn: {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crnn {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback of ours is a bug report: plain text
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Reads words in pictures with a CRNN."""


for _module in pkgutil.iter_modules(__path__):
    if _module.name.startswith("_"):  # what commands share
        continue
    import_module(f"{__name__}.{_module.name}").register(app)
