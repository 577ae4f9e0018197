"""What words of a result looked like and what the network saw in them: data sets and model, opened again."""

from __future__ import annotations

import base64
import io
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine, open_engine
from crnn.errors import CrnnError, OptionError
from crnn.evaluation.protocols import alnum36
from crnn.evaluation.report import model_entries
from crnn.evaluation.saved import word_number
from crnn.images import normalise, prepare
from crnn.spec import ModelSpec

Pick = tuple[int, dict[str, Any]]
"""A word of a report, behind the number of its data set there."""
Progress = Callable[[str], None]
"""Called with what is looked at next."""

_PICTURE = (480, 192)  # larger pictures are made smaller: a few kilobytes each
_BATCH = 64


@dataclass(frozen=True)
class Picture:
    """A small copy of a word's picture."""

    uri: str
    """The whole of it, as a ``data:`` address."""
    width: int
    height: int


@dataclass(frozen=True)
class Seen:
    """What is left to see of a word. ``problem`` says why there is less than there could be."""

    picture: Picture | None = None
    posterior: NDArray[np.floating[Any]] | None = None
    """[steps, classes], the probability of each class in each frame, at the spec's temperature."""
    decoded: ctc.Decoded | None = None
    label_probability: float | None = None
    """The CTC probability of the label; None if it can't be written in the charset."""
    problem: str | None = None


@dataclass(frozen=True)
class Reopened:
    """What :func:`reopen` found: the words in the order they were asked for, the model's spec if it runs, and what a
    reader has to know about both.
    """

    words: tuple[Seen, ...]
    spec: ModelSpec | None
    notes: tuple[str, ...]


def reopen(
    report: Mapping[str, Any],
    picks: Sequence[Pick],
    *,
    beside: Path,
    model: Path | None = None,
    datasets: Sequence[Path] = (),
    network: bool = True,
    progress: Progress | None = None,
) -> Reopened:
    """The pictures of words of a report and, with ``network``, what the model makes of them.

    Data sets and model are looked for where the report says, from the working folder or from ``beside``, the report's.
    ``datasets`` and ``model`` say where they are now: a data set is recognised by its content, or by being the only
    one. What is gone, or has another SHA-256 than the report says, is told in the notes. A picture is only taken for a
    word's if its label is still the word's.

    Raises OptionError, DatasetError or ModelError for what ``datasets`` and ``model`` name; nothing else.
    """
    notes: list[str] = []
    tell = progress or (lambda _: None)
    readers = _readers(report, datasets, beside, notes, tell)
    engine = _engine(report, model, beside, notes, tell) if network and picks else None
    seen: list[Seen] = []
    inputs: dict[int, NDArray[np.uint8]] = {}
    stored: dict[int, str] = {}
    tell("words")
    for k, (which, word) in enumerate(picks):
        try:
            picture, stored[k], pixels = _load(readers[which], word, engine)
            seen.append(Seen(picture))
            if pixels is not None:
                inputs[k] = pixels
        except CrnnError as error:
            seen.append(Seen(problem=str(error)))
    if engine is not None:
        try:
            _read(engine, picks, inputs, stored, seen)
        except CrnnError as error:
            notes.append(f"the model cannot read the words again: {error}")
            engine = None
    return Reopened(tuple(seen), engine.spec if engine else None, tuple(notes))


def _readers(
    report: Mapping[str, Any], given: Sequence[Path], beside: Path, notes: list[str], tell: Progress
) -> list[LmdbReader | None]:
    """The data sets of a report, in its order; None where there is none."""
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


def _engine(
    report: Mapping[str, Any], model: Path | None, beside: Path, notes: list[str], tell: Progress
) -> Engine | None:
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
        engine = _as_before(place, used, notes)
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


def _as_before(place: Path, used: Mapping[str, str] | None, notes: list[str]) -> Engine:
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


def _load(
    reader: LmdbReader | None, word: Mapping[str, Any], engine: Engine | None
) -> tuple[Picture, str, NDArray[np.uint8] | None]:
    """(a word's picture, its label as stored, its pixels for the network). Raises CrnnError if there are none."""
    if reader is None:
        raise CrnnError("its data set cannot be opened")
    number = word_number(word["key"])
    wanted = f"image-{number:09d}" if number is not None else ""
    i = bisect_left(range(len(reader)), wanted, key=reader.key)
    if i == len(reader) or reader.key(i) != wanted:
        raise CrnnError(f"the data set has no word {word['key']}")
    stored = reader.label(i)
    if word["label"] not in (stored, stored.lower(), alnum36(stored)):
        raise CrnnError(f"the data set's label of {reader.key(i)} is {stored!r} now")
    pixels = None if engine is None else prepare(reader.image(i, engine.spec.picture_mode), engine.spec)
    return _small(reader.image(i, "RGB")), stored, pixels


def _small(image: Image.Image) -> Picture:
    image.thumbnail(_PICTURE)
    kind = "WEBP" if features.check("webp") else "PNG"
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{data}", image.width, image.height)


def _read(
    engine: Engine,
    picks: Sequence[Pick],
    inputs: Mapping[int, NDArray[np.uint8]],
    stored: Mapping[int, str],
    seen: list[Seen],
) -> None:
    """Add to ``seen`` what the network makes of the ``inputs``, by the place of their words there."""
    spec = engine.spec
    places = list(inputs)
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        logp = engine.run(normalise(np.stack([inputs[k] for k in batch]), spec))
        decoded = ctc.decode(logp, spec.charset, spec.temperature)
        tempered = ctc.tempered(logp, spec.temperature)
        for n, k in enumerate(batch):
            probability = None
            for label in (stored[k], picks[k][1]["label"]):  # what is stored has its capitals and punctuation
                if probability is None and spec.charset.can_encode(label):
                    one = ctc.log_probability(tempered[:, n : n + 1], [label], spec.charset)
                    probability = min(1.0, math.exp(one[0]))
            seen[k] = replace(
                seen[k], posterior=np.exp(tempered[:, n]), decoded=decoded[n], label_probability=probability
            )


def _place(path: str, beside: Path) -> Path | None:
    """Where ``path`` is: as it stands, or from the folder ``beside``; None if it is gone."""
    return next((place for place in (Path(path), beside / path) if place.exists()), None)
