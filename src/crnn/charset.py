"""The characters a model can write, and the class index of each."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crnn.errors import LabelError, ModelError


@dataclass(frozen=True)
class CharsetDiff:
    """What changes on the way from one charset to another; every field lists characters in the new order.

    ``added`` and ``removed`` are only in the new or only in the old one; ``moved`` are in both, under another class.
    """

    added: str
    removed: str
    moved: str

    def __bool__(self) -> bool:
        """Whether the two charsets differ."""
        return bool(self.added or self.removed or self.moved)


@dataclass(frozen=True)
class Charset:
    """An ordered set of characters, one code point each: class ``k + 1`` is ``symbols[k]``, class 0 is the CTC blank.

    Raises:
        ModelError: ``symbols`` is empty, repeats a character, or spells one as several code points (a letter and the
            combining mark that Unicode has one code point for), or holds half of a surrogate pair.
    """

    symbols: str

    def __post_init__(self) -> None:
        if not isinstance(self.symbols, str):
            raise ModelError(f"charset: give its characters as one string, not as a {type(self.symbols).__name__}")
        if not self.symbols:
            raise ModelError("charset: empty; give at least one character")
        if twice := [symbol for symbol, count in Counter(self.symbols).items() if count > 1]:
            raise ModelError(f"charset: {_listed(twice)} more than once; every character has one class")
        if broken := [symbol for symbol in self.symbols if 0xD800 <= ord(symbol) <= 0xDFFF]:
            raise ModelError(f"charset: {_listed(broken)} is half of a surrogate pair, not a character")
        for symbol, mark in zip(self.symbols, self.symbols[1:], strict=False):
            if unicodedata.combining(mark) and len(unicodedata.normalize("NFC", symbol + mark)) == 1:
                raise ModelError(
                    f"charset: {symbol + mark!r} is two code points, and a class is one; write it composed (NFC)"
                )

    def __len__(self) -> int:
        """The number of characters, without the blank."""
        return len(self.symbols)

    @property
    def classes(self) -> int:
        """The number of classes of a network that writes this charset: the characters and the blank."""
        return len(self.symbols) + 1

    @cached_property
    def _class_of(self) -> dict[str, int]:
        return {symbol: k for k, symbol in enumerate(self.symbols, 1)}

    def can_encode(self, text: str) -> bool:
        """Whether every character of ``text`` has a class."""
        return self._class_of.keys() >= set(text)

    def encode(self, text: str) -> list[int]:
        """The class of each character, 1 to ``len(charset)``; the empty text gives an empty list.

        Raises:
            LabelError: names the characters that have no class. Nothing is dropped or replaced.
        """
        try:
            return [self._class_of[character] for character in text]
        except KeyError:
            unknown = [c for c in dict.fromkeys(text) if c not in self._class_of]
            raise LabelError(f"{text!r}: {_listed(unknown)} not in the model's {len(self)} characters") from None

    def decode(self, indices: Iterable[int]) -> str:
        """The text of class indices, the inverse of :meth:`encode`; it doesn't collapse a CTC path (see `crnn.ctc`).

        Raises:
            LabelError: an index is 0 (the blank stands for no character) or beyond the charset.
        """
        classes = list(indices)
        if wrong := [k for k in classes if not 1 <= k <= len(self)]:
            raise LabelError(f"class {wrong[0]} is no character: characters are classes 1 to {len(self)}")
        return "".join([self.symbols[k - 1] for k in classes])

    def diff(self, other: Charset) -> CharsetDiff:
        """What changes on the way from this charset to ``other``."""
        return CharsetDiff(
            added="".join(c for c in other.symbols if c not in self._class_of),
            removed="".join(c for c in self.symbols if c not in other._class_of),
            moved="".join(c for c, k in other._class_of.items() if self._class_of.get(c, k) != k),
        )


def _listed(characters: Iterable[str]) -> str:
    """Characters with their code points, so that look-alikes and invisible ones can be told apart."""
    return ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters)


ALNUM36 = Charset("0123456789abcdefghijklmnopqrstuvwxyz")
"""The field's 36 characters: digits and lower-case Latin letters."""


def read_charset(text: str) -> Charset:
    """A charset from the command line: the name of a UTF-8 file, or the characters themselves in the order of classes.

    The file holds them in one line or one in each line. Raises ModelError if it cannot be read or is no charset.
    """
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or a character that no name can have
        is_file = False
    if not is_file:
        if text.endswith(".txt"):
            raise ModelError(f"charset: no file {text}")
        return Charset(text)
    try:
        content = Path(text).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ModelError(f"charset: {text} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"charset: {text} is not UTF-8 (byte {error.start}); convert it with iconv") from None
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    if wrong := [number for number, line in enumerate(lines, 1) if len(line) != 1 and len(lines) > 1]:
        raise ModelError(f"charset: {text}: line {wrong[0]} is not one character; write all in one line, or one a line")
    return Charset("".join(lines))
