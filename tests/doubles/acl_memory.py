"""Memory of the ``acl`` double: device memory out of the host's reach, host memory, and borrowed host memory.

Device addresses are made up, so touching one from the host finds nothing. Host memory is real: its addresses may be
read with ctypes. What ``bytes_to_ptr`` and ``numpy_to_ptr`` point to stays its owner's; the double keeps it from being
reused, and tells by the reference count whether anybody else still does.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

POISON = 0xA5
"""What fills memory that nobody has written, and memory that has been freed."""

ALIGNMENT = 64
_DEVICE_BASE = 0x1240_0000_0000  # far from any address of this process's heap
_QUARANTINE = 256  # how many borrowed pointers are kept before the stale ones are forgotten


class Owner:
    """Holds an object and knows whether anybody else does."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def count(self) -> int:
        return sys.getrefcount(self.held)

    @property
    def alone(self) -> bool:
        return self.count() <= _ALONE


_ALONE = Owner(bytearray(1)).count()


@dataclass(eq=False)
class Region:
    """A piece of memory. ``writer`` is the thread that wrote it last, None as long as nobody has."""

    kind: str  # "device", "host" or "borrowed"
    address: int
    size: int
    data: bytearray = field(default_factory=bytearray)  # of device memory; the rest is where its address says
    context: Any = None
    owner: Owner | None = None
    root: int = 0  # where the owner's memory was: an array may be resized in place
    writer: int | None = None
    in_flight: bool = False

    def __str__(self) -> str:
        name = {"device": "rt.malloc", "host": "rt.malloc_host", "borrowed": "a pointer"}[self.kind]
        return f"{self.size} bytes of {name}"

    def read(self, offset: int, count: int) -> bytes:
        if self.kind == "device":
            return bytes(self.data[offset : offset + count])
        return ctypes.string_at(self.address + offset, count)

    def write(self, offset: int, data: bytes) -> None:
        if self.kind == "device":
            self.data[offset : offset + len(data)] = data
        else:
            ctypes.memmove(self.address + offset, data, len(data))

    @property
    def stale(self) -> str:
        """Why a borrowed region must not be used any more, or nothing."""
        if self.kind != "borrowed" or self.owner is None:
            return ""
        if self.owner.alone:
            return "the bytes or array behind the pointer are referenced by nobody any more (use after free)"
        if isinstance(self.owner.held, np.ndarray) and address_of(self.owner.held) != self.root:
            return "the array behind the pointer has moved (use after free)"
        return ""


@dataclass
class Memory:
    """Every region, by address; freed ones are remembered to tell use after free from a wild pointer."""

    regions: list[Region] = field(default_factory=list)
    borrowed: list[Region] = field(default_factory=list)
    freed: list[Region] = field(default_factory=list)
    _next: int = _DEVICE_BASE

    def device(self, size: int, context: Any) -> Region:
        address, room = self._next, -(-size // ALIGNMENT) * ALIGNMENT
        self._next += room + 4096  # a gap, so that reaching over an end finds nothing
        region = Region("device", address, size, bytearray([POISON]) * size, context)
        self.regions.append(region)
        return region

    def host(self, size: int, context: Any) -> Region:
        buffer = ctypes.create_string_buffer(size)
        ctypes.memset(buffer, POISON, size)
        # the owner alone holds the buffer, so that views of it can be counted
        region = Region("host", ctypes.addressof(buffer), size, context=context, owner=Owner(buffer))
        self.regions.append(region)
        return region

    def borrow(self, value: bytes | NDArray[Any]) -> Region:
        root = _root(value)
        start = address_of(root) if isinstance(root, np.ndarray) else 0
        address, size = (address_of(value), value.nbytes) if isinstance(value, np.ndarray) else _place(value)
        owner = None
        for known in self.borrowed:
            if known.owner is not None and known.owner.held is root:
                owner = known.owner  # one owner an object: a second would look like somebody who holds it
                if (known.address, known.size, known.root) == (address, size, start):
                    return known
        if len(self.borrowed) >= _QUARANTINE:
            self.borrowed = [known for known in self.borrowed if not known.stale]
        region = Region("borrowed", address, size, owner=owner or Owner(root), root=start)
        self.borrowed.append(region)
        return region

    def find(self, address: int) -> Region | None:
        """The live region that holds ``address``: of several borrowed ones, the one that reaches furthest."""
        for region in self.regions:
            if region.address <= address < region.address + region.size:
                return region
        found = [region for region in self.borrowed if region.address <= address < region.address + region.size]
        return max(found, key=lambda region: (not region.stale, region.address + region.size), default=None)

    def was_freed(self, address: int) -> bool:
        return any(region.address <= address < region.address + region.size for region in self.freed)

    def free(self, region: Region) -> None:
        region.write(0, bytes([POISON]) * region.size)
        self.regions.remove(region)
        self.freed.append(region)  # host memory stays allocated, so that a late reader sees poison and no crash


def address_of(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _place(value: bytes) -> tuple[int, int]:
    return ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value or 0, len(value)


def _root(value: Any) -> Any:
    """Who really holds the memory that ``value`` is a view of."""
    while True:
        below = value.base if isinstance(value, np.ndarray) else value.obj if isinstance(value, memoryview) else None
        if below is None:
            return value
        value = below
