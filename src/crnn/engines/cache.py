"""What engines build from a model, kept in the user's cache folder. Without one, it is built again each time."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from crnn.errors import OptionError
from crnn.files import replaced

_KEPT = 8
"""Built models in the folder; the ones unused for longest make room. Each takes 10 to 35 MB."""

_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """``$CRNN_CACHE``, or ``crnn`` in the system's place for caches (XDG Base Directory Specification on Linux)."""
    if own := os.environ.get("CRNN_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "crnn"


def key(*parts: str) -> str:
    """A name for what is built from ``parts``: another for every change in one of them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + ".built"


def load(name: str) -> bytes | None:
    """What :func:`store` kept under ``name``; None if there is nothing, or nothing whole that can be read."""
    try:
        path = folder() / name
        data = path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    with suppress(OSError):
        os.utime(path)
    built = data[_DIGEST:]
    return built if hashlib.sha256(built).digest() == data[:_DIGEST] else None


def store(name: str, data: bytes) -> None:
    """Keep ``data`` under ``name``, whole or not at all, behind its digest.

    A folder that cannot be written to is no error; if it is the one that ``$CRNN_CACHE`` names, a warning says so.
    """
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        with replaced(place / name, shared=True) as temporary:
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
    except (OSError, RuntimeError, OptionError) as error:
        if os.environ.get("CRNN_CACHE"):
            warnings.warn(f"$CRNN_CACHE keeps nothing, models are built anew each time: {error}", stacklevel=2)
        return
    with suppress(OSError):
        built = sorted(place.glob("*.built"), key=lambda path: path.stat().st_mtime)
        for path in built[:-_KEPT]:
            path.unlink(missing_ok=True)


def discard(name: str) -> None:
    """Remove what is kept under ``name``, because it cannot be used."""
    with suppress(OSError, RuntimeError):
        (folder() / name).unlink(missing_ok=True)
