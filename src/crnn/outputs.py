"""What words are written as: JSON, JSON lines, CSV, tab-separated lines; and the result file that can be gone on with.

Everything is UTF-8 with the columns text, confidence, source. A name that is no valid text (file systems allow it)
keeps its bytes as ``\\udcXX`` escapes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crnn.errors import OptionError
from crnn.files import lock, write_whole

if TYPE_CHECKING:
    from crnn.word import Word

Write = Callable[[bytes], object]

CSV_HEADER = b"text,confidence,source\n"

_LONGEST = 1 << 22  # bytes; no row of ours comes near


def record(word: Word) -> dict[str, Any]:
    """A word as it stands in JSON: ``{text, confidence, source, characters: [{character, score, span: [x0, x1]}]}``.

    ``confidence`` is rounded to 6 digits, ``score`` to 4, ``span`` (pixels of the picture) to 1. After ``source`` comes
    ``kept``, of 6 significant digits, if the word has it.
    """
    characters = [
        {"character": it.character, "score": round(float(it.score), 4), "span": [round(float(x), 1) for x in it.span]}
        for it in word.characters
    ]
    values: dict[str, Any] = {"text": word.text, "confidence": round(float(word.confidence), 6), "source": word.source}
    if word.kept is not None:
        values["kept"] = float(f"{word.kept:.6g}")
    return {**values, "characters": characters}


def json_line(word: Word) -> bytes:
    """One word as one line of JSON."""
    return json.dumps(record(word), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def csv_line(word: Word) -> bytes:
    """One word as one row of CSV (more than one line only if its source's name has line breaks)."""
    row = f"{_quoted(word.text)},{word.confidence:.6f},{_quoted(word.source or '')}\n"
    return row.encode("utf-8", "backslashreplace")


def _quoted(field: str) -> str:
    # not csv.writer, which leaves a lone carriage return unquoted on some versions of Python; csv.reader refuses that
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"\r\n') else field


def plain_line(word: Word) -> bytes:
    """``text<TAB>confidence<TAB>source`` in one line: control characters are ``\\xNN`` escapes."""
    return f"{visible(word.text)}\t{word.confidence:.4f}\t{visible(word.source or '')}\n".encode()


def visible(text: str) -> str:
    """Control characters, which could break lines or steer a terminal, as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class JsonArray:
    """Words as one JSON array, written as they come."""

    def __init__(self, write: Write) -> None:
        self._write, self._between = write, b"[\n"

    def add(self, word: Word) -> None:
        """Append one word."""
        self._write(self._between + json_line(word)[:-1])
        self._between = b",\n"

    def finish(self) -> None:
        """Close the array."""
        self._write(b"[]\n" if self._between == b"[\n" else b"\n]\n")


class ResultFile:
    """A ``.jsonl`` or ``.csv`` of results that an interrupted run can go on with; a context manager.

    Entering opens the file, or makes it. ``sources`` holds the names of the words that are in it. The start of a line,
    left when a run was killed, is removed; nothing else is ever changed, only appended, a line at a time.

    Raises OptionError: another suffix; a file that is not such a result; a file that cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in (".jsonl", ".csv"):
            raise OptionError(f"{self.path}: the name must end in .jsonl or .csv, which says what is written")
        self._csv = suffix == ".csv"
        self._header = CSV_HEADER if self._csv else b""
        self._line = csv_line if self._csv else json_line
        self.sources: set[str] = set()
        self._rows_before = False

    def __enter__(self) -> Self:
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise OptionError(f"{self.path}: a pipe or a device, not a file; print with --jsonl or --csv instead")
        try:
            # not "a": the cut-off end of an earlier run is taken away, once all the rest is known to be ours
            self._file = self.path.open("r+b" if self.path.exists() else "x+b")
        except OSError as error:
            raise self._cannot("opened", error) from None
        try:
            if not lock(self._file):  # both would write over each other's lines
                raise OptionError(f"{self.path}: another process is writing to it; give each a file of its own")
            end = self._read_back()
            self._file.seek(end)
            self._file.truncate()
            if end == 0:
                self._append(self._header)
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise self._cannot("read", error) from None
            raise
        return self

    def made_by(self, facts: dict[str, Any]) -> None:
        """Remember, in a hidden file beside this one, what the words are read with: ``facts``, values of JSON.

        Raises OptionError if there are words in the file that were read with something else. What was written before
        this was remembered is gone on with.
        """
        place = self.path.with_name(f".{self.path.name}.made_by.json")
        if self._rows_before:
            try:
                before = json.loads(place.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                before = facts
            if isinstance(before, dict) and before != facts:
                names = sorted(name for name in {**before, **facts} if before.get(name) != facts.get(name))
                raise OptionError(
                    f"{self.path}: its words were read with another {' and '.join(names)}: give the same, or another "
                    "name to --out"
                )
        with contextlib.suppress(OptionError):  # where nobody may add files to the folder, it is not remembered
            write_whole(place, json.dumps(facts, indent=1) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # of a line that could not be written, which _append has said
            self._file.close()

    def claim(self, source: str) -> bool:
        """Whether the source is neither in the file nor claimed before."""
        key = _key(source)
        if key in self.sources:
            return False
        self.sources.add(key)
        return True

    def add(self, word: Word) -> None:
        """Append one word. It is handed to the system at once, so that only a line can be lost when we are killed."""
        self._append(self._line(word))

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._cannot("written", error) from None

    def _read_back(self) -> int:
        """Fill ``sources``; the position behind the last whole line."""
        end = 0
        for number, (row, whole) in enumerate(self._rows(), 1):
            if whole:
                if number == 1 and self._csv:
                    good = row == self._header
                else:
                    source = self._source(row)
                    good = source is not None
                    self.sources.add(_key(source or ""))
            elif number == 1 and self._csv:
                good = self._header.startswith(row)
            else:  # cut off
                good = len(row) < _LONGEST and (self._csv or row.startswith(b'{"text"'[: len(row)]))
            if not good:
                what = f"row {number} was not written by crnn read"
                raise OptionError(f"{self.path}: {what}; give another name to --out, or move this file away")
            end += len(row) if whole else 0
            self._rows_before = (whole and not (self._csv and number == 1)) or self._rows_before
        self.sources.discard("")
        return end

    def _rows(self) -> Iterator[tuple[bytes, bool]]:
        """The rows and whether they are whole. A row of CSV goes on over line breaks within quotes."""
        row, quotes = bytearray(), 0
        while line := self._file.readline(_LONGEST):
            row += line
            if len(row) > _LONGEST:
                break
            quotes += line.count(b'"') if self._csv else 0
            if line.endswith(b"\n") and quotes % 2 == 0:
                yield bytes(row), True
                row, quotes = bytearray(), 0
        if row:
            yield bytes(row), False

    def _source(self, row: bytes) -> str | None:
        try:
            if self._csv:
                (values,) = csv.reader(io.StringIO(row.decode(), newline=""), strict=True)
                _, confidence, source = values
                float(confidence)
                return source
            found = json.loads(row)
            source = found["source"]
            return source if isinstance(source, str) and isinstance(found["text"], str) else None
        except (ValueError, KeyError, TypeError, csv.Error, RecursionError):
            return None

    def _cannot(self, what: str, error: OSError) -> OptionError:
        return OptionError(f"{self.path}: cannot be {what} ({error.strerror or error})")


def _key(source: str) -> str:
    """A source as CSV gives it back, where it is no valid text."""
    return source.encode("utf-8", "backslashreplace").decode()
