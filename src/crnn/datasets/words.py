"""Labelled words from anywhere, in one form: a key, the encoded picture, the label, or why there is none of these.

Each format has a module with a function that recognises how its files are to be read and gives a :class:`WordSource`;
:func:`crnn.datasets.formats.open_words` chooses among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from PIL.Image import Image

from crnn.datasets.tar import STREAM_LIMIT
from crnn.errors import ImageError
from crnn.images import SUFFIXES, open_picture

Kind = Literal["missing", "unreadable", "empty", "illegible"]


class Unusable(NamedTuple):
    """Why a picture or a label cannot be had.

    ``missing``: it is not there; ``unreadable``: it is damaged; ``empty``: the label has nothing but spaces;
    ``illegible``: the annotators marked the word as one that cannot be read, so nothing is wrong with the data set.
    """

    kind: Kind
    reason: str


class Entry(NamedTuple):
    """One word of a data set: ``key`` says where it stands, ``image`` is an encoded picture, not yet decoded."""

    key: str
    image: bytes | Unusable
    label: str | Unusable


@dataclass(frozen=True)
class WordSource:
    """A data set that can be read any number of times, one word at a time and in the same order.

    ``path`` is where the user has it; ``format`` is one of :data:`crnn.datasets.formats.FORMATS`; ``decided`` says in
    words how it is read; ``count`` is the number of entries where that is known before they are read. Iterating raises
    DatasetError where the data set as a whole cannot be read on; what is wrong with one word is in its entry.
    """

    path: Path
    format: str
    decided: str
    entries: Callable[[], Iterator[Entry]]
    count: int | None = None

    def __iter__(self) -> Iterator[Entry]:
        return self.entries()


@dataclass(frozen=True)
class ReadOptions:
    """What a user has said about how a data set is to be read; None leaves it to be recognised.

    ``images`` is the folder that the names of pictures start from. The columns are names or numbers from 1. ``pattern``
    is a regular expression of which a group called ``label``, or else the first, is the label in a file's name.
    """

    images: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
    pattern: str | None = None


def read_picture(path: str | os.PathLike[str]) -> bytes | Unusable:
    """The bytes of a picture file. They are held whole, so those beyond ``STREAM_LIMIT`` are refused."""
    try:
        if not os.path.exists(path):
            return Unusable("missing", "there is no such picture")
        if not os.path.isfile(path):  # a pipe might never end
            return Unusable("unreadable", "not a file")
        with open(path, "rb") as file:
            data = file.read(STREAM_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        return Unusable("unreadable", f"cannot be opened ({getattr(error, 'strerror', None) or error})")
    return within_limit(data)


def within_limit(data: bytes) -> bytes | Unusable:
    """``data``, unless it is empty or larger than a picture of a word can be."""
    if not data:
        return Unusable("unreadable", "the picture is empty")
    if len(data) > STREAM_LIMIT:
        return Unusable("unreadable", f"the picture has more than {STREAM_LIMIT >> 20} MiB")
    return data


class Checked(NamedTuple):
    """A word that can be used: its picture, gray, and as it is stored; its label."""

    picture: Image
    image: bytes
    label: str


def checked(entry: Entry) -> Checked | Unusable:
    """The word of an entry, or why there is none: picture or label is not there, is empty, or cannot be decoded."""
    if isinstance(entry.label, Unusable) and entry.label.kind == "illegible":
        return entry.label
    if isinstance(entry.image, Unusable):
        return entry.image
    if isinstance(entry.label, Unusable):
        return entry.label
    if not entry.label.strip():
        return Unusable("empty", "the label is empty")
    try:
        return Checked(open_picture(entry.image, "L"), entry.image, entry.label)
    except ImageError as error:
        return Unusable("unreadable", str(error).removeprefix("picture: "))


def decoded_label(data: bytes) -> str | Unusable:
    """A label stored as UTF-8 (a byte-order mark is no part of it); one line break at its end is the file's."""
    try:
        label = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Unusable("unreadable", f"the label is not UTF-8 (byte {error.start})")
    return one_line(label.removesuffix("\n").removesuffix("\r"))


def one_line(label: str) -> str | Unusable:
    """``label``, unless it cannot be one of a single word: it has line breaks, or half a surrogate pair (bad UTF-8)."""
    if "\n" in label or "\r" in label:
        return Unusable("unreadable", f"the label {label[:40]!r} has several lines (a quotation mark left open?)")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in label):
        return Unusable("unreadable", f"the label {label[:40]!r} is not UTF-8")
    return label


def is_picture(name: str) -> bool:
    """Whether a file's name ends as those of pictures do."""
    return name.lower().endswith(SUFFIXES)
