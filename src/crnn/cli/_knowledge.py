"""Options that say what is known of the texts, for every command that reads words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from crnn.decoding.lexicon import Prior

LexiconFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Read only words of FILE, one a line, UTF-8.", show_default=False)
]
PriorFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Prefer frequent words: FILE has lines WORD<tab>FREQUENCY.", show_default=False),
]
PriorWeight = Annotated[
    float | None, typer.Option(metavar="W", min=0, help="How much --prior counts.", show_default="0.5")
]
Characters = Annotated[
    str | None, typer.Option(metavar="CHARS", help="Read only these characters.", show_default=False)
]
Beam = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Search for the most probable text, N beginnings wide.", show_default="the best path"
    ),
]

SecondLook = Annotated[
    bool,
    typer.Option(
        "--second-look", help="Look at unsure words twice more: more are read right; each costs as two more words."
    ),
]


def read_prior(file: Path | None, weight: float | None) -> Prior | None:
    """The prior that was asked for, if one was."""
    from crnn.decoding.lexicon import PRIOR_WEIGHT, Prior

    if file is None:
        if weight is not None:
            raise OptionError("--prior-weight belongs to --prior")
        return None
    return Prior.from_file(file, PRIOR_WEIGHT if weight is None else weight)
