"""What a user knows of the texts: the words that they can be, and how often words occur."""

from __future__ import annotations

import hashlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from crnn.charset import Charset
from crnn.ctc import required_steps
from crnn.errors import OptionError
from crnn.spec import ModelSpec

PRIOR_WEIGHT = 0.5
"""How much a prior counts beside the picture, by default; ``docs/decoding.md`` says what was measured."""

WordSource: TypeAlias = "Lexicon | Iterable[str] | os.PathLike[str]"
"""What says which words there are: a lexicon, a list of words, or the name of a file (a single ``str`` is that)."""

_LEAST = 1e-100  # what a text counts at least: the most probable one must stay possible, and a number


class Readable(NamedTuple):
    """The words of a lexicon that a model can give.

    ``entries`` maps what the network writes to the word as it was given, in the lexicon's order; ``notes`` say, one
    line each, which words are not among them.
    """

    entries: dict[str, str]
    notes: tuple[str, ...]


class Lexicon:
    """A closed list of words; reading with it gives one of them.

    Args:
        words: any number of them, in any case and spelling. White space around a word does not belong to it; empty
            words and repetitions are dropped.
        name: what to call it in messages.
        sha256: that of the file they come from, whose path is the name; None if they come from no file.

    A word is matched by what the model can write of it (:func:`written`), and given as it stands in the list: with the
    bundled weights, ``O'Neill`` is what is read where the picture says ``oneill``.

    Raises OptionError if there is no word, or something is no word.
    """

    def __init__(self, words: Iterable[str], name: str = "lexicon", sha256: str | None = None) -> None:
        if isinstance(words, str | bytes):
            raise OptionError(f"{name}: give a list of words, or Lexicon.from_file(path)")
        kept: dict[str, None] = {}
        for word in words:
            if not isinstance(word, str):
                raise OptionError(f"{name}: {word!r} is no word, but a {type(word).__name__}")
            if stripped := word.strip():
                kept[stripped] = None
        if not kept:
            raise OptionError(f"{name}: no words")
        self.words = tuple(kept)
        self.name = name
        self.sha256 = sha256

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Lexicon:
        """A lexicon from a UTF-8 file of one word a line; empty lines do not count."""
        words = []
        sha256, lines = _lines(path)
        for number, line in lines:
            if "\t" in line.strip():
                what = "a lexicon is one word a line, and frequencies go into a prior"
                raise OptionError(f"{path}: line {number} holds a tab; {what}")
            words.append(line)
        return cls(words, str(path), sha256)

    def __len__(self) -> int:
        return len(self.words)

    def readable(self, spec: ModelSpec, characters: str | None = None) -> Readable:
        """The words that a model of this ``spec`` can give, where only these ``characters`` are allowed, if any.

        Raises OptionError if there are none.
        """
        entries: dict[str, str] = {}
        left_out: dict[str, list[str]] = {}
        allowed = set(spec.charset.symbols if characters is None else characters)
        for word in self.words:
            text = written(word, spec.charset)
            if text is None:
                reason = "with characters that the model does not have"
            elif not text:
                reason = "of which nothing can be written"
            elif required_steps(text) > spec.steps:
                reason = f"too long for the model's {spec.steps} time steps"
            elif not allowed.issuperset(text):
                reason = "with characters that are not allowed"
            elif entries.setdefault(text, word) != word:
                reason = "that the model cannot tell from others, which are given instead"
                word = f"{word} ({entries[text]})"
            else:
                continue
            left_out.setdefault(reason, []).append(word)
        notes = tuple(
            f"{self.name}: {len(words):,} of {len(self):,} words left out, {reason}: {', '.join(words[:3])}"
            + (", ..." if len(words) > 3 else "")
            for reason, words in left_out.items()
        )
        if not entries:
            raise OptionError(f"{self.name}: no word of {len(self):,} can be read; {notes[0].partition(': ')[2]}")
        return Readable(entries, notes)


@dataclass(frozen=True)
class Prior:
    """How often words occur.

    Where texts are chosen by it, each counts with its CTC probability times its frequency to the power of ``weight``. A
    word that is not in ``frequencies`` counts as half as frequent as the rarest that is. Cases and
    spellings that a model writes alike (:func:`written`) are added up.

    Raises OptionError if there is no frequency, one is not a finite number above 0, or the weight is not a finite
    number of 0 or more.
    """

    frequencies: Mapping[str, float]
    weight: float = PRIOR_WEIGHT
    name: str = "prior"
    sha256: str | None = None
    """Of the file that the frequencies come from, whose path is the name."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise OptionError(f"{self.name}: the weight must be a number of 0 or more, not {self.weight}")
        if not self.frequencies:
            raise OptionError(f"{self.name}: no words")
        for word, frequency in self.frequencies.items():
            if not 0 < frequency < math.inf:
                raise OptionError(f"{self.name}: {word!r} has the frequency {frequency}; it must be a number above 0")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], weight: float = PRIOR_WEIGHT) -> Prior:
        """A prior from a UTF-8 file of lines ``WORD<tab>FREQUENCY``; those of a word that comes twice are added up."""
        frequencies: Counter[str] = Counter()
        sha256, lines = _lines(path)
        for number, line in lines:
            word, tab, value = line.partition("\t")
            try:
                frequency = float(value)
            except ValueError:
                frequency = math.nan
            if not tab or not word.strip() or not 0 < frequency < math.inf:
                raise OptionError(f"{path}: line {number} is not WORD<tab>FREQUENCY, with a frequency above 0")
            frequencies[word.strip()] += frequency  # type: ignore[assignment]
        return cls(frequencies, weight, str(path), sha256)

    def weights(self, charset: Charset) -> tuple[dict[str, float], float]:
        """What texts of this charset count, and what any other text does; the most frequent counts 1."""
        total: dict[str, float] = {}
        for word, frequency in self.frequencies.items():
            if text := written(word, charset):
                total[text] = total.get(text, 0.0) + frequency
        if not total:
            raise OptionError(f"{self.name}: none of its {len(self.frequencies):,} words can be written by the model")
        top = max(total.values())
        counts = {text: max((frequency / top) ** self.weight, _LEAST) for text, frequency in total.items()}
        return counts, max((min(total.values()) / top / 2) ** self.weight, _LEAST)


def as_lexicon(source: WordSource) -> Lexicon:
    """A lexicon from whatever says which words it has: itself, a list of words, or the name of a file of them."""
    if isinstance(source, Lexicon):
        return source
    return Lexicon.from_file(source) if isinstance(source, str | os.PathLike) else Lexicon(source)


def written(word: str, charset: Charset) -> str | None:
    """What a network of this charset writes where a picture says ``word``; None if it has a character that it lacks.

    A character that is not in the charset is taken in its other case, or without its accents, if the charset has that.
    White space, punctuation, symbols and marks that are not in it are dropped; a letter or a digit is not.
    """
    if charset.can_encode(word):
        return word
    has = charset.can_encode
    text = []
    for character in unicodedata.normalize("NFC", word):
        bare = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        forms = (form for one in (character, bare) for form in (one, one.lower(), one.upper()))
        found = next((form for form in forms if has(form)), None)
        if found is not None:
            text.append(found)
        elif unicodedata.category(character)[0] in "LN":
            return None
    return "".join(text)


def _lines(path: str | os.PathLike[str]) -> tuple[str, list[tuple[int, str]]]:
    """A text file's SHA-256, and those of its lines that are not empty, with their numbers."""
    try:
        data = Path(path).read_bytes()
        content = data.decode("utf-8-sig")
    except OSError as error:
        raise OptionError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"{os.fspath(path)}: is not UTF-8 (byte {error.start}); convert it with iconv") from None
    lines = enumerate(content.split("\n"), 1)
    kept = [(number, line.removesuffix("\r")) for number, line in lines if line.strip()]
    return hashlib.sha256(data).hexdigest(), kept
