"""The results of a part: one Parquet file, which appears whole or not at all, and says what it counts."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from crnn.datasets.tar import why
from crnn.errors import DatasetError, OptionError
from crnn.jobs.storage import Place, base_name, reading, replaced, watched
from crnn.word import Word

_JOB = b"crnn.job"  # the metadata that says which job a shard is of

_ROWS = 10_000  # held before they are written

_FOOTERS = 16  # of shards fetched at a time; each is a round trip to the storage

_NAME = re.compile(r"part-(\d{6,})\.parquet")


class Done(NamedTuple):
    """A part that has been read: its number, its rows, and how many of them are errors."""

    part: int
    words: int
    errors: int


def schema(characters: bool, kept: bool) -> Any:
    """The columns of the results, as pyarrow has them.

    ``source``; ``text`` and ``confidence``, null where the picture could not be read; ``kept`` if something is known of
    the texts (:attr:`crnn.Word.kept`); ``characters`` if they are asked for, as ``crnn read --json`` gives them;
    ``error``, null where the picture was read.
    """
    character = pa.struct([("character", pa.string()), ("score", pa.float32()), ("span", pa.list_(pa.float32()))])
    return pa.schema(
        [
            ("source", pa.string()),
            ("text", pa.string()),
            ("confidence", pa.float32()),
            *([("kept", pa.float64())] if kept else []),
            *([("characters", pa.list_(character))] if characters else []),
            ("error", pa.string()),
        ]
    )


def shard(output: Place, part: int) -> Place:
    """Where the results of a part are."""
    return output / f"part-{part:06d}.parquet"


class ShardWriter:
    """Writes the words of a part. ``close`` makes the file appear; ``discard`` leaves nothing.

    Raises OptionError if it cannot be written.
    """

    def __init__(self, output: Place, part: int, job: str, columns: Any) -> None:
        self._part, self._words, self._errors = part, 0, 0
        self._columns = columns.with_metadata({_JOB: job.encode()})
        self._held: list[Word] = []
        self._stack = ExitStack()
        self._shard = shard(output, part)
        file = self._stack.enter_context(replaced(self._shard))
        self._writer = self._stack.enter_context(pq.ParquetWriter(file, self._columns))

    def add(self, word: Word) -> None:
        """Append a row."""
        self._held.append(word)
        self._words += 1
        self._errors += word.error is not None
        if len(self._held) >= _ROWS:
            self._flush()

    def close(self) -> Done:
        """Write what is left and give the file its name."""
        try:
            with self._stack:  # which gives it up if the last rows cannot be written
                if self._held:  # or else there would be a group without rows, which has no statistics
                    self._flush()
        finally:
            self._writer.is_open = False  # or, if Ctrl-C comes while it is closed, it tries again when it is collected
        return Done(self._part, self._words, self._errors)

    def discard(self) -> None:
        """Give the file up."""
        stop = GeneratorExit()  # no error of writing, so it goes by unchanged
        try:
            self._stack.__exit__(type(stop), stop, None)
        finally:
            self._writer.is_open = False

    def _flush(self) -> None:
        held, self._held = self._held, []
        columns = {name: [_VALUES[name](word) for word in held] for name in self._columns.names}
        try:
            self._writer.write_table(pa.table(columns, schema=self._columns))
        except Exception as error:  # drivers raise more than OSError
            raise OptionError(f"{self._shard}: cannot be written ({why(error)})") from None


_VALUES: dict[str, Any] = {
    "source": lambda word: _as_text(word.source or ""),
    "text": lambda word: None if word.error is not None else word.text,
    "confidence": lambda word: None if word.error is not None else word.confidence,
    "kept": lambda word: word.kept,
    "characters": lambda word: None if word.error is not None else [_character(each) for each in word.characters],
    "error": lambda word: None if word.error is None else _as_text(word.error),
}


def _character(each: Any) -> dict[str, Any]:
    return {"character": each.character, "score": each.score, "span": list(each.span)}


def _as_text(name: str) -> str:
    r"""A name that is no valid text keeps its bytes as ``\udcXX`` escapes, as everywhere in the results of crnn."""
    return name.encode("utf-8", "backslashreplace").decode()


def numbers(output: Place) -> list[int]:
    """The parts whose results are there, in order."""
    found = (_NAME.fullmatch(base_name(info)) for info in output.entries())
    return sorted(int(match[1]) for match in found if match)


def finished(output: Place, job: str) -> list[Done]:
    """What the shards that are there count, in order.

    Raises OptionError for the shard of another job, DatasetError for a damaged one.
    """
    with ThreadPoolExecutor(_FOOTERS) as pool:
        return list(pool.map(lambda part: look(shard(output, part), part, job), numbers(output)))


def look(file: Place, part: int, job: str) -> Done:
    """What a shard counts, from its footer alone. Raises what :func:`finished` raises."""
    with watched(file) as opened:
        try:
            metadata = pq.read_metadata(opened)
            own = (metadata.metadata or {}).get(_JOB, b"").decode()
            columns = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            column = columns.index("error") if own else 0
            errors = sum(group.num_rows - group.column(column).statistics.null_count for group in groups)
        except (pa.ArrowException, ValueError, OSError, AttributeError) as error:
            opened.check()
            raise DatasetError(f"{file}: damaged ({why(error)}); delete it, and the job reads it again") from None
    if own != job:
        raise OptionError(f"{file}: was not written by this job; give another folder, or move it away")
    return Done(part, metadata.num_rows, errors)


def whole(output: Place, part: int, job: str) -> Done | None:
    """What the shard of a part counts, if it is there. Raises what :func:`finished` raises."""
    file = shard(output, part)
    with reading(file):
        if not file.fs.exists(file.path):
            return None
    return look(file, part, job)
