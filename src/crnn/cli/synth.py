"""``crnn synth``: labelled words drawn from fonts, as an LMDB data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crnn.errors import OptionError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(synth)


def synth(
    out: Annotated[Path, typer.Argument(help="LMDB folder to write; it appears whole or not at all.")],
    count: Annotated[int, typer.Option(help="How many words.", min=1)] = 1000,
    fonts: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of fonts, font file or font list (.tsv), as PLACE or PLACE:SHARE; the system's otherwise."
        ),
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="Word list, one a line; English words by frequency otherwise.")
    ] = None,
    charset: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_TEXT",
            help="Draw only what can be written in these characters, as `crnn train --charset` learns it.",
            show_default="0-9a-z, in any case and with punctuation",
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(min=16, help="Of the network that is to read them, in pixels: how long words may be.")
    ] = 100,
    backgrounds: Annotated[Path | None, typer.Option(help="LMDB of word-free photographs to draw words on.")] = None,
    seed: Annotated[int, typer.Option(help="Word n is a function of the seed and n alone.", min=0)] = 0,
    start: Annotated[int, typer.Option(help="First n.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes; their number changes nothing but the time.", min=1)] = 1,
    sheet: Annotated[
        Path | None, typer.Option(help="Also a picture of the first 200 words as the network sees them.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an LMDB data set.")] = False,
) -> None:
    """Draws labelled words: text, fonts, layout, colours and camera as on signs and products."""
    import time
    from io import BytesIO

    from rich.progress import Progress

    from crnn.charset import ALNUM36, read_charset
    from crnn.datasets.lmdb import LmdbWriter
    from crnn.files import write_whole
    from crnn.spec import FRAME_PITCH, ModelSpec
    from crnn.synthesis.stream import StoredWord, contact_sheet, draw
    from crnn.training.sources import word_generator

    kind = _picture_kind(sheet) if sheet is not None else ""
    places = tuple(fonts) if fonts else system_fonts()
    written = ALNUM36 if charset is None else read_charset(charset)
    spec = ModelSpec(charset=written, width=width, steps=width // FRAME_PITCH + 1)
    generator = word_generator(places, str(words or ""), str(backgrounds or ""), seed, spec)
    began = time.perf_counter()
    first: list[StoredWord] = []
    unreadable = 0
    with LmdbWriter(out, overwrite=overwrite) as writer, Progress(transient=True) as progress:
        task = progress.add_task("words", total=count)
        for word in draw(generator, start, count, workers):
            writer.add(word.png, word.drawn)
            unreadable += word.unreadable
            if sheet is not None and len(first) < 200:
                first.append(word)
            progress.advance(task)
    seconds = time.perf_counter() - began
    if unreadable:
        what = f"{unreadable:,} backgrounds that were drawn cannot be decoded, others were taken"
        typer.echo(f"crnn: {what}: crnn data check {backgrounds}", err=True)
    if sheet is not None:
        picture = BytesIO()
        contact_sheet(first, spec).save(picture, kind)
        write_whole(sheet, picture.getvalue())
    typer.echo(f"{out}: {count} words, {count / seconds:.0f} words/s")


def _picture_kind(path: Path) -> str:
    """Pillow's name for the kind of picture that ``path`` ends in. Raises OptionError where it cannot be written."""
    from io import BytesIO

    from PIL import Image

    from crnn.cli.report import page_path

    page_path(path)
    try:
        kind = Image.registered_extensions()[path.suffix.lower()]
        Image.new("L", (8, 8)).save(BytesIO(), kind)
    except (KeyError, OSError, ValueError):
        raise OptionError(f"{path}: no picture of that kind can be written; call it .png") from None
    return kind


def system_fonts() -> tuple[str, ...]:
    """The folders that hold this system's fonts. Raises OptionError where there is none."""
    import sys

    home = Path.home()
    candidates = {
        "darwin": [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"],
        "win32": [Path("C:/Windows/Fonts")],
    }.get(sys.platform, [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local/share/fonts"])
    found = tuple(str(folder) for folder in candidates if folder.is_dir())
    if not found:
        raise OptionError("this system has no folder of fonts: give --fonts DIR")
    return found
