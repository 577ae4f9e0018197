"""What reading a picture gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Character:
    """One character of a word.

    ``score``, 0 to 1, is the geometric mean of its posterior probability over the frames that named it; ``span`` is
    where it stands, ``[x0, x1)`` in pixels of the source picture's width (of a box: along its width, from its left).
    """

    character: str
    score: float
    span: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was read.

    ``confidence``, 0 to 1, is the CTC probability of ``text`` after the model's temperature (with a second look its
    mean over the views); ``source`` is the path or the name that the picture came with, if it had one. ``error`` is
    None, unless ``read_many(on_error="record")`` met a picture that it couldn't read: then it says why, the text is
    empty and the confidence is 0.

    Read with a lexicon or with allowed characters, ``confidence`` is the probability of ``text`` among the texts that
    are possible, and ``kept`` is the share of the network's probability, 0 to 1, that all of those have: a small one
    says that the picture shows something else. Otherwise ``kept`` is None. ``characters`` are what the network wrote,
    which need not be the lexicon's spelling.
    """

    text: str
    confidence: float
    characters: tuple[Character, ...] = ()
    source: str | None = None
    error: str | None = None
    kept: float | None = None
