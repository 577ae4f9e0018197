"""What of a label and of a prediction counts when the two are compared."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from crnn.charset import Charset

Protocol = Literal["alnum36", "raw"]
"""What of a text counts: 0-9 and a-z only, in lower case; or all of it, as it is. Reports write these names."""

ALNUM36: Protocol = "alnum36"

_KEPT = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


def alnum36(text: str) -> str:
    """Lower-cased, and everything outside ``[0-9a-z]`` removed: the field's case-insensitive 36-character protocol."""
    return "".join(character for character in text.lower() if character in _KEPT)


COMPARED: dict[Protocol, Callable[[str], str]] = {"alnum36": alnum36, "raw": str}
"""What of a text is compared under each protocol."""


def protocol_of(charset: Charset) -> Protocol:
    """The protocol that a network of this charset is trained and evaluated under.

    It is alnum36 where the charset is just those 36 characters; else raw: whoever names characters means them, capitals
    and punctuation too, so no label is changed before it is compared.
    """
    return "alnum36" if set(charset.symbols) == _KEPT else "raw"


def dropped(labels: Iterable[str]) -> Counter[str]:
    """What :func:`alnum36` takes away from ``labels``: number of characters by reason.

    The reasons are "space", "punctuation or symbol", "letter or digit outside 0-9a-z" and "other" (control characters,
    combining marks, ...); "empty label" counts labels of which nothing is left.
    """
    counts: Counter[str] = Counter()
    for label in labels:
        lowered = label.lower()
        counts.update(_reason(character) for character in lowered if character not in _KEPT)
        if not alnum36(label):
            counts["empty label"] += 1
    return counts


def _reason(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace():
        return "space"
    if category[0] in "PS":
        return "punctuation or symbol"
    if category[0] in "LN":
        return "letter or digit outside 0-9a-z"
    return "other"
