"""``label.txt``: a line ``test_{i}.bin:{label}`` for each word, as the original's parse_testdata.py.

Labels are in lower case where the network's protocol is alnum36, as in the original; else as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crnn.errors import DatasetError
from crnn.files import write_whole

DEFAULT = Path("label.txt")
"""In the current folder, which is where the original's scripts write it and look for it."""


def write_labels(path: Path, labels: Mapping[str, str]) -> None:
    """Write the label of each file name, whole or not at all. Labels must not hold line breaks, nor names colons."""
    write_whole(path, "".join(f"{name}:{label}\n" for name, label in labels.items()))


def read_labels(path: Path) -> dict[str, str]:
    """The labels by file name, in the file's order. A label may hold colons; empty lines do not count.

    Raises DatasetError: the file cannot be read, a line has no colon, a name stands there twice, or there is no line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); `crnn prepare` writes it") from None
    labels: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line:
            continue
        name, colon, label = line.partition(":")
        if not (colon and name):
            raise DatasetError(f"{path}: line {number} is not FILE:LABEL ({line[:40]!r})")
        if name in labels:
            raise DatasetError(f"{path}: line {number} names {name} a second time")
        labels[name] = label
    if not labels:
        raise DatasetError(f"{path}: no label in it")
    return labels
