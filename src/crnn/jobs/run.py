"""A job from its beginning, or from where it was, to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn.errors import DatasetError, OptionError
from crnn.jobs import listing, manifest
from crnn.jobs.reading import INPUT, Plan, TooManyErrors, read_parts
from crnn.jobs.shards import Done, finished, numbers, schema
from crnn.jobs.storage import Place, base_name, is_left_over, make_folder, place
from crnn.jobs.units import Layout, takes
from crnn.reader import Reader
from crnn.word import Word


@dataclass(frozen=True)
class Job:
    """What is to be read, with what, and to where.

    ``input`` and ``output`` are paths or URLs. ``reader`` holds the arguments of :class:`crnn.Reader`;
    ``characters`` asks for every word's characters. More than ``max_errors`` pictures that cannot be read stop the job.
    """

    input: str
    output: str
    reader: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    characters: bool = False
    max_errors: int | None = None


@dataclass
class Status:
    """How far a job is."""

    parts: int
    """In all."""
    total: int | None
    """Words in all; None where only reading tells."""
    words: int = 0
    """Read, those of earlier runs included."""
    errors: int = 0
    parts_done: int = 0
    there: int = 0
    """Words that earlier runs had read."""
    fraction: float = 0.0
    """Of the whole job."""
    began_at: float = 0.0
    """The fraction that earlier runs had done."""
    seconds: float = 0.0
    """That reading has taken in this run."""

    @property
    def speed(self) -> float:
        """Words a second, in this run."""
        return (self.words - self.there) / self.seconds if self.seconds else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that are left, as it has gone so far; None as long as nothing can be said."""
        done = self.fraction - self.began_at
        return self.seconds * (1 - self.fraction) / done if done > 0 else None


class Runner(Protocol):
    """What reads the parts: this process (:class:`Here`), or :class:`crnn.jobs.onray.OnRay`."""

    def read_by(self, reader: Mapping[str, Any]) -> dict[str, Any]:
        """What will read (:func:`crnn.jobs.manifest.read_by`), with a Reader of these arguments."""
        ...

    def read(self, plan: Plan, parts: list[int], tick: Callable[[int, int], None]) -> Generator[Done, None, None]:
        """Read parts, in any order; ``tick`` is told (words, errors) more, as they are read or with a whole part."""
        ...


class Here:
    """Reads in this process, with one Reader."""

    def __init__(self) -> None:
        self._reader: Reader | None = None

    def read_by(self, reader: Mapping[str, Any]) -> dict[str, Any]:
        """What reads: the Reader is opened."""
        self._reader = Reader(**reader)
        return manifest.read_by(self._reader)

    def read(self, plan: Plan, parts: list[int], tick: Callable[[int, int], None]) -> Generator[Done, None, None]:
        """Read the parts in order; raises what :func:`crnn.jobs.reading.read_parts` raises."""
        assert self._reader is not None

        def one(word: Word) -> None:
            tick(1, word.error is not None)

        return read_parts(plan, self._reader, parts, one)


def run(job: Job, runner: Runner, progress: Callable[[Status], None] = lambda status: None) -> dict[str, Any]:
    """Do what is left of a job; returns its manifest (:func:`crnn.jobs.manifest.manifest`), complete.

    ``progress`` is called for every word or so. Stopped by an exception, Ctrl-C or a kill, the job goes on where it was
    when it is run again: parts whose results are there are not read again.

    Raises :class:`TooManyErrors`; OptionError if the folder has another job, the input has changed since, or results
    cannot be written; DatasetError if the input cannot be read; ModelError or EngineError.
    """
    source, output = place(job.input), place(job.output)
    _check_apart(source, output)
    began = manifest.load(output)
    read_with = runner.read_by(job.reader)
    chosen = manifest.options(job.layout, job.reader, job.characters)
    base, rows = listing.scan(source, job.layout)
    if began is None:
        began = _begin(output, base, rows, read_with, chosen)
    else:
        manifest.check(output, began, {"input": {"url": base.url}, **read_with, "options": chosen})
        listing.check(rows, output / INPUT)
    known = any(job.reader.get(name) is not None for name in ("lexicon", "characters"))
    plan = Plan(base, output, began["id"], job.layout, schema(job.characters, known))
    there = finished(output, plan.job)
    facts = began["input"]
    status = Status(facts["parts"], facts["words"])
    measure = _Measure(status, plan.listing().sizes(), there, progress, job.max_errors)
    missing = sorted(set(range(facts["parts"])) - {done.part for done in there})
    if began["complete"] and missing:  # somebody has deleted results
        began["complete"] = False
        manifest.save(output, began)
    try:
        measure.check()
        with closing(runner.read(plan, missing, measure.tick)) as reading:
            for done in reading:
                measure.add(done)
        if gone := facts["parts"] - len(numbers(output)):
            what = f"{gone} of {facts['parts']} shards are not there after the job"
            raise DatasetError(f"{output}: {what}; do all workers write to the same storage?")
        began["complete"] = True
    finally:
        _count(began, measure.done, status.seconds)
        manifest.save(output, began)
    _tidy(output)
    return began


def _check_apart(source: Place, output: Place) -> None:
    apart = source.fs != output.fs or not takes(source, output.path)
    if apart and source.local and output.local:  # by the names that links lead to
        real = replace(source, path=os.path.realpath(source.path))
        apart = not takes(real, os.path.realpath(output.path))
    if not apart:
        raise OptionError(f"{output}: lies in the input, which would grow while it is read; give another folder")


def _begin(
    output: Place, base: Place, rows: Iterable[listing.Row], read_with: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the listing and the manifest of a new job."""
    rows = iter(rows)
    first = next(rows)  # raises if there is nothing to read, before a folder is made
    make_folder(output)
    names = [base_name(info) for info in output.entries(missing_ok=True)]
    if any(name.endswith(".parquet") and name != INPUT for name in names):
        what = f"holds Parquet files, and no {manifest.MANIFEST} that says what they are"
        raise OptionError(f"{output}: {what}; give another folder")
    facts = listing.write(chain([first], rows), output / INPUT)
    began = manifest.manifest(base, facts, read_with, chosen)
    manifest.save(output, began)
    return began


class _Measure:
    """Counts what is done, and stops a job that has too many errors."""

    def __init__(
        self,
        status: Status,
        sizes: NDArray[np.int64],
        there: list[Done],
        progress: Callable[[Status], None],
        max_errors: int | None,
    ) -> None:
        self.done = list(there)
        self._status, self._sizes, self._progress, self._limit = status, sizes, progress, max_errors
        self._bytes, self._all_bytes = sum(int(sizes[each.part]) for each in there), int(sizes.sum())
        status.parts_done = len(there)
        status.words = status.there = sum(each.words for each in there)
        status.errors = sum(each.errors for each in there)
        status.fraction = status.began_at = self._fraction()
        self._since = time.monotonic()

    def tick(self, words: int, errors: int) -> None:
        """Count words that were read."""
        status = self._status
        status.words += words
        status.errors += errors
        status.seconds = time.monotonic() - self._since
        status.fraction = self._fraction()
        self._progress(status)
        if errors:
            self.check()

    def check(self) -> None:
        """Raise TooManyErrors if there are."""
        if self._limit is not None and self._status.errors > self._limit:
            what = f"{self._status.errors:,} of {self._status.words:,} pictures could not be read"
            raise TooManyErrors(f"stopped: {what}; the same command with a higher --max-errors goes on")

    def add(self, done: Done) -> None:
        """Count a part whose results are there."""
        self.done.append(done)
        self._bytes += int(self._sizes[done.part])
        self._status.parts_done += 1

    def _fraction(self) -> float:
        total = self._status.total
        return self._status.words / total if total else self._bytes / max(1, self._all_bytes)


def _count(job: dict[str, Any], done: list[Done], seconds: float) -> None:
    job["counts"] = {
        "parts": len(done),
        "words": sum(each.words for each in done),
        "errors": sum(each.errors for each in done),
    }
    job["seconds"] = round(job["seconds"] + seconds, 3)


def _tidy(output: Place) -> None:
    """Remove what killed runs have left of files that they were writing."""
    with suppress(Exception):  # of no consequence: they are hidden
        for info in output.fs.ls(output.path, detail=True):
            if is_left_over(base_name(info)):
                output.fs.rm_file(info["name"])
