"""From a network's output to text, given what is known of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.ctc import Indices, Scores, required_steps
from crnn.decoding.alignment import align
from crnn.decoding.choice import Words, among, of_all
from crnn.decoding.lexicon import Lexicon, Prior
from crnn.errors import OptionError
from crnn.spec import ModelSpec

BEAM = 16
"""How many prefixes of each length are followed where any text is possible and no beam was asked for."""


class Reading(NamedTuple):
    """A decoded word.

    ``confidence`` is the probability of ``text`` given all that is known: the model's output, which texts are possible,
    and how frequent they are. ``kept`` is the share of the model's own probability that lies on possible texts; None if
    all are, for want of a lexicon or of allowed characters. Without a prior, ``confidence * kept`` is the CTC
    probability of the text by the model alone.
    """

    text: str
    characters: tuple[ctc.Character, ...]
    confidence: float
    kept: float | None = None


class Decoder:
    """Decodes the output of models of one ``spec``, with any of these:

    Args:
        lexicon: the text is the one of its words with the highest CTC probability (Shi, Bai and Yao 2015, section
            2.3.2), found exactly, whatever its size.
        prior: texts count by their frequency as well: the words of the lexicon or, without one, any text.
        characters: only these may occur. The others' probability is taken from each frame, and the rest scaled to 1.
        beam: search for the most probable text, following so many prefixes of each length, instead of taking the best
            path's.

    Which text is chosen does not depend on the spec's temperature; the confidences have it.

    Raises OptionError for what a model of this spec cannot read, or what cannot be combined.
    """

    def __init__(
        self,
        spec: ModelSpec,
        lexicon: Lexicon | None = None,
        prior: Prior | None = None,
        characters: str | None = None,
        beam: int | None = None,
    ) -> None:
        if beam is not None and beam < 1:
            raise OptionError(f"the beam must be at least 1 wide, not {beam}")
        self.spec = spec
        self.known: dict[str, Any] = {}
        """What is known, as a report says it; empty if nothing is. Files have their path as name, and a SHA-256."""
        self.notes: tuple[str, ...] = ()
        """What a user should know about the lexicon, one line each."""
        self._beam, self._characters = beam, characters
        self._forbidden = _forbidden(spec, characters)
        self._weights, self._other = prior.weights(spec.charset) if prior is not None else ({}, 1.0)
        self._words: Words | None = None
        self._entries: dict[str, str] | None = None  # of the lexicon
        if prior is not None:
            if lexicon is None:
                short = {text: count for text, count in self._weights.items() if required_steps(text) <= spec.steps}
                if not short:
                    raise OptionError(f"{prior.name}: all of its words are too long for the model's {spec.steps} steps")
                self._words = Words.of(short, spec.charset)
            facts = {"name": prior.name, "sha256": prior.sha256, "words": len(prior.frequencies)}
            self.known["prior"] = {**facts, "weight": prior.weight}
        if characters is not None:
            self.known["characters"] = characters
        if beam is not None:
            self.known["beam"] = beam
        if lexicon is not None:
            self._close(lexicon)

    def with_lexicon(self, lexicon: Lexicon) -> Decoder:
        """The same with another lexicon."""
        other = copy(self)
        other._close(lexicon)
        return other

    def _close(self, lexicon: Lexicon) -> None:
        """Take words of the lexicon only. It is not kept itself, for readers remember decoders as long as it lives."""
        if self._beam is not None:
            raise OptionError(
                "a lexicon is always searched whole, a beam does nothing for it; give only one of the two"
            )
        self._entries, self.notes = lexicon.readable(self.spec, self._characters)
        counts = {text: self._weights.get(text, self._other) for text in self._entries}
        self._words = Words.of(counts, self.spec.charset)
        facts = {"name": lexicon.name, "sha256": lexicon.sha256, "words": len(lexicon)}
        self.known = {**self.known, "lexicon": {**facts, "readable": len(self._entries)}}

    def decode(self, logp: Scores) -> list[Reading]:
        """The N words of ``logp``, float[T, N, C] log-probabilities; a word does not depend on the others.

        ``characters`` are those that the network wrote, with the frames of their most probable path; a lexicon's
        spelling may have others. Where no text is possible the text is empty, and confidence and kept are 0.

        Raises EngineError as :func:`crnn.ctc.decode` does.
        """
        ctc.check(logp, self.spec.charset)
        if not logp.shape[1]:
            return []
        charset = self.spec.charset
        plain, _ = _without(self._forbidden, logp)
        tempered, kept = _without(self._forbidden, ctc.tempered(logp, self.spec.temperature))
        if self._words is None and self._beam is None:
            words = [_possible(word) for word in ctc.describe(tempered, ctc.greedy(plain), charset)]
            confidences = [word.confidence for word in words]
        else:
            if self._entries is not None and self._words is not None:
                chosen = among(self._words, plain, tempered)
            else:
                chosen = of_all(self._words, self._weights, self._other, self._beam or BEAM, charset, plain, tempered)
            words = ctc.describe(tempered, align(plain, chosen.codes), charset)
            confidences = chosen.confidences.tolist()
            kept = kept * chosen.kept
        everything = self._entries is None and self._characters is None
        shares = [None] * len(words) if everything else kept.tolist()
        spelled = self._entries or {}
        return [
            Reading(spelled.get(word.text, word.text), word.characters, confidence, share)
            for word, confidence, share in zip(words, confidences, shares, strict=True)
        ]

    def probabilities(self, logp: Scores, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability of a text of each of the N words of ``logp``, float64[N], as :meth:`decode` works it out.

        Raises OptionError where more is known than which characters are allowed.
        """
        if self._words is not None or self._beam is not None:
            raise OptionError("with a lexicon, a prior or a beam, the probability is that of the text decoded alone")
        tempered, _ = _without(self._forbidden, ctc.tempered(logp, self.spec.temperature))
        return np.minimum(np.exp(ctc.log_probability(tempered, texts, self.spec.charset)), 1.0)


def _possible(word: ctc.Decoded) -> ctc.Decoded:
    """No text instead of a best path's that has a frame in which nothing allowed can be."""
    return word if word.log_probability > -np.inf else ctc.Decoded("", (), -np.inf)


def _forbidden(spec: ModelSpec, characters: str | None) -> Indices:
    """The classes of all other characters than these."""
    if characters is None:
        return np.empty(0, np.intp)
    if not characters:
        raise OptionError("no characters are allowed; give at least one")
    if unknown := [c for c in dict.fromkeys(characters) if not spec.charset.can_encode(c)]:
        what = ", ".join(map(repr, unknown))
        raise OptionError(f"allowed characters: the model has no {what}; it has {spec.charset.symbols}")
    return np.array([k for k, symbol in enumerate(spec.charset.symbols, 1) if symbol not in characters], np.intp)


def _without(classes: Indices, logp: Scores) -> tuple[Scores, NDArray[np.float64]]:
    """The posterior if these classes cannot be, and the probability that they are not, float64[N].

    Frames are independent of each other in CTC, so this is the distribution over all paths without these classes.
    """
    if not len(classes):
        return logp, np.ones(logp.shape[1])
    masked = logp.astype(np.float64)
    masked[:, :, classes] = -np.inf
    with np.errstate(divide="ignore"):
        left = np.log(np.exp(masked).sum(axis=2))
    masked -= np.where(np.isneginf(left), 0.0, left)[:, :, None]  # where nothing else can be, nothing is left
    return masked, np.minimum(np.exp(left.cumsum(axis=0)[-1]), 1.0)  # sum() adds in another order for other N
