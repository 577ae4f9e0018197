"""What all files of the pipeline have in common: which they are, and whose folder they lie in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crnn.errors import DatasetError
from crnn.files import make_folder, natural_key, write_whole

Progress = Callable[[int, int], None]
"""Called with the number of words (or files) that are done, and the number of all."""


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of ``folder`` that end in one of ``suffixes`` (any case) in natural order, without hidden ones.

    Raises DatasetError if there is no such folder, or nothing in it.
    """
    wanted = tuple(suffixes)
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be opened ({error.strerror})") from None
    found = sorted((path for path in found if os.path.isfile(path)), key=natural_key)
    if not found:
        raise DatasetError(f"{folder}: no {' or '.join(wanted)} file in this folder")
    return found


def size_of(path: Path) -> int:
    """The size in bytes, -1 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def content_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over files in their order: of each, name and content behind their lengths (8 bytes, little-endian)."""
    digest = hashlib.sha256()
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
        for part in (path.name.encode("utf-8", "surrogateescape"), content):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def claim(folder: Path, name: str, content: dict[str, Any], in_the_way: Path | None) -> None:
    """Make ``folder`` the place of one piece of work, described by ``content`` in its file ``name``, or go on there.

    ``in_the_way`` is a file that may be there only if the folder is already ours.

    Raises DatasetError if the folder belongs to other work, or holds ``in_the_way`` and belongs to nobody.
    """
    make_folder(folder)
    found = read_claim(folder, name)
    if found is not None:
        if different := [key for key in content if not _same(found.get(key), content[key])]:
            what = " and ".join(different)
            raise DatasetError(
                f"{folder}: begun with another {what} ({name} in it); choose another folder or delete it"
            )
    elif in_the_way is not None:
        raise DatasetError(f"{in_the_way}: is there already, from elsewhere; choose another folder or delete it")
    else:
        write_whole(folder / name, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_claim(folder: Path, name: str) -> dict[str, Any] | None:
    """What :func:`claim` wrote, None if the folder is nobody's. Raises DatasetError if the file is damaged."""
    path = folder / name
    if not os.path.exists(path):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); delete it, or the folder") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{path}: must hold a JSON object; delete it, or the folder")
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether two entries mean the same. Where something was found (``path``) does not count beside what it is."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: v for k, v in a.items() if k != "path"} == {k: v for k, v in b.items() if k != "path"}
    return bool(a == b)
