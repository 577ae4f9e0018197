"""``acl.rt`` and ``acl.util`` of the double: devices, contexts, streams, memory, and the way in and out of Python."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.doubles import acl_codes as codes
from tests.doubles.acl_mdl import run_job
from tests.doubles.acl_memory import Region
from tests.doubles.acl_state import (
    Context,
    DataBuffer,
    Dataset,
    Desc,
    Model,
    Refused,
    State,
    Stream,
    call,
    executing,
    whole,
)


class Rt:
    """``acl.rt``."""

    def __init__(self, state: State) -> None:
        self._state = state

    @call("rt.get_device_count", init=False)
    def get_device_count(self) -> int:
        if not self._state.device_count:
            raise Refused(codes.NO_DEVICE)
        return self._state.device_count

    @call("rt.set_device")
    def set_device(self, device: int, /) -> None:
        state, device = self._state, whole(device)
        if not state.device_count:
            raise Refused(codes.NO_DEVICE)
        if not 0 <= device < state.device_count:
            raise Refused(codes.INVALID_DEVICE)
        state.context = state.devices.setdefault(device, Context(device, default=True))

    @call("rt.reset_device")
    def reset_device(self, device: int, /) -> None:
        state = self._state
        default = state.devices.get(whole(device))
        if default is None:
            raise Refused(codes.INVALID_DEVICE, f"device {device} is not set")
        for context in [default, *(each for each in state.alive(Context) if each.device == device)]:
            for name in [*state.of(context), *([] if context.default else ["rt.create_context"])]:
                state.misuse(f"{name} is to be released before the device is reset")
        del state.devices[device]

    @call("rt.create_context")
    def create_context(self, device: int, /) -> int:
        state, device = self._state, whole(device)
        if device not in state.devices:
            raise Refused(codes.INVALID_DEVICE, f"device {device} is not set: rt.set_device comes first")
        state.context = context = Context(device)
        return state.give(context)

    @call("rt.destroy_context")
    def destroy_context(self, handle: int, /) -> None:
        context = self._state.get(handle, Context, codes.RT_PARAM)
        for name in self._state.of(context):
            self._state.misuse(f"{name} is to be released before its context")
        self._state.drop(handle)

    @call("rt.set_context")
    def set_context(self, handle: int, /) -> None:
        self._state.context = self._state.get(handle, Context, codes.CONTEXT_NULL)

    @call("rt.get_context")
    def get_context(self) -> int:
        context = self._state.context
        handles = [handle for handle, thing in self._state.handles.items() if thing is context]
        if not handles:
            raise Refused(codes.CONTEXT_NULL)  # the default context has no handle here; asking is no misuse
        return handles[0]

    @call("rt.get_run_mode")
    def get_run_mode(self) -> int:
        return self._state.run_mode

    @call("rt.create_stream")
    def create_stream(self) -> int:
        return self._state.give(Stream(self._state.need_context()))

    @call("rt.destroy_stream")
    def destroy_stream(self, handle: int, /) -> None:
        state = self._state
        stream = state.get(handle, Stream, codes.RT_PARAM)
        state.need_context()
        if stream.jobs:
            state.misuse("work on the stream has not been waited for")
        for kind, name in ((Model, "mdl.unload"), (Desc, "mdl.destroy_desc")):
            if state.alive(kind, stream.context) and not stream.context.shared:
                state.misuse(f"{name} comes before it")
        state.drop(handle)

    @call("rt.synchronize_stream", locked=False)
    def synchronize_stream(self, handle: int, /) -> None:
        state = self._state
        with state.lock:
            stream = state.get(handle, Stream, codes.RT_PARAM)
            if state.need_context() is not stream.context:
                state.misuse("the stream belongs to another context")
            jobs = list(stream.jobs)
            stream.jobs.clear()
        for job in jobs:
            with executing(state, job.model):
                run_job(state, job)

    @call("rt.malloc")
    def malloc(self, size: int, policy: int, /) -> int:
        state, size = self._state, whole(size)
        context = state.need_context()
        if size <= 0:
            raise Refused(codes.INVALID_PARAM, f"{size} bytes: must be above 0")
        if whole(policy) not in (0, 1, 2):
            raise Refused(codes.INVALID_PARAM, f"policy {policy}: must be 0, 1 or 2")
        return state.memory.device(size, context).address

    @call("rt.malloc_host")
    def malloc_host(self, size: int, /) -> int:
        state, size = self._state, whole(size)
        context = state.need_context()
        if size <= 0:
            raise Refused(codes.INVALID_PARAM, f"{size} bytes: must be above 0")
        return state.memory.host(size, context).address

    @call("rt.free")
    def free(self, address: int, /) -> None:
        self._free(address, "device", "rt.free_host")

    @call("rt.free_host")
    def free_host(self, address: int, /) -> None:
        self._free(address, "host", "rt.free")

    def _free(self, address: int, kind: str, other: str) -> None:
        state = self._state
        state.need_context()
        region = state.memory.find(whole(address))
        if region is None:
            again = state.memory.was_freed(address)
            raise Refused(codes.RT_PARAM, f"{address:#x} " + ("is freed twice" if again else "is no memory of ours"))
        if region.kind != kind or region.address != address:
            what = other if region.kind != kind and region.kind != "borrowed" else "nothing: it is not yours"
            raise Refused(codes.RT_PARAM, f"{address:#x} is not the start of {kind} memory; it is freed by {what}")
        if any(region.address <= each.address < region.address + region.size for each in state.alive(DataBuffer)):
            state.misuse("a data buffer still wraps the memory: destroy_data_buffer comes first")
        wrapped = (each.address for dataset in state.alive(Dataset) for each in dataset.buffers)
        if any(region.address <= inside < region.address + region.size for inside in wrapped):
            state.misuse("a dataset was made of the memory: mdl.destroy_dataset comes first")
        if region.in_flight:
            state.misuse("an execution that uses the memory has not been waited for")
        if kind == "host" and region.owner is not None and not region.owner.alone:
            state.misuse("an array of util.ptr_to_numpy still looks at the memory")
        state.memory.free(region)

    @call("rt.memcpy")
    def memcpy(self, to: int, room: int, source: int, count: int, kind: int, /) -> None:
        state = self._state
        to, room, source, count, kind = (whole(value) for value in (to, room, source, count, kind))
        state.need_context()
        if kind not in range(4):
            raise Refused(codes.RT_PARAM, f"kind {kind}: must be 0 to 3")
        if count <= 0 or count > room:
            raise Refused(codes.RT_PARAM, f"{count} bytes do not fit in a destination said to hold {room}")
        reader = self._side("source", source, count, on_device=kind in (codes.DEVICE_TO_HOST, codes.DEVICE_TO_DEVICE))
        writer = self._side("destination", to, room, on_device=kind in (codes.HOST_TO_DEVICE, codes.DEVICE_TO_DEVICE))
        thread = threading.get_ident()
        data = reader.read(source - reader.address, count)
        if reader.kind == "device":
            if reader.writer is None:
                state.misuse("reads device memory that nothing was ever written to")
            elif reader.writer != thread:
                state.misuse("reads what another thread wrote: no lock around memcpy and execute")
        if reader.in_flight:
            state.misuse("reads before rt.synchronize_stream")
        if writer.in_flight:
            state.misuse("writes to memory that an execution under way uses")
        if reader.stale:
            state.misuse(reader.stale)
            data = bytes([0xA5]) * count  # what such memory holds by now is anybody's guess
        writer.write(to - writer.address, data)
        writer.writer = thread

    def _side(self, what: str, address: int, size: int, *, on_device: bool) -> Region:
        """The region of one end of a copy; its place, kind and size must be right."""
        state = self._state
        region = state.memory.find(address)
        if region is None:
            kind = "freed" if state.memory.was_freed(address) else "no known"
            raise Refused(codes.RT_PARAM, f"the {what} {address:#x} is {kind} memory")
        if (region.kind == "device") is not on_device:
            raise Refused(codes.RT_PARAM, f"wrong direction: the {what} is {region.kind} memory ({region})")
        if address - region.address + size > region.size:
            raise Refused(codes.RT_PARAM, f"{size} bytes reach over the end of the {what} ({region})")
        return region


class Util:
    """``acl.util``."""

    def __init__(self, state: State) -> None:
        self._state = state

    @call("util.bytes_to_ptr", init=False)
    def bytes_to_ptr(self, data: bytes, /) -> int:
        if type(data) is not bytes:
            raise TypeError(f"bytes_to_ptr takes bytes, not {type(data).__name__}")
        return self._state.memory.borrow(data).address

    @call("util.numpy_to_ptr", init=False)
    def numpy_to_ptr(self, array: NDArray[Any], /) -> int:
        return self._borrow(array)

    @call("util.numpy_contiguous_to_ptr", init=False)
    def numpy_contiguous_to_ptr(self, array: NDArray[Any], /) -> int:
        return self._borrow(array)

    def _borrow(self, array: NDArray[Any]) -> int:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"takes an array, not {type(array).__name__}")
        if not array.flags.c_contiguous:
            self._state.misuse("the array is not contiguous: the device would read other pixels")
        return self._state.memory.borrow(array).address

    @call("util.ptr_to_bytes", init=False)
    def ptr_to_bytes(self, address: int, size: int, /) -> bytes:
        region = self._host(whole(address), whole(size))
        return region.read(address - region.address, size)

    @call("util.ptr_to_numpy", init=False)
    def ptr_to_numpy(self, address: int, shape: tuple[int, ...], number: int, /) -> NDArray[Any]:
        dtype = next(np.dtype(code) for code in np.typecodes["All"] if np.dtype(code).num == whole(number))
        size = int(np.prod(shape)) * dtype.itemsize
        region = self._host(whole(address), size)
        offset = address - region.address
        if region.kind != "host" or region.owner is None:
            return np.frombuffer(region.read(offset, size), dtype).reshape(shape)
        return np.frombuffer(region.owner.held, dtype, size // dtype.itemsize, offset).reshape(shape)

    def _host(self, address: int, size: int) -> Region:
        region = self._state.memory.find(address)
        if region is None:
            kind = "freed" if self._state.memory.was_freed(address) else "no known"
            raise Refused(codes.INVALID_PARAM, f"{address:#x} is {kind} memory")
        if region.kind == "device":
            raise Refused(codes.INVALID_PARAM, "the host cannot read device memory: rt.memcpy comes first")
        if region.stale:
            raise Refused(codes.INVALID_PARAM, region.stale)
        if size <= 0 or address - region.address + size > region.size:
            raise Refused(codes.INVALID_PARAM, f"{size} bytes reach over the end of {region}")
        return region
