"""Objects that come out of pickles cheaply: what is costly to open is opened when it is needed, once in a process."""

from __future__ import annotations

import os
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT = 4  # opened objects that came out of pickles, the latest of a process
_opened: dict[tuple[int, str], Any] = {}  # a process that is forked cannot use those that it finds here
_opening = Lock()


def _after_fork() -> None:
    global _opening
    _opening = Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def unopened(kind: type[T], name: str, settings: tuple[Any, ...]) -> T:
    """What a pickled object becomes. ``name`` is common to all copies, ``settings`` are the arguments of ``kind``."""
    copy = object.__new__(kind)
    copy.__dict__.update(_name=name, _settings=settings, _unopened=True)
    return copy


def is_unopened(copy: object) -> bool:
    """Whether it came out of a pickle, and nothing has been asked of it."""
    return "_unopened" in copy.__dict__


def open_copy(copy: object) -> None:
    """Give a copy what the one object behind all copies in this process has. Raises what opening that raises."""
    name, settings = copy.__dict__["_name"], copy.__dict__["_settings"]
    with _opening:
        key = os.getpid(), name
        if key not in _opened:
            made = type(copy)(*settings)
            made.__dict__["_name"] = name
            while len(_opened) >= _KEPT:
                del _opened[next(iter(_opened))]
            _opened[key] = made
        copy.__dict__.update(_opened[key].__dict__)
    copy.__dict__.pop("_unopened", None)  # several threads may have waited to open it
