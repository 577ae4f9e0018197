"""What a result was made with, opened again: its data sets, its model, and what was known of the texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.decoder import Decoder
from crnn.decoding.lexicon import Lexicon, Prior
from crnn.engines import Engine, open_engine
from crnn.errors import CrnnError, OptionError
from crnn.evaluation.lists import Lists
from crnn.evaluation.report import model_entries
from crnn.spec import ModelSpec

Progress = Callable[[str], None]
"""Called with what is looked at next."""


def open_datasets(
    report: Mapping[str, Any], given: Sequence[Path], beside: Path, notes: list[str], tell: Progress
) -> list[LmdbReader | None]:
    """The data sets of a report, in its order; None where there is none. Those ``given`` must be among them.

    Raises DatasetError or OptionError for those ``given``; what else is wrong goes into ``notes``.
    """
    entries = report["datasets"]
    offered: dict[str, LmdbReader] = {}
    for path in given:
        tell(path.name)
        reader = LmdbReader(path)
        sha256 = reader.sha256()
        if len(entries) == len(given) == 1:
            _compare_content(reader, sha256, entries[0], notes)
            return [reader]
        if sha256 not in [data["sha256"] for data in entries]:
            count = f"{len(entries)} data set{'s' if len(entries) > 1 else ''}"
            raise OptionError(f"{path}: is none of the result's {count} (its sha256 is another)")
        offered[sha256] = reader
    return [
        offered[data["sha256"]] if data["sha256"] in offered else _reader(data, beside, notes, tell) for data in entries
    ]


def _reader(data: Mapping[str, Any], beside: Path, notes: list[str], tell: Progress) -> LmdbReader | None:
    """A data set where the report says it is."""
    where = "(--dataset says where it is)"
    place = _place(data["path"], beside)
    if place is None:
        notes.append(f"{data['path']}: the data set is gone, so its words have no pictures {where}")
        return None
    tell(place.name)
    reader = LmdbReader(place)
    try:
        _compare_content(reader, reader.sha256(), data, notes)
    except CrnnError as error:
        notes.append(f"no pictures of this data set's words: {error} {where}")
        return None
    return reader


def _compare_content(reader: LmdbReader, sha256: str, data: Mapping[str, Any], notes: list[str]) -> None:
    if sha256 != data["sha256"]:
        what = f"another content than when {Path(data['path']).name} was read"
        shas = f"sha256 {sha256[:12]}…, not {data['sha256'][:12]}…"
        notes.append(f"{reader.path}: {what} ({shas}): words are found by key and label")


def open_as_before(
    report: Mapping[str, Any], model: Path | None, beside: Path, notes: list[str], tell: Progress
) -> Engine | None:
    """The model of a report in the engine it ran in, or ``model``; None, with a note, if it is gone or does not open.

    Raises ModelError or EngineError if ``model`` does not open.
    """
    source, used = report["model"], report["engine"]
    where = "(--model says where it is)"
    if model is None:
        if source is None:
            notes.append("the result does not say what model read the words, so no posteriors (--model names it)")
            return None
        place = _place(source["path"], beside)
        if place is None:
            notes.append(f"{source['path']}: the model is gone, so there are no posteriors {where}")
            return None
    else:
        place = model
    tell(place.name)
    try:
        engine = _in_engine(place, used, notes)
    except (CrnnError, ImportError) as error:
        if model is not None:
            raise
        notes.append(f"{place}: the model does not open, so there are no posteriors: {error} {where}")
        return None
    sha256 = model_entries(engine)["model"]["sha256"]
    if source is not None and sha256 != source["sha256"]:
        what = f"not the model that read the words (sha256 {sha256[:12]}…, not {source['sha256'][:12]}…)"
        notes.append(f"{place}: {what}: posteriors are those of the model as it is now")
    return engine


def _in_engine(place: Path, used: Mapping[str, str] | None, notes: list[str]) -> Engine:
    """``place`` in the engine and precision it ran in, or else in another, with a note."""
    if used is None:
        return open_engine(place)
    try:
        return open_engine(place, used["name"], None, used["precision"])
    except (CrnnError, ImportError) as error:
        engine = open_engine(place)
        now = f"posteriors are drawn with {engine.name} in {engine.precision}"
        notes.append(f"the words were read with {used['name']} in {used['precision']}; {now} ({error})")
        return engine


def decoding_of(
    report: Mapping[str, Any],
    spec: ModelSpec,
    readers: Sequence[LmdbReader | None],
    beside: Path,
    lexicon: Path | None,
    prior: Path | None,
) -> tuple[Decoder, Lists | None]:
    """What the words of a ``report`` were decoded with, for a model of this ``spec``, as
    :func:`crnn.evaluation.lists.decode` takes it.

    ``readers`` are the report's data sets, from whose labels lists are drawn again. The files of a lexicon and of a
    prior are looked for where the report says, from the working folder or from ``beside``, if they are not given.

    Raises OptionError, which says what is missing, if words cannot be decoded as they were: data sets or a file are
    gone or have another SHA-256, or the model cannot give any of the texts.
    """
    known = report.get("knowledge") or {}
    lists = None
    if drawn := known.get("lists"):
        lists = Lists.of(_unchanged(report["datasets"], readers), drawn["size"], drawn["seed"], report["protocol"])
    words = frequencies = None
    if place := _file(known, "lexicon", lexicon, beside):
        words = Lexicon.from_file(place)
        _compare(place, words.sha256, known["lexicon"], "lexicon")
    if place := _file(known, "prior", prior, beside):
        frequencies = Prior.from_file(place, known["prior"]["weight"])
        _compare(place, frequencies.sha256, known["prior"], "prior")
    return Decoder(spec, words, frequencies, known.get("characters"), known.get("beam")), lists


def _unchanged(datasets: Sequence[Mapping[str, Any]], readers: Sequence[LmdbReader | None]) -> list[LmdbReader]:
    """The ``readers``, if all of them are there, with the content that the ``datasets`` of a report had."""
    found = []
    for data, reader in zip(datasets, readers, strict=True):
        if reader is None or reader.sha256() != data["sha256"]:
            what = "gone" if reader is None else "another one now"
            raise OptionError(f"{data['path']}: lists were drawn from the labels of this data set, which is {what}")
        found.append(reader)
    return found


def _file(known: Mapping[str, Any], what: str, given: Path | None, beside: Path) -> Path | None:
    """Where the file of the lexicon or of the prior is; None if there was none."""
    facts = known.get(what)
    if facts is None:
        if given is not None:
            raise OptionError(f"{given}: the words were read without a {what}; leave --{what} out")
        return None
    if given is not None:
        return given
    if facts.get("sha256") is None:
        raise OptionError(f"the result does not say what file the {what} is from (--{what} names it)")
    place = _place(facts["name"], beside)
    if place is None:
        raise OptionError(f"{facts['name']}: the {what} is gone (--{what} says where it is)")
    return place


def _compare(place: Path, sha256: str | None, facts: Mapping[str, Any], what: str) -> None:
    before = facts.get("sha256")
    if before is not None and sha256 != before:
        shas = f"sha256 {str(sha256)[:12]}…, not {before[:12]}…"
        raise OptionError(f"{place}: not the {what} that words were read with ({shas}; --{what} says where that is)")


def _place(path: str, beside: Path) -> Path | None:
    """Where ``path``, which a result names, is: as it stands, or from the folder ``beside``; None if it is gone."""
    return next((place for place in (Path(path), beside / path) if os.path.exists(place)), None)
