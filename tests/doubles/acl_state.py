"""What the ``acl`` double keeps: handles, who made what where, misuse and leaks; and how every call is made."""

from __future__ import annotations

import functools
import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.doubles import acl_codes as codes
from tests.doubles.acl_memory import Memory, Region
from tests.doubles.om import Compiled, Twin


class Refused(Exception):
    """The call gives this code; ``misuse`` is what was done wrong, empty where nothing was."""

    def __init__(self, code: int, misuse: str = "") -> None:
        super().__init__(misuse)
        self.code = code
        self.misuse = misuse


@dataclass(eq=False)
class Context:
    """An explicit context, or (``default``) the one that set_device makes."""

    device: int
    default: bool = False
    shared: bool = False  # it has held two models at once: what else is in it may be either's


@dataclass(eq=False)
class Stream:
    context: Context
    jobs: list[Job] = field(default_factory=list)


@dataclass(eq=False)
class Model:
    context: Context
    compiled: Compiled
    twin: Twin
    gear: int | None = None  # what set_dynamic_batch_size chose for the next execute
    shown: int | None = None  # the batch that get_cur_output_dims tells
    user: int | None = None  # the thread that is executing it
    loaded: bool = True


@dataclass(eq=False)
class Desc:
    context: Context | None
    model: Model | None = None


@dataclass(eq=False)
class DataBuffer:
    context: Context | None
    address: int
    size: int
    dataset: Dataset | None = None


@dataclass(eq=False)
class Dataset:
    context: Context | None
    buffers: list[DataBuffer] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)  # those it was used with


@dataclass(eq=False)
class Job:
    """One asynchronous execution that waits on a stream."""

    model: Model
    inputs: Dataset
    outputs: Dataset
    gear: int | None
    thread: int


Handle = Context | Stream | Model | Desc | DataBuffer | Dataset
T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])

NAMES: dict[type[Any], str] = {
    Context: "rt.create_context",
    Stream: "rt.create_stream",
    Model: "mdl.load_from_file",
    Desc: "mdl.create_desc",
    DataBuffer: "create_data_buffer",
    Dataset: "mdl.create_dataset",
}
"""Which call makes the handle; what a misuse or a leak is called by."""


class State:
    """Everything behind the functions of one ``acl`` module."""

    def __init__(self, soc: str, devices: int, run_mode: int, initialised: bool, hidden_bytes: int) -> None:
        self.soc, self.device_count, self.run_mode, self.hidden_bytes = soc, devices, run_mode, hidden_bytes
        self.foreign_init = initialised
        self.initialised = initialised
        self.finalized = False
        self.memory = Memory()
        self.handles: dict[int, Handle] = {}
        self.gone: dict[int, str] = {}  # handles of the past, and what they were
        self.devices: dict[int, Context] = {}  # those set, and their default contexts
        self.calls: list[str] = []
        self.counts: Counter[str] = Counter()
        self.misuses: list[str] = []
        self.injections: dict[int | tuple[str, int], int | None] = {}
        self.injected: list[str] = []
        self.retryable: set[tuple[str, Any]] = set()  # releases that were made to fail
        self.last_error = ""
        self.forgiven: list[Any] = []  # things and memory that count as leaks no more
        self.lock = threading.RLock()
        self.local = threading.local()
        self._next = 0x1000

    # -- misuse

    def misuse(self, text: str) -> None:
        self.misuses.append(f"{self.local.call}: {text}")

    # -- handles

    def give(self, thing: Handle) -> int:
        self._next += 0x10
        self.handles[self._next] = thing
        return self._next

    def get(self, handle: Any, kind: type[T], code: int = codes.INVALID_PARAM) -> T:
        thing = self.handles.get(handle)
        if isinstance(thing, kind):
            return thing
        if thing is not None:
            what = f"{handle!r} is the handle of {NAMES[type(thing)]}, not of {NAMES[kind]}"
        elif handle in self.gone:
            what = f"{handle!r} is used after it was released ({self.gone[handle]})"
        else:
            what = f"{handle!r} is no handle of {NAMES[kind]}"
        raise Refused(code, what)

    def drop(self, handle: int) -> None:
        self.gone[handle] = NAMES[type(self.handles.pop(handle))]

    def alive(self, kind: type[T], context: Context | None = None) -> list[T]:
        """Every live thing of a kind; with ``context``, only those made in it."""
        things = [thing for thing in self.handles.values() if isinstance(thing, kind)]
        return [thing for thing in things if context is None or getattr(thing, "context", None) is context]

    # -- contexts

    @property
    def context(self) -> Context | None:
        """The calling thread's current context, unless it has been destroyed."""
        current: Context | None = getattr(self.local, "context", None)
        known = [*self.alive(Context), *self.devices.values()]
        return current if any(current is each for each in known) else None

    @context.setter
    def context(self, value: Context | None) -> None:
        self.local.context = value

    def need_context(self) -> Context:
        if self.context is None:
            raise Refused(codes.CONTEXT_NULL, "this thread has no context: rt.set_context comes first")
        return self.context

    def of(self, context: Context) -> list[str]:
        """Names of what is alive of a context's own, in the documented order of release."""
        things: list[Any] = [thing for kind in (DataBuffer, Dataset) for thing in self.alive(kind, context)]
        things += [region for region in self.memory.regions if region.context is context]
        things += [thing for kind in (Model, Desc, Stream) for thing in self.alive(kind, context)]
        return [self.name(thing) for thing in things if thing not in self.forgiven]

    def name(self, thing: Handle | Region) -> str:
        """The call that made it."""
        return str(thing) if isinstance(thing, Region) else NAMES[type(thing)]

    def given_up(self, name: str, arguments: tuple[Any, ...]) -> None:
        """What a call that was made to fail undoes all the same: nothing waits for it any more."""
        thing = self.handles.get(arguments[0]) if arguments else None
        if name.startswith("mdl.execute") and isinstance(thing, Model):
            thing.gear = None
        if name == "rt.synchronize_stream" and isinstance(thing, Stream):
            thing.jobs.clear()
            for region in self.memory.regions:
                region.in_flight = False

    # -- what is left

    def leaks(self, finalized: bool) -> list[str]:
        things: list[Any] = [*self.handles.values(), *self.memory.regions]
        things = [each for each in things if each not in self.forgiven and (finalized or not isinstance(each, Context))]
        found = [f"leak: {self.name(each)}" for each in things]
        if finalized:
            found += [f"leak: rt.set_device({device}) without rt.reset_device" for device in self.devices]
            if self.initialised and not self.foreign_init:
                found.append("leak: init without finalize")
        return found


def call(name: str, *, init: bool = True, locked: bool = True) -> Callable[[Method], Method]:
    """A function of the ``acl`` module: recorded, refused before init, made to fail on demand; its return convention.

    ``locked`` is False for what computes: it takes the lock itself, for its bookkeeping alone.
    """
    empty, failure = codes.FAILURES[name]

    def answer(value: Any, code: int) -> Any:
        if name in codes.PAIRS:
            return (value if code == 0 else empty), code
        if failure is None:
            return value if code == 0 else empty
        return code

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def wrapper(self: Any, *arguments: Any) -> Any:
            state: State = self._state
            with state.lock:
                index = len(state.calls)
                state.counts[name] += 1
                state.local.call = name
                state.calls.append(name)
                keys: set[int | tuple[str, int]] = {index, (name, state.counts[name])}
                wanted = keys & state.injections.keys()
                code = 0
                if wanted:
                    code = state.injections[wanted.pop()] or failure or codes.FAILURE
                    state.injected.append(name)
                    state.last_error = f"{name} was made to fail with {code}"
                key = (name, arguments[:1])
                if name in codes.RELEASES and key in state.retryable:
                    state.retryable.discard(key)
                    return answer(None, 0)
                if code and name in codes.RELEASES:
                    state.retryable.add(key)
                if code and name not in codes.RELEASES:
                    state.given_up(name, arguments)
                    return answer(None, code)
            try:
                if init and not state.initialised:
                    raise Refused(
                        codes.UNINITIALISED, "called " + ("after finalize" if state.finalized else "before init")
                    )
                if locked:
                    with state.lock:
                        value = method(self, *arguments)
                else:
                    value = method(self, *arguments)
            except Refused as refused:
                with state.lock:
                    state.last_error = f"{name} failed with {refused.code}: {refused.misuse}"
                    if refused.misuse:
                        state.misuses.append(f"{name}: {refused.misuse}")
                return answer(None, refused.code)
            return answer(value, code)

        return wrapper  # type: ignore[return-value]

    return decorate


def whole(value: Any) -> int:
    """The integer that pyACL would read. Raises TypeError for anything else, as pyACL does."""
    return operator.index(value)


@contextmanager
def executing(state: State, model: Model) -> Iterator[None]:
    """Mark the model as running; another thread that runs it meanwhile is misuse."""
    thread = threading.get_ident()
    with state.lock:
        if model.user not in (None, thread):
            state.misuse("one model id is executed by two threads at once, without a lock around memcpy and execute")
        model.user = thread
    try:
        yield
    finally:
        with state.lock:
            model.user = None


def regions_of(state: State, dataset: Dataset) -> list[Region]:
    """The device memory behind a dataset's buffers. Raises Refused where there is none."""
    found = []
    for buffer in dataset.buffers:
        if buffer not in state.alive(DataBuffer):
            raise Refused(codes.INVALID_PARAM, "a data buffer of the dataset has been destroyed")
        region = state.memory.find(buffer.address)
        if region is None:
            what = "freed" if state.memory.was_freed(buffer.address) else "no"
            raise Refused(codes.INVALID_PARAM, f"a data buffer points to {what} memory")
        if region.kind != "device":
            raise Refused(codes.INVALID_PARAM, f"a data buffer points to host memory ({region})")
        if buffer.address - region.address + buffer.size > region.size:
            raise Refused(codes.INVALID_PARAM, f"a data buffer of {buffer.size} bytes reaches over {region}")
        found.append(region)
    return found
