"""Word n of a stream of synthetic words, as a pure function of (seed, n)."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.datasets.pictures import Pictures
from crnn.errors import DatasetError
from crnn.synthesis.appearance import Mask, Photograph, dotted, paint, visibility, warped
from crnn.synthesis.corpus import Corpus, Text
from crnn.synthesis.degradation import degrade
from crnn.synthesis.fonts import FontPool
from crnn.synthesis.layout import Line, Shape, lay_out, rasterize, sample_shape

TRIES = 8  # fonts for a text
TEXTS = 2000  # for a word; where none of so many comes out, none will
TRIED, LEAST = 200, 0.2  # dictionary words that fonts are tried for, and the share of them that has to be drawn
SPREAD = 9.0  # least standard deviation of a picture, in gray levels
VISIBLE = 0.58  # least correlation of ink and picture; below it one begins to guess
TALLEST = 3.0  # em; in a taller box, of a word bent too far, the letters are too small for 32 rows
WIDEST = 360  # pixels; a longer word is drawn smaller
PHOTOGRAPHS = 20  # in a row that cannot be decoded
KEPT = 512 << 20  # bytes of photographs that are kept decoded; of a larger set, the others are decoded each time


class SyntheticWord(NamedTuple):
    """``image``: uint8[height, width], gray; ``label``: after the protocol; ``drawn``: as seen, with punctuation."""

    image: NDArray[np.uint8]
    label: str
    drawn: str


class WordGenerator:
    """Synthetic words. ``word(n)`` depends on seed, corpus, fonts and n alone, never on what was drawn before.

    Raises DatasetError where the fonts lack the characters of most dictionary words: numbers would take their place.
    """

    def __init__(self, corpus: Corpus, fonts: FontPool, seed: int = 0, photograph: Photograph | None = None) -> None:
        self.corpus, self.fonts, self.seed, self.photograph = corpus, fonts, seed, photograph
        dice = Random(0)
        words = [word for word in (corpus.labelled(dice) for _ in range(TRIED)) if word]
        lost = [word for word in words if not any(fonts.sample(dice).has(word) for _ in range(TRIES))]
        if len(words) - len(lost) < LEAST * len(words):
            raise DatasetError(
                f"the fonts lack the characters of most words, such as {lost[0]!r}: give --fonts that have them, or "
                "--words a list that they can draw"
            )

    @property
    def unreadable(self) -> int:
        """How many photographs that were drawn here could not be decoded."""
        return getattr(self.photograph, "unreadable", 0)

    def word(self, n: int) -> SyntheticWord:
        """Word ``n`` (0 or more). Raises DatasetError where nothing can be drawn."""
        dice = Random((self.seed << 64) + n)
        for _ in range(TEXTS):
            text = self.corpus.sample(dice)
            # The text is kept while a font that has its characters is looked for, or unusual signs would be rarer.
            for _ in range(TRIES):
                line = lay_out(text, self.fonts.sample(dice), sample_shape(dice), dice)
                if line is not None and 0.25 < line.width / line.height < 14 and line.height < TALLEST:
                    image = self._draw(line, dice)
                    if image is not None:
                        return SyntheticWord(image, self.corpus.label(text), text.shown)
        raise DatasetError(f"word {n}: none of {TEXTS:,} texts can be drawn: give --fonts or --words others")

    def _draw(self, line: Line, dice: Random) -> NDArray[np.uint8] | None:
        mask, clutter = self._ink(line, dice)
        mask, *others = warped([mask] if clutter is None else [mask, clutter], dice)
        clutter = others[0] if others else None
        if mask.max() < 128:
            return None
        if dice.random() < 0.08 and mask.shape[0] >= 36 and line.height < 1.0:  # smaller ones drown
            mask = dotted(mask, dice)
        for _ in range(3):
            picture, contrast = paint(mask, clutter, dice, self.photograph)
            image = degrade(picture, contrast, 5 * len(line.glyphs), dice)
            correlation, spread = visibility(mask, image)
            if correlation > VISIBLE and spread > SPREAD:
                return image
        return None

    def _ink(self, line: Line, dice: Random) -> tuple[Mask, Mask | None]:
        """The word's ink in its crop, and that of its neighbours. Crops are tight, loose, or cut a little."""
        height = 15.0 * (58 / 15) ** dice.random()  # of the ink, in pixels: 15 to 58, small ones as often as large ones
        scale = min(height / line.height, WIDEST / line.width)
        # (middle, spread) of the margins beside and above the ink, in its heights: boxes drawn tight, with air, anyhow
        beside, above = dice.choices(
            (((0.13, 0.07), (0.07, 0.07)), ((0.17, 0.08), (0.20, 0.07)), ((0.2, 0.2),) * 2), (38, 51, 11)
        )[0]
        height = line.height * scale
        left, right = (max(-0.01, dice.gauss(*beside)) * height for _ in range(2))
        top, bottom = (max(-0.01, dice.gauss(*above)) * height for _ in range(2))
        width_px = max(8, round(line.width * scale + left + right))
        height_px = max(8, round(line.height * scale + top + bottom))
        origin = (left - line.box[0] * scale, top + line.box[3] * scale)
        mask = rasterize(line, scale, (width_px, height_px), origin)
        clutter: Mask | None = None
        if dice.random() < 0.20:
            clutter = self._neighbours(line, scale, (width_px, height_px), origin, (left, right, top, bottom), dice)
        return mask, clutter

    def _neighbours(
        self,
        line: Line,
        scale: float,
        size: tuple[int, int],
        origin: tuple[float, float],
        margins: tuple[float, float, float, float],
        dice: Random,
    ) -> Mask:
        """Ink of words above, below and beside, cut off by the crop: never a whole letter, or it would need a label."""
        left, right, top, bottom = margins
        ink = np.zeros((size[1], size[0]), np.uint8)
        height = line.height * scale
        for side in range(4):
            if dice.random() >= 0.4:
                continue
            text = Text(self.corpus.word(dice), False)
            if dice.random() < 0.6:
                text = Text(text.drawn.upper(), False)
            other = lay_out(text, line.face, Shape(), dice)
            if other is None:
                continue
            if side < 2:  # above, below: at most a fifth of the line shows
                shows = min(0.2 * height, (top, bottom)[side] + dice.uniform(0.0, 0.07) * height)
                x = origin[0] + dice.uniform(-1.0, 0.6) * other.width * scale
                y = shows + other.box[1] * scale if side == 0 else size[1] - shows + other.box[3] * scale
            else:  # beside: a strip of the nearest letter
                shows = min(0.12 * height, max(0.0, (left, right)[side - 2]) * dice.uniform(0.3, 0.9))
                y = origin[1]
                x = shows - other.box[2] * scale if side == 2 else size[0] - shows - other.box[0] * scale
            ink = cv2.max(ink, rasterize(other, scale, size, (x, y)))  # type: ignore[assignment]
        return ink


class Photographs:
    """Word-free pictures for grounds, from an LMDB of encoded images under ``image-%09d`` (no labels needed).

    Where one that is drawn cannot be decoded, another is drawn, and ``unreadable`` counts it. Raises DatasetError where
    it holds none, or where many that are drawn in a row cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        from crnn.datasets.lmdb import LmdbReader

        self._reader = LmdbReader(path)
        if not len(self._reader):
            raise DatasetError(f"{path} holds no picture to draw words on: give --backgrounds another data set")
        self._pictures = Pictures(self._decoded, KEPT)
        self.unreadable = 0  # that were drawn; others took their places

    def __len__(self) -> int:
        return len(self._reader)

    def __call__(self, dice: Random, height: int, width: int) -> NDArray[np.uint8]:
        """A crop of ``height`` x ``width`` pixels, uint8."""
        picture = self._any(dice)
        rows, columns = picture.shape
        zoom = min(dice.uniform(0.35, 1.0), rows / height, columns / width)
        take_y, take_x = min(rows, max(2, round(height * zoom))), min(columns, max(2, round(width * zoom)))
        y, x = dice.randrange(rows - take_y + 1), dice.randrange(columns - take_x + 1)
        cut = picture[y : y + take_y, x : x + take_x]
        return cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]

    def _any(self, dice: Random) -> NDArray[np.uint8]:
        in_a_row = 0
        while True:
            try:
                return self._pictures[dice.randrange(len(self._reader))]
            except DatasetError:  # it would end a run of millions of words, where another ground does as well
                self.unreadable += 1
                in_a_row += 1
                if in_a_row == PHOTOGRAPHS:
                    raise

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        data = self._reader.image_bytes(index)
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        except cv2.error:  # of no data
            picture = None
        if picture is None:
            where = f"{self._reader.path}: {self._reader.key(index)}"
            raise DatasetError(f"{where} is no picture that OpenCV can decode: take it out of the backgrounds")
        return picture  # type: ignore[return-value]
