"""Files that appear whole or not at all, and the order people expect of their names."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from crnn.errors import OptionError


@contextmanager
def replaced(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A hidden name beside ``path`` to write to; what lies there at the end takes the place of ``path`` in one step.

    The hidden name follows from ``path``, so that what a killed process has left is used up by the next one; it ends in
    ``.tmp``, so that nobody takes it for a finished file. With ``shared`` it is a name of its own each time, for files
    that several processes may write at once.
    If anything is raised, the hidden file is removed and ``path`` stays as it was. A link is replaced; what it leads to
    stays as it was, for others may use it.

    Raises OptionError, as do OSErrors from within: the file cannot be written; or ``path`` is a pipe or a device.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OptionError(f"{path}: a pipe or a device, not a file; give a file's name")
    if not path.name:
        raise OptionError(f"{path}: a folder, not a file; give a file's name")
    own = f".{secrets.token_hex(4)}" if shared else ""
    temporary = path.with_name(f".{path.name}{own}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # gone, if all is well
            temporary.unlink()


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all (:func:`replaced`). Text becomes UTF-8; what of it UTF-8 does not have, such as
    the bytes of a name that is no valid text, becomes ``\\udcXX`` escapes.

    Raises OptionError if it cannot be written.
    """
    with replaced(path) as temporary:
        temporary.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed; False if another process has locked it.

    Where files cannot be locked (Windows, some network file systems), nothing is done.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def modified(path: Path) -> int:
    """When a file was written last, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, as far as they are missing. Raises OptionError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: cannot be made ({error.strerror})") from None


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts names as people count: ``test_2.bin`` before ``test_10.bin``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], path.name
