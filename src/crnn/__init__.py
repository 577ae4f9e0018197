"""Reads words in pictures with a CRNN.

The names below are loaded when first used: ``import crnn`` itself costs nothing and pulls in no other library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crnn.charset import Charset
    from crnn.decoding.lexicon import Lexicon, Prior
    from crnn.errors import CrnnError
    from crnn.reader import Item, Reader
    from crnn.spec import ModelSpec
    from crnn.word import Character, Word

__version__ = "0.1.0"
__all__ = [
    "Character",
    "Charset",
    "CrnnError",
    "Item",
    "Lexicon",
    "ModelSpec",
    "Prior",
    "Reader",
    "Word",
    "__version__",
]

_HOMES = {
    "Character": "crnn.word",
    "Charset": "crnn.charset",
    "CrnnError": "crnn.errors",
    "Item": "crnn.reader",
    "Lexicon": "crnn.decoding.lexicon",
    "ModelSpec": "crnn.spec",
    "Prior": "crnn.decoding.lexicon",
    "Reader": "crnn.reader",
    "Word": "crnn.word",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access doesn't come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
