"""The fonts synthetic words are set in: found, checked, and sampled by family."""

from __future__ import annotations

import csv
import unicodedata
from bisect import bisect
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random

import uharfbuzz as hb

from crnn.errors import DatasetError

NEEDED = frozenset(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
SUFFIXES = frozenset((".ttf", ".otf", ".ttc", ".woff2"))


@dataclass(frozen=True)
class Face:
    """One font file. The outlines are opened when they are first drawn, in the process that draws them."""

    path: Path
    family: str
    characters: frozenset[int] = field(repr=False, compare=False)

    @cached_property
    def font(self) -> hb.Font:
        """The opened font."""
        return hb.Font(hb.Face(_blob(self.path)))

    @cached_property
    def units(self) -> int:
        """Font units per em."""
        return int(self.font.face.upem)

    @cached_property
    def _extents(self) -> dict[int, tuple[float, float, float, float] | None]:
        return {}

    def extents(self, glyph: int) -> tuple[float, float, float, float] | None:
        """Middle (x, y) of the glyph's box and half its width and height, in em; None where it has no ink."""
        if glyph not in self._extents:
            box, em = self.font.get_glyph_extents(glyph), 1.0 / self.units
            half = None
            if box is not None and box.width and box.height:
                width, height = box.width * em / 2, box.height * em / 2  # the height is negative: measured downwards
                half = box.x_bearing * em + width, box.y_bearing * em + height, abs(width), abs(height)
            self._extents[glyph] = half
        return self._extents[glyph]

    def has_ink(self, character: str) -> bool:
        """Whether the font's own glyph of a character draws something, unless it is one that is not to be seen."""
        if character.isspace() or unicodedata.category(character) == "Cf":
            return True
        glyph = self.font.get_nominal_glyph(ord(character))
        return glyph is not None and self.extents(glyph) is not None

    def has(self, text: str) -> bool:
        """Whether the font has every character of ``text``."""
        return all(ord(character) in self.characters for character in text)

    def __getstate__(self) -> tuple[Path, str, frozenset[int]]:
        return self.path, self.family, self.characters

    def __setstate__(self, state: tuple[Path, str, frozenset[int]]) -> None:
        self.__dict__.update(zip(("path", "family", "characters"), state, strict=True))


class FontPool:
    """Faces in one fixed order, drawn source by share, then family, then face: a family of forty weights counts once.

    Args:
        sources: (faces, share) pairs; shares are relative to each other.
    """

    def __init__(self, sources: list[tuple[list[Face], float]]) -> None:
        self.faces = [face for faces, _ in sources for face in faces]
        if not self.faces:
            raise DatasetError("no usable font: give --fonts a folder of .ttf or .otf files that have A-Z, a-z and 0-9")
        weights: list[float] = []
        for faces, share in sources:
            files = Counter(face.family for face in faces)
            weights += [share / len(files) / files[face.family] for face in faces]
        self._sums = list(accumulate(weights))

    def sample(self, dice: Random) -> Face:
        """A face, by the shares of sources and families."""
        return self.faces[min(bisect(self._sums, dice.random() * self._sums[-1]), len(self.faces) - 1)]


def open_fonts(places: list[str]) -> FontPool:
    """Fonts from folders, font files, or tab-separated lists with a column ``path`` or ``installed_path``.

    ``PLACE:SHARE`` gives a place a share of the words (default 1). Files without every one of A-Z, a-z and 0-9 are left
    out. Raises DatasetError where a place, or a file that a list names, does not exist, and where a place has no
    usable font.
    """
    sources = []
    for place in places:
        name, _, share = place.rpartition(":")
        weight = 1.0
        if name and _is_number(share):
            place, weight = name, float(share)
        faces = [face for path in _files(Path(place)) if (face := open_face(path)) is not None]
        if not faces:
            raise DatasetError(f"{place} has no usable font: one needs A-Z, a-z and 0-9 (.ttf, .otf, .ttc, .woff2)")
        sources.append((faces, weight))
    return FontPool(sources)


def open_face(path: Path) -> Face | None:
    """The face, or None where the file is no font or lacks a letter or a digit."""
    try:
        face = hb.Face(_blob(path))
        characters = frozenset(face.unicodes)
        if not characters >= NEEDED:
            return None
        family = face.get_name(hb.OTNameIdPredefined.FONT_FAMILY) or path.stem
    except Exception:  # each parser has exceptions of its own; whatever cannot be opened is not usable
        return None
    return Face(path, family, characters)


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not place.is_file():
        raise DatasetError(f"{place} does not exist: --fonts takes a folder, a font file or a list of files (.tsv)")
    if place.suffix.lower() in SUFFIXES:
        return [place]
    try:
        with place.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read the font list {place}: {error}") from error
    column = next((name for name in ("path", "installed_path") if rows and name in rows[0][1]), None)
    if column is None:
        raise DatasetError(
            f"{place} has no column 'path' or 'installed_path': a font list is tab-separated, with a header"
        )
    files = [(number, Path(row[column] or "")) for number, row in rows]
    for number, file in files:
        if not file.is_file():  # left out in silence, it would make every word of the stream another one
            raise DatasetError(f"{place}:{number}: there is no file {file}: install the font, or take it off the list")
    return [file for _, file in files]


def _blob(path: Path) -> hb.Blob:
    if path.suffix.lower() != ".woff2":
        return hb.Blob.from_file_path(str(path))
    from io import BytesIO

    from fontTools.ttLib import TTFont

    plain = BytesIO()  # HarfBuzz reads no WOFF2
    font = TTFont(path)
    font.flavor = None
    font.save(plain)
    return hb.Blob(plain.getvalue())


def _is_number(text: str) -> bool:
    try:
        return 0 < float(text) < inf
    except ValueError:
        return False
