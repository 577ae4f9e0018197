"""The rows of text tables: CSV (RFC 4180), tab-separated values, JSON lines, ICDAR's word lists, ``NAME LABEL`` lines.

A row is a list of cells, None for one that is not there. A file that is not UTF-8 keeps its bytes as ``\\udcXX``
escapes, so that names of files work whatever they are; labels with such escapes are refused further up.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from crnn.errors import DatasetError

Row: TypeAlias = list[str | None]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
SAMPLE = 100
"""How many rows are looked at to see what a table is."""

_LONGEST = 1 << 20  # characters of a line
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Table(NamedTuple):
    """A text table: how its rows are separated, in words; the rows with their line numbers; names of the columns.

    The names are there where each row has them (JSON lines), not where a header may have.
    """

    form: str
    rows: Callable[[], Iterator[tuple[int, Row]]]
    names: list[str] | None = None


def open_table(path: Path, icdar: bool = False) -> Table:
    """Recognise what separates the cells of a table, by its suffix and its first rows.

    ``icdar`` says that it is ICDAR's word list, where that does not show.

    Raises DatasetError if it cannot be read or is empty.
    """
    encoding = _encoding(path)
    suffix = path.suffix.lower()
    head = [line.rstrip("\r\n") for line in islice(_lines(path, encoding), SAMPLE)]
    filled = [line for line in head if line.strip()]
    if not filled:
        raise DatasetError(f"{path}: empty")
    if icdar or (suffix in (".txt", ".csv") and all(_ICDAR.fullmatch(line) for line in filled)):
        return Table('ICDAR word list (NAME, "LABEL")', partial(_icdar, path, encoding))
    if suffix == ".jsonl":
        names = list(_object(path, 1, filled[0]))
        return Table("JSON lines", partial(_objects, path, encoding, names), names)
    if suffix == ".tsv" or (suffix == ".txt" and all("\t" in line for line in filled)):
        # the media type text/tab-separated-values knows no quotation marks, but some programs write them everywhere
        quoted = all(re.fullmatch(r'"[^\t]*"', cell) for cell in filled[0].split("\t"))
        rows = partial(_delimited, path, encoding, "\t") if quoted else partial(_split, path, encoding, r"\t", 0)
        return Table("separated by tabs" + (", quoted" if quoted else ""), rows)
    if suffix == ".txt" and not all("," in line for line in filled):
        return Table("NAME LABEL, separated by a space", partial(_split, path, encoding, " ", 1))
    delimiter = max(_DELIMITERS, key=partial(_regularity, path, encoding))
    return Table(f"separated by {_DELIMITERS[delimiter]}", partial(_delimited, path, encoding, delimiter))


def _encoding(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be opened ({error.strerror})") from None
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends; a lone carriage return is one too."""
    try:
        with open(path, encoding=encoding, errors="surrogateescape", newline="") as file:
            while line := file.readline(_LONGEST):
                if len(line) == _LONGEST:
                    raise DatasetError(f"{path}: a line of more than a million characters; this is no table of words")
                yield line
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeError as error:  # UTF-16 that is none
        raise DatasetError(f"{path}: damaged text ({error})") from None


def _numbered(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_lines(path, encoding), 1):
        if line.strip():
            yield number, line.rstrip("\r\n")


def _delimited(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(_lines(path, encoding), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield reader.line_num, list(row)
    except csv.Error as error:
        what = f"line {reader.line_num}: {error}; is a quotation mark before it left open?"
        raise DatasetError(f"{path}: {what}") from None


def _regularity(path: Path, encoding: str, delimiter: str) -> int:
    """How many of the first rows have as many cells as the first, which must have two or more."""
    try:
        rows = [row for _, row in islice(_delimited(path, encoding, delimiter), SAMPLE)]
    except DatasetError:
        return 0
    return sum(len(row) == len(rows[0]) for row in rows) if len(rows[0]) > 1 else 0


def _split(path: Path, encoding: str, separator: str, most: int) -> Iterator[tuple[int, Row]]:
    for number, line in _numbered(path, encoding):
        yield number, list(re.split(separator, line, maxsplit=most))


# Robust Reading Competition, task "word recognition": a name, a comma and the transcription in quotation marks, in
# which \ stands before quotation marks and itself. https://rrc.cvc.uab.es
_ICDAR = re.compile(r'\s*([^,"]+?)\s*,\s+"(.*)"\s*')
_ICDAR_PLAIN = re.compile(r"\s*([^,]+?)\s*,\s*(.*?)\s*")


def _icdar(path: Path, encoding: str) -> Iterator[tuple[int, Row]]:
    for number, line in _numbered(path, encoding):
        if match := _ICDAR.fullmatch(line):
            yield number, [match[1], unescaped(match[2])]
        elif match := _ICDAR_PLAIN.fullmatch(line):
            yield number, [match[1], match[2]]
        else:
            yield number, [line, None]


def unescaped(text: str) -> str:
    """``text`` without the backslashes that ICDAR puts before quotation marks and backslashes."""
    return re.sub(r'\\(["\\])', r"\1", text)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_int=str, parse_float=str)  # as it is written: 1.50 stays 1.50
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DatasetError(f"{path}: line {number} is no JSON object")
    return found


def _objects(path: Path, encoding: str, names: list[str]) -> Iterator[tuple[int, Row]]:
    for number, line in _numbered(path, encoding):
        try:
            found = _object(path, number, line)
        except DatasetError:
            found = {}  # one bad line is one bad word
        yield number, [value if isinstance(value := found.get(name), str) else None for name in names]
