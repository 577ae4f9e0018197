"""pyACL, the Python interface of Ascend's runtime: checked calls, and what a process may do only once.

The conventions are those of the "pyACL API reference" of CANN: what creates something gives (value, code) or a bare
handle, an action gives its code, a question gives the bare answer; code 0 is success. Not yet run on hardware.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import ExitStack
from importlib import import_module
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from crnn.errors import EngineError, OptionError

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # aclrtMemcpyKind
HUGE_FIRST = 0  # aclrtMemMallocPolicy: huge pages where there are some
DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.float16), 4: np.dtype(np.uint8)}
DEVICE_VARIABLE = "ASCEND_DEVICE_ID"

_ALREADY_INITIALISED = 100002
_MEANINGS = {
    100000: "a parameter is invalid",
    100001: "pyACL is not initialised",
    100002: "pyACL has been initialised before",
    100003: "the file is invalid",
    100004: "a file cannot be written",
    100011: "there is no model of this number",
    100012: "the model cannot be deserialised: the file is damaged, or needs a newer CANN",
    100013: "the model cannot be parsed: the file is damaged, or needs a newer CANN",
    100014: "the model file cannot be read",
    100017: "the input does not match the model",
    100018: "the output does not match the model",
    100019: "the model has no gears",
    100024: "an operator is not found: install the operator package of this CANN",
    100026: "the data type is not supported",
    100037: "pyACL has been finalised before",
    100039: "the program is linked against CANN's stub libraries: take devlib out of LD_LIBRARY_PATH",
    107000: "a parameter of the runtime is invalid",
    107001: f"there is no such device: npu-smi info lists them, {DEVICE_VARIABLE} chooses",
    107002: "this thread has no context",
    145000: "a parameter of the graph engine is invalid",
    145001: "the graph executor is not initialised",
    145002: "the path of the model is invalid",
    145003: "there is no model of this number",
    145011: "the address of the gears' input is invalid",
    145012: "the size of the gears' input is invalid",
    145013: "the model was not compiled for this batch size",
    145014: "AIPP: the address of its input is invalid",
    145015: "AIPP: the size of its input is invalid",
    145016: "AIPP: its mode does not fit the model",
    145021: "the shape is invalid",
    145022: "the data type is invalid",
    200000: "memory cannot be allocated",
    207001: "the device has no memory left",
    207004: "the device cannot be found: is its driver loaded? npu-smi info says",
    207005: "the device has no resources left",
    245000: "the graph engine has no memory left",
    500000: "internal error of CANN",
    500001: "failure in CANN",
    500002: "failure in CANN's graph engine",
    500003: "failure in CANN's runtime",
    500004: "failure in the driver",
    507008: "the model was compiled for another chip: compile it for the one that npu-smi info names",
    507010: "the device does not answer any more (heartbeat lost)",
    507011: "the model failed on the device",
}
"""CANN's error codes (acl_base.h, acl's error_codes and those of the runtime and graph engine) in words."""


class Closable(Protocol):
    """What holds a device until it is closed."""

    def close(self) -> None:
        """Give everything back."""
        ...


class PyAcl:
    """The module ``acl`` in this process: every call is checked, and failure raises EngineError naming the call.

    One object a module (:func:`runtime`), because ``acl.init`` may be called once a process, and
    ``acl.rt.reset_device`` takes the device away from every model in it: devices are counted here.
    """

    def __init__(self, acl: Any) -> None:
        self._acl = acl
        self._lock = threading.RLock()  # reentrant: garbage collection may close one engine while another opens
        self._contexts: dict[int, Any] = {}
        self._users: dict[int, int] = {}
        self._engines: WeakSet[Closable] = WeakSet()
        self._ready = self._ours = False

    def do(self, name: str, *arguments: Any) -> None:
        """An action, such as ``rt.free``."""
        self._check(name, self._function(name)(*arguments))

    def make(self, name: str, *arguments: Any) -> Any:
        """What gives (value, code): the value."""
        value, code = self._function(name)(*arguments)
        self._check(name, code)
        return value

    def handle(self, name: str, *arguments: Any) -> Any:
        """What gives a bare handle, address or size, of which nothing or 0 means failure."""
        value = self._function(name)(*arguments)
        if not value:
            raise EngineError(f"acl.{name} failed{self._detail()}")
        return value

    def ask(self, name: str, *arguments: Any) -> Any:
        """What gives a bare value of which any may be right."""
        return self._function(name)(*arguments)

    def soc_name(self) -> str:
        """The chip, such as ``Ascend310P3``; empty where pyACL does not say (it is of 2021, or has no device yet)."""
        name = getattr(self._acl, "get_soc_name", None)
        return str(name() or "") if name else ""

    def address_of(self, data: bytes) -> int:
        """Where ``data`` lies, which the caller keeps alive while the address is in use."""
        util = self._acl.util
        if getattr(util, "bytes_to_ptr", None):
            address = self.handle("util.bytes_to_ptr", data)
        else:  # pyACL of 2021
            address = self.handle("util.numpy_to_ptr", np.frombuffer(data, np.uint8))
        return int(address)

    def bytes_at(self, address: int, count: int) -> bytes:
        """A copy of host memory that pyACL gave."""
        util = self._acl.util
        if getattr(util, "ptr_to_bytes", None):
            return bytes(self.handle("util.ptr_to_bytes", address, count))
        view: NDArray[np.uint8] = self.ask("util.ptr_to_numpy", address, (count,), 2)  # 2 is NPY_UBYTE
        return view.tobytes()

    def attach(self, device: int) -> Any:
        """The context of ``device``, which this process holds until it is detached as often as it was attached."""
        with self._lock:
            self._initialise()
            if device not in self._contexts:
                with ExitStack() as undo:
                    self.do("rt.set_device", device)
                    undo.callback(self._reset, device)
                    self._contexts[device] = self.make("rt.create_context", device)
                    self._users[device] = 0
                    undo.pop_all()
            self._users[device] += 1
            return self._contexts[device]

    def detach(self, device: int) -> None:
        """Give the device up; the last one destroys its context and resets it."""
        with self._lock:
            self._users[device] -= 1
            if self._users[device]:
                return
            del self._users[device]
            with ExitStack() as release:
                release.callback(self._reset, device)
                self.do("rt.destroy_context", self._contexts.pop(device))

    def close_at_exit(self, engine: Closable) -> None:
        """Remember an engine, without keeping it alive: its device has to be given back before ``acl.finalize``."""
        self._engines.add(engine)

    def shutdown(self) -> None:
        """Close every engine, and ``acl.finalize`` where ``acl.init`` was ours. It runs by itself at exit.

        No engine can be opened after it.
        """
        with self._lock, ExitStack() as stack:  # the last added first, all of them even if one fails
            atexit.unregister(self.shutdown)
            if self._ours:
                self._ours = False
                stack.callback(self.do, "finalize")
            for engine in list(self._engines):
                stack.callback(engine.close)

    def _initialise(self) -> None:
        if self._ready:
            return
        code = self._function("init")()
        if code != _ALREADY_INITIALISED:  # by another library of this process, which will finalise too
            self._check("init", code)
            self._ours = True
            atexit.register(self.shutdown)
        self._ready = True

    def _reset(self, device: int) -> None:
        self.do("rt.reset_device", device)

    def _function(self, name: str) -> Any:
        found = self._acl
        for part in name.split("."):
            found = getattr(found, part, None)
            if found is None:
                raise EngineError(f"this pyACL has no acl.{name}: update CANN")
        return found

    def _check(self, name: str, code: Any) -> None:
        if code != 0:
            meaning = _MEANINGS.get(code, "an error code that crnn does not know")
            raise EngineError(f"acl.{name} failed with {code}: {meaning}{self._detail()}")

    def _detail(self) -> str:
        """The first line of pyACL's own words, where it has some."""
        words = getattr(self._acl, "get_recent_err_msg", lambda: None)()
        lines = words.split("\n") if isinstance(words, str) else []
        return next((f" ({line.strip()[:200]})" for line in lines if line.strip()), "")


_RUNTIMES: WeakKeyDictionary[Any, PyAcl] = WeakKeyDictionary()
_RUNTIMES_LOCK = threading.Lock()


def runtime() -> PyAcl:
    """The process's pyACL. Raises EngineError if it cannot be imported."""
    try:
        acl: Any = import_module("acl")  # CANN's, which no package index has
    except ImportError as error:
        raise EngineError(
            f"the engine ascend cannot be used ({error}): it needs an Ascend device and CANN with pyACL; "
            "source its set_env.sh first (crnn doctor shows what is missing)"
        ) from None
    if not hasattr(acl, "mdl"):
        raise EngineError("the module acl that is installed is not pyACL: uninstall it and source CANN's set_env.sh")
    with _RUNTIMES_LOCK:
        if acl not in _RUNTIMES:
            _RUNTIMES[acl] = PyAcl(acl)
        return _RUNTIMES[acl]


def chosen_device() -> int:
    """The device of this process: $ASCEND_DEVICE_ID, or 0."""
    text = os.environ.get(DEVICE_VARIABLE, "0")
    if not text.isdecimal():
        raise OptionError(f"{DEVICE_VARIABLE} must be the number of a device, not {text!r}")
    return int(text)
