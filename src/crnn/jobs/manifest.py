"""``_job.json``: what a job reads, with what, and how far it is; what it must not be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import crnn
from crnn.datasets.tar import why
from crnn.decoding.lexicon import Prior, as_lexicon
from crnn.errors import DatasetError, OptionError
from crnn.evaluation.report import model_entries
from crnn.jobs.listing import Facts
from crnn.jobs.storage import Place, public, replaced
from crnn.jobs.units import Layout
from crnn.reader import Reader
from crnn.second_look import KNOWN

MANIFEST = "_job.json"

SCHEMA = "crnn.job/1"


def read_by(reader: Reader) -> dict[str, Any]:
    """``model`` {path, sha256}, ``engine`` {name, version, precision, device}, ``temperature``, ``notes``."""
    entries = model_entries(reader.network)
    engine = {**entries["engine"], "device": reader.network.device}
    return {**entries, "engine": engine, "notes": list(reader.notes)}


def options(layout: Layout, reader: Mapping[str, Any], characters: bool) -> dict[str, Any]:
    """What decides, beside the model, what rows there are and what is in them. ``reader``: the Reader's arguments."""
    known: dict[str, Any] = {}
    if reader.get("lexicon") is not None:
        lexicon = as_lexicon(reader["lexicon"])
        known["lexicon"] = {"name": lexicon.name, "words": len(lexicon), "sha256": _sha256(list(lexicon.words))}
    if isinstance(prior := reader.get("prior"), Prior):
        frequencies = dict(prior.frequencies)
        facts = {"name": prior.name, "words": len(frequencies), "sha256": _sha256(frequencies)}
        known["prior"] = {**facts, "weight": prior.weight}
    for name in ("characters", "beam", "pixel_limit"):
        if reader.get(name) is not None:
            known[name] = reader[name]
    if reader.get("second_look"):
        known["second_look"] = KNOWN
    return {
        "words_a_part": layout.words,
        "image_column": layout.image_column,
        "source_column": layout.source_column,
        "with_characters": characters,
        "knowledge": known,
    }


def manifest(base: Place, facts: Facts, read_with: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A job that begins::

        {schema, id, crnn, input: {url, parts, files, words, bytes, sha256}, model: {path, sha256},
         engine: {name, version, precision, device}, temperature, notes, options, counts: {parts, words, errors},
         seconds, complete}

    ``input.words`` is null where only reading tells. ``counts`` and ``seconds`` are those of the last orderly end.
    """
    made = {
        "schema": SCHEMA,
        "crnn": crnn.__version__,
        "input": {"url": base.url, **facts._asdict()},
        **read_with,
        "options": dict(chosen),
    }
    counts = {"parts": 0, "words": 0, "errors": 0}
    job = _sha256([made["input"], *_must_stay(made)])[:16]
    return {"id": job, **made, "counts": counts, "seconds": 0.0, "complete": False}


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _must_stay(job: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the rows come from, under the names that a user knows; all but the input."""
    chosen = {name: value for name, value in job["options"].items() if name != "knowledge"}
    for name, value in job["options"]["knowledge"].items():
        # a list of words may lie elsewhere now
        weight = f", weight {value['weight']:g}" if name == "prior" else ""
        chosen[name] = f"{_content(value)}{weight}" if isinstance(value, dict) else value
    return [
        ("model", _content(job["model"])),
        ("engine", job["engine"]["name"]),
        ("precision", job["engine"]["precision"]),
        *([("int8 ranges", job["engine"]["ranges"])] if "ranges" in job["engine"] else []),
        ("temperature", job["temperature"]),  # which need not lie in the model's file
        *sorted(chosen.items()),
    ]


def _content(of: Mapping[str, Any]) -> str:
    return f"sha256 {of['sha256'][:16]}"


def check(output: Place, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise OptionError, naming the first thing, if ``now`` would not go on with what ``then`` began."""
    began, goes_on = (public(job["input"]["url"]) for job in (then, now))  # older ones hold passwords
    if began != goes_on:
        raise _other(output, "input", began, goes_on)
    was, is_now = dict(_must_stay(then)), dict(_must_stay(now))
    for name in sorted(was | is_now):
        if was.get(name) != is_now.get(name):
            raise _other(output, name, was.get(name), is_now.get(name))


def _other(output: Place, name: str, was: Any, is_now: Any) -> OptionError:
    was, is_now = ("none" if value is None else str(value) for value in (was, is_now))
    what = f"the job in this folder has another {name.replace('_', ' ')} ({was}, not {is_now})"
    return OptionError(f"{output}: {what}; give what it began with, or another folder")


def load(output: Place) -> dict[str, Any] | None:
    """The job in a folder, if there is one. Raises DatasetError if it cannot be read or is not ours."""
    file = output / MANIFEST
    try:
        found = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:
        raise DatasetError(f"{file}: cannot be read ({why(error)})") from None
    try:
        if found["schema"] == SCHEMA and isinstance(found["id"], str):
            _must_stay(found), found["input"]["url"], found["counts"], found["seconds"] + 0
            return dict(found)
    except (KeyError, TypeError, AttributeError):
        pass
    raise DatasetError(f"{file}: was not written by this version of crnn job; give another folder")


def save(output: Place, job: Mapping[str, Any]) -> None:
    """Write ``_job.json``, whole or not at all. Raises OptionError."""
    with replaced(output / MANIFEST) as file:
        file.write(json.dumps(job, indent=1, ensure_ascii=True).encode() + b"\n")
