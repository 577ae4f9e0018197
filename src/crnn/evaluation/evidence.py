"""What words of a result looked like and what the network saw in them: data sets and model, opened again."""

from __future__ import annotations

import base64
import io
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.decoder import Decoder, Reading
from crnn.engines import Engine
from crnn.errors import CrnnError
from crnn.evaluation.lists import Lists, decode
from crnn.evaluation.saved import word_number
from crnn.evaluation.sources import Progress, decoding_of, open_as_before, open_datasets
from crnn.images import normalise, prepare
from crnn.protocols import alnum36
from crnn.second_look import look_again
from crnn.spec import ModelSpec

Pick = tuple[int, dict[str, Any]]
"""A word of a report, behind the number of its data set there."""

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
    decoded: Reading | None = None
    """What is read in it now, with what the report says was known of the texts."""
    label_probability: float | None = None
    """The CTC probability of the label, by the network alone; None if it can't be written in the charset."""
    problem: str | None = None


class _Input(NamedTuple):
    """A word on its way through the network: its pixels, its label as stored, its place in the data set."""

    pixels: NDArray[np.uint8]
    label: str
    place: int


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
    lexicon: Path | None = None,
    prior: Path | None = None,
    network: bool = True,
    progress: Progress | None = None,
) -> Reopened:
    """The pictures of words of a report and, with ``network``, what the model makes of them.

    Data sets, model, and the files of a lexicon or a prior are looked for where the report says, from the working
    folder or from ``beside``, the report's; the arguments of these names say where they are now. A data set is
    recognised by its content, or by being the only one. What is gone, or has another SHA-256 than the report says, is
    told in the notes. A picture is only taken for a word's if its label is still the word's.

    Without the very lexicon or prior that words were read with, or the data sets that lists were drawn from, words are
    not read again.

    Raises OptionError, DatasetError or ModelError for what these arguments name; nothing else.
    """
    notes: list[str] = []
    tell = progress or (lambda _: None)
    readers = open_datasets(report, datasets, beside, notes, tell)
    engine = open_as_before(report, model, beside, notes, tell) if network and picks else None
    decoding: tuple[Decoder, Lists | None] | None = None
    again = bool((report.get("knowledge") or {}).get("second_look"))
    try:
        decoding = decoding_of(report, engine.spec, readers, beside, lexicon, prior) if engine is not None else None
    except CrnnError as error:
        if lexicon is not None or prior is not None:
            raise
        notes.append(f"words are not read again, so there are no posteriors: {error}")
    seen: list[Seen] = []
    inputs: dict[int, _Input] = {}
    tell("words")
    for k, (which, word) in enumerate(picks):
        try:
            reader, i = _find(readers[which], word)
            picture = _small(reader.image(i, "RGB"))
            if engine is not None and decoding is not None:
                pixels = prepare(reader.image(i, engine.spec.picture_mode), engine.spec)
                inputs[k] = _Input(pixels, reader.label(i), i)
            seen.append(Seen(picture))
        except CrnnError as error:
            seen.append(Seen(problem=str(error)))
    if engine is None or decoding is None:
        return Reopened(tuple(seen), None, tuple(notes))
    try:
        _read(engine, *decoding, picks, inputs, seen, second_look=again)
    except CrnnError as error:
        notes.append(f"the model cannot read the words again: {error}")
        return Reopened(tuple(seen), None, tuple(notes))
    if again:
        notes.append("posteriors and characters are of the first look at a word; texts of later ones have none")
    return Reopened(tuple(seen), engine.spec, tuple(notes))


def _find(reader: LmdbReader | None, word: Mapping[str, Any]) -> tuple[LmdbReader, int]:
    """The data set of a word, and its index there. Raises CrnnError if it is not there any more."""
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
    return reader, i


def _small(image: Image.Image) -> Picture:
    image.thumbnail(_PICTURE)
    kind = "WEBP" if features.check("webp") else "PNG"
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{data}", image.width, image.height)


def _read(
    engine: Engine,
    decoder: Decoder,
    lists: Lists | None,
    picks: Sequence[Pick],
    inputs: Mapping[int, _Input],
    seen: list[Seen],
    second_look: bool,
) -> None:
    """Add to ``seen`` what the network makes of the ``inputs``, by the place of their words there."""
    spec = engine.spec
    places = list(inputs)
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        words = [inputs[k] for k in batch]
        pixels = np.stack([word.pixels for word in words])
        logp = engine.run(normalise(pixels, spec))
        decoded = decode(decoder, lists, logp, [(picks[k][1]["label"], inputs[k].place) for k in batch])
        if second_look:
            looks = look_again(pixels, logp, decoded, decoder, engine.run)
            decoded = [word if zoom == 1 else word._replace(characters=()) for word, zoom in looks]
        tempered = ctc.tempered(logp, spec.temperature)
        for n, k in enumerate(batch):
            probability = None
            for label in (words[n].label, picks[k][1]["label"]):  # what is stored has its capitals and punctuation
                if probability is None and spec.charset.can_encode(label):
                    one = ctc.log_probability(tempered[:, n : n + 1], [label], spec.charset)
                    probability = min(1.0, math.exp(one[0]))
            seen[k] = replace(
                seen[k], posterior=np.exp(tempered[:, n]), decoded=decoded[n], label_probability=probability
            )
