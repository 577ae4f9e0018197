"""Makes new words of real letters: pieces of labelled words, cut between their letters, alone or put side by side.

    python examples/cut_words.py WORDS_lmdb CHARACTERS.jsonl FOLDER --count 12000

Each line of CHARACTERS.jsonl has the key of a picture of WORDS_lmdb, its text, and a box [x, y, width, height] in
pixels for each character: {"key": "image-000000001", "text": "You", "boxes": [[5, 5, 21, 36], ...]}. FOLDER gets the
pictures and their labels.csv, which ``crnn data build`` takes. A network that sees the same few thousand words again
and again learns them by heart; of pieces there are many times as many, in the same print. Every tenth word is left out,
as training does.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.split import is_held_out

HEIGHT = 48  # pixels of a picture that is made of two pieces
LONGEST = 14  # characters of one
TRIES = 10_000  # for a piece; long words whose letters all overlap give none
OVERLAP = 0.15  # of the narrower of two letters: where more of it lies under the other, there is no gap to cut in

Gray: TypeAlias = NDArray[np.float32]  # height x width, 0 to 255


class Word(NamedTuple):
    """A picture, its text, and the columns where it may be cut: before letter i, or None where letters overlap."""

    picture: Gray
    text: str
    cuts: list[int | None]


class Piece(NamedTuple):
    """A part of a word's picture and what is written on it."""

    picture: Gray
    text: str


def cuts(boxes: list[list[float]], width: int) -> list[int | None]:
    """Where to cut before each letter and, last, after all of them; the ends of the picture count as gaps."""
    found: list[int | None] = [0]
    for (left, _, one, _), (right, _, other, _) in pairwise(boxes):
        gap = right - (left + one)
        fits = gap > -OVERLAP * min(one, other)
        found.append(round(left + one + gap / 2) if fits else None)
    return [*found, width]


def words(source: Path, characters: Path) -> list[Word]:
    """The words to train on whose boxes agree with the data set's labels."""
    places = {line["key"]: line for line in map(json.loads, characters.read_text(encoding="utf-8").splitlines())}
    reader = LmdbReader(source)
    found = []
    for i in range(len(reader)):
        place = places.get(reader.key(i))
        if place is None or is_held_out(i) or place["text"] != reader.label(i):
            continue
        if len(place["boxes"]) != len(place["text"]):
            continue
        picture = np.asarray(reader.image(i), np.float32)
        found.append(Word(picture, reader.label(i), cuts(place["boxes"], picture.shape[1])))
    return found


def piece(word: Word, most: int, dice: Random) -> Piece | None:
    """Some letters of a word that follow each other, at most ``most``; None where the dice find no gap."""
    count = len(word.text)
    length = min(most, dice.randint(1, count) if dice.random() < 0.2 else dice.randint((count + 1) // 2, count))
    first = dice.randrange(count - length + 1)
    left, right = word.cuts[first], word.cuts[first + length]
    if left is None or right is None or right - left < 4:
        return None
    return Piece(word.picture[:, left:right], word.text[first : first + length])


def side_by_side(one: Piece, other: Piece) -> Piece:
    """Both at one height; the second's ground and contrast are made those of the first."""
    pictures = []
    for picture in (one.picture, other.picture):
        width = max(4, round(picture.shape[1] * HEIGHT / picture.shape[0]))
        scaled = Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.BILINEAR)
        pictures.append(np.asarray(scaled, np.float32))
    (ground, ink), (its_ground, its_ink) = map(ground_and_ink, pictures)
    pictures[1] = (pictures[1] - its_ground) * np.float32(ink / its_ink) + ground
    return Piece(np.clip(np.concatenate(pictures, 1), 0, 255), one.text + other.text)


def ground_and_ink(picture: Gray) -> tuple[np.float32, float]:
    """(level of the ground, how far ink lies from it: below nothing if it is darker)."""
    ground = np.median(np.concatenate((picture[0], picture[-1])))
    away = picture - ground
    dark, bright = np.percentile(away, 5), np.percentile(away, 95)
    ink = float(dark if -dark > bright else bright)
    return np.float32(ground), ink if abs(ink) >= 8 else 8.0 if ink >= 0 else -8.0


def pieces(source: list[Word], dice: Random) -> Piece:
    """One new word: a part of one (two of five), or parts of two. Ends the program where no words give one."""
    for _ in range(TRIES):
        one = piece(dice.choice(source), LONGEST, dice)
        if one is None:
            continue
        if dice.random() < 0.4:
            if len(one.text) > 1:
                return one
            continue
        if len(one.text) < LONGEST:
            other = piece(dice.choice(source), LONGEST - len(one.text), dice)
            if other is not None:
                return side_by_side(one, other)
    raise SystemExit(f"of {len(source)} words no piece of {LONGEST} letters or fewer can be cut: their letters overlap")


def main() -> None:
    """Writes the folder, and says how many words they were cut from."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("words", type=Path)
    options.add_argument("characters", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=12_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    source = words(chosen.words, chosen.characters)
    if not source:
        raise SystemExit(f"{chosen.characters} has the boxes of no word of {chosen.words}")
    chosen.folder.mkdir(parents=True)
    dice = Random(chosen.seed)
    with (chosen.folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        for n in range(chosen.count):
            picture, text = pieces(source, dice)
            Image.fromarray(picture.astype(np.uint8)).save(chosen.folder / f"{n:06}.png")
            table.writerow((f"{n:06}.png", text))
    print(f"{chosen.count} words of {len(source)}: crnn data build {chosen.folder} OUT_lmdb")


if __name__ == "__main__":
    main()
