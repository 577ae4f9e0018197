"""What synthetic words say: dictionary words, invented names, numbers, prices, codes, joined words, web addresses."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import NamedTuple

from crnn.charset import ALNUM36, Charset
from crnn.ctc import required_steps
from crnn.errors import DatasetError
from crnn.protocols import alnum36, protocol_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
LONGEST = 20  # characters of an English word, and of a label for 26 time steps
# Texts of more characters than the key are kept with that probability: real signs say shorter words than word lists do.
KEPT = {9: 0.25, 5: 0.5, 0: 1.0}
TRIED, LEAST = 400, 0.02  # texts that are tried, and the share of them that has to fit


def longest(steps: int) -> int:
    """Characters of the longest label for so many time steps: 20 for the paper's 26."""
    return steps * LONGEST // 26


class Text(NamedTuple):
    """A word as it is drawn. ``small_capitals``: lower-case letters are drawn as capitals of reduced height."""

    drawn: str
    small_capitals: bool

    @property
    def shown(self) -> str:
        """What is to be seen in the picture: a small capital is a capital."""
        return self.drawn.upper() if self.small_capitals else self.drawn


class Corpus:
    """An endless supply of texts, drawn by the kinds and letter cases that words on signs and products have.

    Args:
        words: word -> frequency (any unit). A word is drawn with probability proportional to the square root of its
            frequency: enough of the rare ones to learn every letter pair, without forgetting that "the" is common.
        steps: time steps of the network; a text whose label cannot be written in so many is drawn again.
        charset: what the network writes. If it is not just ``0-9a-z``, a text with other characters is drawn again.

    Raises DatasetError if the list is empty, if hardly any text can be written in the charset, or hardly any word of
    the list in so many steps.
    """

    def __init__(self, words: dict[str, float], steps: int = 26, charset: Charset = ALNUM36) -> None:
        if not words:
            raise DatasetError("the word list is empty: give --words a text file with one word a line")
        self._words = sorted(words)
        self._sums = list(accumulate(words[word] ** 0.5 for word in self._words))
        self._steps = steps
        self._charset = charset
        self._folds = protocol_of(charset) == "alnum36"
        dice = Random(0)
        if not self._folds and sum(self._fits(self._draw(dice)) for _ in range(TRIED)) < LEAST * TRIED:
            raise DatasetError(
                "synthetic words can hardly ever be written in the model's characters: give --words a list in them, or "
                "train without synthetic words"
            )
        known = [Text(word, False) for word in (self.labelled(dice) for _ in range(TRIED)) if word]
        if known and sum(map(self._fits, known)) < LEAST * len(known):
            raise DatasetError(
                f"hardly any word of the list fits {steps} time steps, {longest(steps)} characters at most (such as "
                f"{known[0].drawn!r}): give --words shorter ones, or a wider network"
            )

    @classmethod
    def english(cls, steps: int = 26, charset: Charset = ALNUM36) -> Corpus:
        """The English words of the ``wordfreq`` package (about 300,000; data CC-BY-SA-4.0) by their frequency."""
        from wordfreq import get_frequency_dict

        frequencies = get_frequency_dict("en", wordlist="large")
        words = {w: f for w, f in frequencies.items() if w.isascii() and alnum36(w) and len(w) <= LONGEST}
        return cls(words, steps, charset)

    @classmethod
    def from_file(cls, path: Path, steps: int = 26, charset: Charset = ALNUM36) -> Corpus:
        """One word a line, optionally a tab and its frequency: a finite number above 0, 1 where there is none.

        Raises DatasetError.
        """
        words: dict[str, float] = {}
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"cannot read the word list {path}: {error}") from error
        for number, line in enumerate(lines, 1):
            word, _, frequency = line.partition("\t")
            try:
                if word.strip() if protocol_of(charset) == "raw" else alnum36(word):
                    value = float(frequency or 1)
                    if not 0 < value < inf:
                        raise ValueError
                    words[word.strip()] = value
            except ValueError:
                raise DatasetError(
                    f"{path}:{number}: {frequency!r} is no number above 0; write WORD or WORD<tab>FREQUENCY"
                ) from None
        if not words and (some := sum(map(bool, map(str.strip, lines)))):
            raise DatasetError(
                f"{path}: none of its {some:,} words has a letter or digit of {charset.symbols}, the characters that "
                "are written here; --charset takes others"
            )
        return cls(words, steps, charset)

    def __len__(self) -> int:
        return len(self._words)

    def sample(self, dice: Random) -> Text:
        """One text; its label is never empty and always fits the network's time steps."""
        while True:
            text = self._draw(dice)
            if not self._fits(text):
                continue
            length = len(self.label(text))
            if dice.random() < next(share for least, share in KEPT.items() if length > least):
                return text

    def _fits(self, text: Text) -> bool:
        label = self.label(text)
        fits = len(label) <= longest(self._steps) and required_steps(label) <= self._steps
        return bool(label) and fits and len(text.drawn) <= self._steps

    def label(self, text: Text) -> str:
        """What the network has to write for a text; empty where it cannot, or where its letter case does not show."""
        if self._folds:
            return alnum36(text.shown)
        return text.drawn if self._charset.can_encode(text.drawn) and not text.small_capitals else ""

    def word(self, dice: Random) -> str:
        """One dictionary word, as the list spells it."""
        return self._words[min(bisect(self._sums, dice.random() * self._sums[-1]), len(self._words) - 1)]

    def labelled(self, dice: Random) -> str:
        """One dictionary word, in a letter case that the network can write; empty where there is none."""
        word = self.word(dice)
        forms = (word, word.upper(), word.capitalize(), word.lower())
        return next((form for form in forms if self.label(Text(form, False))), "")

    def _draw(self, dice: Random) -> Text:
        kind = dice.random()
        if kind < 0.66:
            text = self.word(dice)
        elif kind < 0.74:
            text = self._invented(dice)
        elif kind < 0.83:
            return Text(_punctuated(_number(dice), dice, 0.06), False)
        elif kind < 0.86:
            return Text(_punctuated(_code(dice), dice, 0.06), False)
        elif kind < 0.91:
            return Text(*_cased_pair(self.word(dice), self.word(dice), dice))
        elif kind < 0.935:
            return Text(_web(self.word(dice), self.word(dice), dice), False)
        else:  # letters without a language, so that the network reads shapes and not only words
            text = "".join(dice.choices(LETTERS, k=dice.choice((1, 1, 2, 2, 3, 3, 4, 5, 6, 8))))
        drawn, small = _cased(text, dice)
        return Text(_punctuated(drawn, dice, 0.12), small)

    def _invented(self, dice: Random) -> str:
        """A name that no list has: the start of one word and the end of another."""
        a, b = self.word(dice), self.word(dice)
        return a[: max(2, (len(a) + 1) // 2)] + b[len(b) // 2 :]


def _cased(text: str, dice: Random) -> tuple[str, bool]:
    case = dice.random()
    if case < 0.50:
        return text.upper(), False
    if case < 0.74:
        return text.capitalize(), False
    if case < 0.94:
        return text.lower(), False
    if case < 0.98:
        return text.capitalize(), True
    return "".join(c.upper() if dice.random() < 0.5 else c for c in text), False


def _cased_pair(a: str, b: str, dice: Random) -> tuple[str, bool]:
    form = dice.random()
    if form < 0.3:
        return a.capitalize() + b.capitalize(), False
    if form < 0.6:
        return (a + b).upper(), False
    if form < 0.8:
        return a + b, False
    return _cased(a, dice)[0] + dice.choice("-/&'.+") + _cased(b, dice)[0], False


def _number(dice: Random) -> str:
    form = dice.random()
    if form < 0.5:
        return "".join(dice.choices(DIGITS, k=dice.choice((1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 6))))
    if form < 0.62:
        return (
            dice.choice("$£€$")
            + f"{dice.randrange(1000)}"
            + dice.choice(("", f".{dice.randrange(100):02}", ".99", ".-"))
        )
    if form < 0.70:
        dot = dice.choice("./-")
        return f"{dice.randrange(100):02}{dot}{dice.randrange(13):02}{dot}{dice.randrange(100):02}"
    if form < 0.76:
        return f"{dice.randrange(24)}{dice.choice(':.')}{dice.randrange(60):02}" + dice.choice(
            ("", "", "am", "pm", "PM")
        )
    if form < 0.82:
        unit = dice.choice(("%", "%", "th", "st", "nd", "KM", "km", "ml", "g", "kg", "m", "D", "x"))
        return f"{dice.randrange(1, 100)}{unit}"
    if form < 0.88:
        return f"{dice.randrange(1, 1000)},{dice.randrange(1000):03}"
    if form < 0.94:
        return f"{dice.randrange(1850, 2040)}"
    return f"{dice.randrange(100, 1000)}-{dice.randrange(100, 10000)}"


def _code(dice: Random) -> str:
    letters = "".join(dice.choices(LETTERS.upper(), k=dice.choice((1, 1, 2, 2, 3))))
    digits = "".join(dice.choices(DIGITS, k=dice.choice((1, 2, 2, 3, 4))))
    form = dice.random()
    if form < 0.5:
        return letters + dice.choice(("", "", "-")) + digits
    if form < 0.75:
        return digits + letters
    return "".join(dice.choices(LETTERS.upper() + DIGITS, k=dice.randrange(4, 10)))


def _web(a: str, b: str, dice: Random) -> str:
    name = a if dice.random() < 0.6 else a + b
    end = dice.choice((".com", ".com", ".com", ".co.uk", ".org", ".net", ".in", ".de", ".info", ".tv"))
    text = dice.choice(("www.", "www.", "", "", "@")) + name.replace("'", "") + end
    return text.upper() if dice.random() < 0.25 else text


def _punctuated(text: str, dice: Random, share: float) -> str:
    """Signs that are seen but not labelled: what an untaught network reads as letters."""
    if dice.random() >= share:
        return text
    form = dice.random()
    if form < 0.55:
        return text + dice.choice(".,.,!!?:;'*)\"-…")
    if form < 0.72:
        return dice.choice(("“{}”", '"{}"', "'{}'", "({})", "‘{}’", "[{}]", "-{}-")).format(text)
    if form < 0.86:
        return dice.choice("\"'“(#&-*@.•") + text
    if len(text) > 2:
        at = dice.randrange(1, len(text))
        return text[:at] + dice.choice("-'./&") + text[at:]
    return text + dice.choice("®™.")
