"""Words in files of their own: the label is in the picture's name, or in a text file of the same name beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crnn.datasets.words import (
    Entry,
    ReadOptions,
    Unusable,
    WordSource,
    decoded_label,
    is_picture,
    one_line,
    read_picture,
)
from crnn.errors import DatasetError, OptionError

# The forms of names that are recognised when all of a folder's pictures have them; the first that fits is taken.
# The first is that of the MJSynth data set (Jaderberg et al., 2014), 12_SLINKING_71711.jpg.
_FORMS = (
    ("NUMBER_LABEL_NUMBER", r"\d+_(?P<label>.+)_\d+"),
    ("LABEL_NUMBER", r"(?P<label>.+)_\d+"),
    ("NUMBER_LABEL", r"\d+_(?P<label>.+)"),
    ("LABEL", r"(?P<label>.+)"),
)

LABEL_SUFFIXES = (".gt.txt", ".txt", ".cls", ".json")
"""What holds the label of the picture with the same name: tesstrain's and kraken's ``.gt.txt``, WebDataset's others."""

LABEL_KEYS = ("label", "text", "word", "transcription", "transcript", "gt", "ground_truth")
"""What the field calls a word's label, in the columns of tables and the keys of JSON objects."""

_LABEL_LIMIT = 1 << 20  # bytes


class Contents(NamedTuple):
    """The files of a folder and the folders in it, by relative paths in the order of their names."""

    pictures: list[str]
    others: list[str]


def contents(folder: Path) -> Contents:
    """The files below ``folder``; hidden ones are passed over and links to folders not followed."""
    found = Contents([], [])

    def failed(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be opened ({error.strerror})") from None

    for place, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = os.path.relpath(os.path.join(place, name), folder)
                (found.pictures if is_picture(name) else found.others).append(path)
    return found


def from_names(folder: Path, pictures: Sequence[str], options: ReadOptions) -> WordSource:
    """Words whose labels are in their files' names.

    Raises DatasetError if nothing says which part of the names is the label, or if the names are mere numbers.
    """
    if not pictures:
        raise DatasetError(f"{folder}: no picture in this folder")
    stems = [Path(name).stem for name in pictures]
    if options.pattern is not None:
        form, pattern = f"as {options.pattern!r} finds it", _compiled(options.pattern)
    else:
        form, pattern = _form(folder, stems)
    decided = f"label in the file name ({form})"
    if form == "LABEL" and (tails := sum(re.fullmatch(r".+_\d+", stem) is not None for stem in stems)):
        decided += f"; {tails:,} of {len(stems):,} names end in _NUMBER, taken as part of the label"
    return WordSource(folder, "names", decided, partial(_name_entries, folder, pictures, pattern), len(pictures))


def _compiled(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise OptionError(f"--label-pattern {text!r} is no regular expression ({error})") from None
    if not pattern.groups:
        raise OptionError(f"--label-pattern {text!r} needs a group around the label, such as (.+)_[0-9]+")
    return pattern


def _form(folder: Path, stems: Sequence[str]) -> tuple[str, re.Pattern[str]]:
    for form, text in _FORMS:
        pattern = re.compile(text)
        labels = [match["label"] for stem in stems if (match := pattern.fullmatch(stem))]
        if len(labels) < len(stems):
            continue
        if form == "LABEL_NUMBER" and all(re.fullmatch(r"\d+_\d+", stem) for stem in stems):
            what = f"which of the two numbers in names such as {stems[0]!r} is the label?"
            raise DatasetError(f"{folder}: {what} Say it with --label-pattern, such as '[0-9]+_([0-9]+)'")
        numbered = form == "LABEL" and all(re.fullmatch(r"\d+", stem) for stem in stems)
        if (numbered and _consecutive(stems)) or (len(labels) > 2 and len(set(labels)) == 1):
            what = "names are numbers one after the other" if numbered else f"every label would be {labels[0]!r}"
            raise DatasetError(f"{folder}: nothing says what the pictures show ({what}); add a labels.csv")
        return form, pattern
    raise AssertionError("the last form fits every name")


def _consecutive(stems: Iterable[str]) -> bool:
    numbers = sorted(map(int, stems))
    return len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _name_entries(folder: Path, pictures: Sequence[str], pattern: re.Pattern[str]) -> Iterator[Entry]:
    for name in pictures:
        match = pattern.fullmatch(Path(name).stem)
        group = "label" if "label" in pattern.groupindex else 1
        label: str | Unusable = Unusable("missing", "the file's name does not have the form of the others")
        if match and match[group] is not None:
            try:
                match[group].encode()
                label = match[group]
            except UnicodeEncodeError:
                label = Unusable("unreadable", "the file's name is not UTF-8")
        yield Entry(name, read_picture(folder / name), label)


def paired(pictures: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Which of ``others`` holds the label of which picture: the same path but for the suffix, in any case."""
    there: dict[str, str] = {}
    for name in others:
        if suffix := next((each for each in LABEL_SUFFIXES if name.lower().endswith(each)), None):
            there.setdefault(name[: -len(suffix)] + suffix, name)
    pairs = {}
    for name in pictures:
        stem = os.path.splitext(name)[0]
        if beside := next((there[stem + suffix] for suffix in LABEL_SUFFIXES if stem + suffix in there), None):
            pairs[name] = beside
    return pairs


def from_pairs(folder: Path, pictures: Sequence[str], others: Sequence[str]) -> WordSource:
    """Words with a ``.txt``, ``.gt.txt``, ``.cls`` or ``.json`` of the same name beside them."""
    pairs = paired(pictures, others)
    if not pairs:
        raise DatasetError(f"{folder}: no picture has a {', '.join(LABEL_SUFFIXES)} of the same name beside it")
    suffixes = {name[len(os.path.splitext(picture)[0]) :] for picture, name in pairs.items()}
    decided = f"pictures with a {' or '.join(sorted(suffixes))} beside each"
    return WordSource(folder, "pairs", decided, partial(_pair_entries, folder, pictures, pairs), len(pictures))


def _pair_entries(folder: Path, pictures: Sequence[str], pairs: dict[str, str]) -> Iterator[Entry]:
    for name in pictures:
        label: str | Unusable = Unusable("missing", "no file with the label beside the picture")
        if beside := pairs.get(name):
            try:
                with open(folder / beside, "rb") as file:
                    label = label_in(beside, file.read(_LABEL_LIMIT + 1))
            except OSError as error:
                label = Unusable("unreadable", f"{beside}: cannot be read ({error.strerror})")
        yield Entry(name, read_picture(folder / name), label)


def label_in(name: str, data: bytes) -> str | Unusable:
    """The label in a ``.txt``, ``.cls`` or ``.json`` file; JSON is a text, or an object with one of LABEL_KEYS."""
    if len(data) > _LABEL_LIMIT:
        return Unusable("unreadable", f"{name}: more than a label")
    if not name.lower().endswith(".json"):
        return decoded_label(data)
    try:
        found: Any = json.loads(data, parse_int=str, parse_float=str)  # digits as they were written
    except (ValueError, RecursionError):
        return Unusable("unreadable", f"{name}: not JSON")
    if isinstance(found, dict):
        keys = [key for key in LABEL_KEYS if key in found]
        if len(keys) != 1:
            what = f"has {' and '.join(keys)}" if keys else f"has none of {', '.join(LABEL_KEYS)}"
            return Unusable("missing", f"{name}: {what}")
        found = found[keys[0]]
    if not isinstance(found, str):
        return Unusable("unreadable", f"{name}: the label is not a text")
    return one_line(found)
