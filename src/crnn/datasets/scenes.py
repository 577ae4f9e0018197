"""Words marked in larger pictures: ICDAR's ground truth of scenes, a text file for each picture.

A line is a quadrilateral and what is written in it: the corners clockwise from the text's top left, then the
transcription, which is all that follows the eighth comma; ``###`` marks text that cannot be read (Robust Reading
Competition, incidental scene text, 2015). The older form has left, top, right, bottom and a transcription in quotation
marks, with commas or spaces between the numbers (focused scene text, 2013). https://rrc.cvc.uab.es
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crnn.boxes import rectify
from crnn.datasets.rows import unescaped
from crnn.datasets.words import Entry, Unusable, WordSource, one_line
from crnn.errors import CrnnError, DatasetError
from crnn.images import PIXEL_LIMIT, open_picture

ILLEGIBLE = "###"
"""The transcription of text that the annotators could not read."""

_NUMBER = r"-?\d+(?:\.\d+)?"
_CORNERS = re.compile(rf"\s*((?:{_NUMBER}\s*,\s*){{8}})(.*)")
_SIDES = re.compile(rf'\s*((?:{_NUMBER}(?:\s*,\s*|\s+)){{4}})"(.*)"\s*')
_FILE_LIMIT = 16 << 20  # bytes of one picture's ground truth


class _Region(NamedTuple):
    number: int
    box: list[tuple[float, float]]
    text: str


def is_ground_truth(path: Path) -> bool:
    """Whether a text file begins like the ground truth of a scene."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            line = next((line for line in iter(partial(file.readline, 4096), "") if line.strip()), "")
    except OSError:
        return False
    return _parsed(line.rstrip("\r\n")) is not None


def scene_files(pictures: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Which of ``others`` is the ground truth of which picture: ``gt_NAME.txt`` or ``NAME.txt``, in any folder.

    A name that several pictures share belongs to the one in the text file's own folder, or to none.
    """
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(Path(name).stem, []).append(name)
    pairs = {}
    for name in others:
        path = Path(name)
        if path.suffix.lower() != ".txt":
            continue
        for stem in (path.stem, path.stem.removeprefix("gt_")):
            found = by_stem.get(stem, [])
            beside = [picture for picture in found if Path(picture).parent == path.parent] or found
            if len(beside) == 1:
                pairs[beside[0]] = name
                break
    return pairs


def from_scenes(folder: Path, pairs: Mapping[str, str], pictures: Path | None = None) -> WordSource:
    """The words of scenes, cut out and upright. ``pairs``: see :func:`scene_files`; its pictures lie in ``pictures``,
    or else in ``folder`` as the text files do.

    Their keys are the picture's name, ``#`` and the line's number. Raises DatasetError if there is no ground truth.
    """
    if not pairs:
        raise DatasetError(f"{folder}: no gt_NAME.txt or NAME.txt belongs to a picture NAME here (--images DIR?)")
    decided = f"ICDAR ground truth of {len(pairs):,} scenes, words cut out along their boxes"
    return WordSource(folder, "scenes", decided, partial(_entries, folder, dict(sorted(pairs.items())), pictures))


def _entries(folder: Path, pairs: Mapping[str, str], pictures: Path | None) -> Iterator[Entry]:
    for name, truth in pairs.items():
        scene = None
        why = ""
        try:
            scene = open_picture(os.path.join(pictures or folder, name), "RGB")
        except CrnnError as error:
            why = str(error)
        for region in _regions(folder / truth):
            key = f"{name}#{region.number if isinstance(region, _Region) else region[0]}"
            if not isinstance(region, _Region):
                yield Entry(key, region[1], region[1])
                continue
            label: str | Unusable = one_line(region.text)
            if region.text == ILLEGIBLE:
                label = Unusable("illegible", "marked as illegible")
            image: bytes | Unusable = Unusable("unreadable", why)
            if isinstance(label, Unusable):
                image = label  # nobody will look at it
            elif scene is not None:
                file = io.BytesIO()
                try:
                    rectify(scene, region.box, PIXEL_LIMIT).save(file, "PNG")
                    image = file.getvalue()
                except CrnnError as error:
                    image = Unusable("unreadable", f"its box {error}")
            yield Entry(key, image, label)


def _regions(path: Path) -> Iterator[_Region | tuple[int, Unusable]]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline=None) as file:
            text = file.read(_FILE_LIMIT)
    except OSError as error:
        yield 0, Unusable("unreadable", f"{path}: cannot be read ({error.strerror})")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            found = _parsed(line)
            if found is None:
                yield number, Unusable("unreadable", f"line {number} of {path.name} is no box with a transcription")
            else:
                yield _Region(number, *found)


def _parsed(line: str) -> tuple[list[tuple[float, float]], str] | None:
    if match := _CORNERS.fullmatch(line):
        values = [float(value) for value in match[1].split(",")[:8]]
        return list(zip(values[::2], values[1::2], strict=True)), match[2].strip()
    if match := _SIDES.fullmatch(line):
        left, top, right, bottom = (float(value) for value in re.split(r"[,\s]+", match[1].strip(" ,\t"))[:4])
        return [(left, top), (right, top), (right, bottom), (left, bottom)], unescaped(match[2])
    return None
