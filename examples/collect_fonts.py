"""Makes a list of fonts to draw words with: those of some folders in which this package's own weights read plain words.

    python examples/collect_fonts.py LIST.tsv FOLDER... [--only NAME ...] [--without NAME ...]

LIST.tsv is what ``crnn train --fonts`` and ``crnn synth --fonts`` take. Left out are fonts without every one of A-Z,
a-z and 0-9, symbols and bar codes that are called letters, and what cannot be read even large and in black on white.
WOFF2 files (npm's ``@fontsource`` packages have nothing else) are written as TrueType beside the list, once, as opening
one takes a third of a second; of those packages, the Latin files in upright regular and bold are taken, and the regular
italic.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

import crnn
from crnn.synthesis.corpus import Text
from crnn.synthesis.fonts import SUFFIXES, Face, open_face
from crnn.synthesis.layout import Shape, lay_out, rasterize

WORDS = ("Brunch", "HOTEL", "grape", "Vizquel", "WAXFORK", "jumbled", "5807", "94216")  # all letters and digits
MOST_ERRORS = 0.25  # of their characters
HEIGHT, MARGIN = 40, 6  # pixels
STYLES = ("400-normal", "700-normal", "400-italic")  # of the files of @fontsource


def files(folders: Iterable[Path]) -> Iterator[Path]:
    """Font files; of ``@fontsource`` packages those of :data:`STYLES`."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            if path.parent.name == "files" and "@fontsource" in path.parts:
                wanted = {f"{path.parents[1].name}-latin-{style}" for style in STYLES}
                if path.stem not in wanted or path.suffix != ".woff2":
                    continue
            yield path


def name(path: Path) -> str:
    """What ``--only`` and ``--without`` call a font: its package of @fontsource, or its file without the suffix."""
    return path.parents[1].name if path.parent.name == "files" else path.stem


def as_truetype(path: Path, folder: Path) -> Path:
    """The file itself, or what was a WOFF2 file as TrueType in ``folder``, if it is whole."""
    if path.suffix.lower() != ".woff2":
        return path
    plain = folder / f"{path.stem}.ttf"
    if not plain.exists():
        folder.mkdir(exist_ok=True)
        try:
            font = TTFont(path)
        except TTLibError:  # damaged, so that nobody opens it
            return path
        font.flavor = None
        font.save(plain)
    return plain


def drawn(text: str, face: Face) -> NDArray[np.uint8] | None:
    """A word in black on white: uint8[height, width]; None where the font has no ink for it."""
    line = lay_out(Text(text, False), face, Shape(), Random(0))
    if line is None:
        return None
    scale = HEIGHT / line.height
    size = (max(8, round(line.width * scale) + 2 * MARGIN), HEIGHT + 2 * MARGIN)
    ink = rasterize(line, scale, size, (MARGIN - line.box[0] * scale, MARGIN + line.box[3] * scale))
    return 255 - ink  # type: ignore[no-any-return]


def errors(faces: list[Face], reader: crnn.Reader) -> list[float]:
    """The share of wrong characters in each face; those of a word that cannot be drawn are wrong."""
    words = [(i, word, drawn(word, face)) for i, face in enumerate(faces) for word in WORDS]
    pictures = [(i, word, picture) for i, word, picture in words if picture is not None]
    wrong = Counter({i: 0 for i in range(len(faces))})
    for i, word, picture in words:
        if picture is None:
            wrong[i] += len(word)
    for (i, word, _), seen in zip(pictures, reader.read_many(picture for _, _, picture in pictures), strict=True):
        wrong[i] += Levenshtein.distance(word.lower(), seen.text or "")
    return [wrong[i] / sum(map(len, WORDS)) for i in range(len(faces))]


def collect(out: Path, folders: list[Path], only: set[str], without: set[str]) -> tuple[int, int]:
    """Writes the list; (how many font files were looked at, how many are in it)."""
    chosen = [path for path in files(folders) if (not only or name(path) in only) and name(path) not in without]
    faces = [face for path in chosen if (face := open_face(as_truetype(path, out.with_suffix("")))) is not None]
    rows = zip(faces, errors(faces, crnn.Reader()), strict=True)
    kept = [(str(face.path), face.family, f"{share:.3f}") for face, share in rows if share <= MOST_ERRORS]
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, "excel-tab")
        table.writerow(("path", "family", "cer"))
        table.writerows(kept)
    return len(chosen), len(kept)


def main() -> None:
    """Makes the list, and says how many fonts are in it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("list", type=Path)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--only", nargs="*", default=[], metavar="NAME", help="fonts to take, by package or file")
    options.add_argument("--without", nargs="*", default=[], metavar="NAME", help="fonts to leave out")
    chosen = options.parse_args()
    looked, kept = collect(chosen.list, chosen.folders, set(chosen.only), set(chosen.without))
    print(f"{chosen.list}: {kept} of {looked} fonts")


if __name__ == "__main__":
    main()
