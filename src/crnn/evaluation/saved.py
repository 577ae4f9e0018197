"""Results that were written to a file (``crnn evaluate --json``, ``crnn score --json``), read back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crnn.errors import DatasetError
from crnn.evaluation.report import SCHEMA, dataset_entry, report
from crnn.protocols import COMPARED

_TEXTS = ("key", "label", "text")
_KNOWN: dict[str, tuple[str, ...]] = {
    "lists": ("size", "seed", "drawn_from"),
    "lexicon": ("words", "readable"),
    "prior": ("words", "weight"),
}
"""Numbers that `knowledge` has of each of these."""
_NUMBER = re.compile(r"(?<![0-9])0*([0-9]{1,18})[^0-9]*$")


def load_result(path: Path) -> dict[str, Any]:
    """The report in the file ``path``, as :func:`crnn.evaluation.evaluate.evaluate` describes it.

    Its figures are worked out anew from its words, so that they are those of the words whatever wrote the file.

    Raises DatasetError if the file cannot be read, holds something else, or a word in it is incomplete.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); it must be what `crnn evaluate --json` writes") from None
    if isinstance(found, dict) and found.get("title") == "Overall statistical evaluation":
        raise DatasetError(f"{path}: ModelZoo's figures, without the words; write it again with --schema crnn")
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        said = repr(found.get("schema"))[:60] if isinstance(found, dict) else "no object"
        raise DatasetError(f"{path}: no result of `crnn evaluate --json` (its schema is {said}, not {SCHEMA!r})")
    try:
        return _checked(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{path}: damaged ({what}); run `crnn evaluate --json` again") from None


def word_number(key: str) -> int | None:
    """The number a word's key ends in, which its file and its data set share: 5 of ``test_5.bin``, ``image-000000005``.

    None if there is none.
    """
    found = _NUMBER.search(key)
    return int(found[1]) if found else None


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    entries = []
    for data in found["datasets"]:
        words = [_word(word) for word in data["words"]]
        if not words:
            raise ValueError("a data set without words")
        skipped = [{"key": _text(each, "key"), "reason": _text(each, "reason")} for each in data["skipped"]]
        speed = data["words_per_second"]
        if speed is not None and not (isinstance(speed, int | float) and 0 < speed < math.inf):
            raise ValueError(f"words_per_second is {speed!r}")
        seconds = None if speed is None else len(words) / speed
        entries.append(dataset_entry(_text(data, "path"), _text(data, "sha256"), words, skipped, seconds))
    if not entries:
        raise ValueError("no data set in it")
    model, engine, temperature = found["model"], found["engine"], float(found["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}")
    source = {
        "model": None if model is None else {key: _text(model, key) for key in ("path", "sha256")},
        "engine": None if engine is None else {key: _text(engine, key) for key in ("name", "version", "precision")},
        "temperature": temperature,
    }
    measured = found.get("measured")  # which older reports do not say, nor those of result files
    source["measured"] = {key: _text(measured, key) for key in ("crnn", "device", "processor")} if measured else None
    protocol, subset = _text(found, "protocol"), _text(found, "subset")
    if protocol not in COMPARED:
        raise ValueError(f"protocol is {protocol!r:.60}")
    knowledge = _knowledge(found.get("knowledge") or {})
    return report(entries, source, protocol=protocol, subset=subset, knowledge=knowledge)


def _word(word: Mapping[str, Any]) -> dict[str, Any]:
    shares = ("confidence", "kept") if "kept" in word else ("confidence",)
    return {**{key: _text(word, key) for key in _TEXTS}, **{key: _share(word, key) for key in shares}}


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r:.60}, not a text")
    value.encode()  # half of a surrogate pair is a ValueError
    return value


def _share(word: Mapping[str, Any], key: str) -> float:
    value = word[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{key} of {word['key']!r} is {value!r}")
    return float(value)


def _knowledge(found: Mapping[str, Any]) -> dict[str, Any]:
    """What words were decoded with, known to have what others look at."""
    for name, numbers in _KNOWN.items():
        if (facts := found.get(name)) is None:
            continue
        for key in numbers:
            kind = int | float if key == "weight" else int
            if isinstance(facts[key], bool) or not isinstance(facts[key], kind) or not 0 <= facts[key] < math.inf:
                raise ValueError(f"{key} of the {name} is {facts[key]!r}")
        if name != "lists":
            _text(facts, "name")
            if facts.get("sha256") is not None:
                _text(facts, "sha256")
    for name in ("characters", "second_look"):
        if name in found:
            _text(found, name)
    if not isinstance(found.get("beam", 1), int):
        raise TypeError(f"the beam is {found['beam']!r}")
    return dict(found)
