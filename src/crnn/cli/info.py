"""``crnn info``: lists of files for the original's benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from crnn.errors import OptionError


class Kind(StrEnum):
    """What is listed."""

    bin = "bin"
    jpg = "jpg"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("info")(info)


def info(
    kind: Annotated[Kind, typer.Argument(help="bin: prepared words. jpg: JPEG pictures, each with its own size.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where they are.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The list to write, such as crnn.info.")],
    width: Annotated[int | None, typer.Argument(min=1, help="Of bin, in pixels: 100.", show_default=False)] = None,
    height: Annotated[int | None, typer.Argument(min=1, help="Of bin, in pixels: 32.", show_default=False)] = None,
) -> None:
    """List a folder's files as INDEX PATH WIDTH HEIGHT, for benchmark's -input_text_path.

    In natural order (test_2 before test_10), with one index from 0 over all of them.
    """
    from crnn.offline.info import write_info

    if kind is Kind.bin:
        if width is None or height is None:
            raise OptionError("a list of .bin needs their size: crnn info bin DIR FILE WIDTH HEIGHT (100 32)")
        size = (width, height)
    elif width is not None:
        raise OptionError("pictures have their own size: crnn info jpg DIR FILE")
    else:
        size = None
    lines = write_info(folder, file, size)
    typer.echo(f"{file}: {lines:,} files")
