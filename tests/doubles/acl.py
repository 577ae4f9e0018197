"""A double of pyACL's module ``acl`` that runs the ONNX twin and writes down every misuse. See README.md beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.doubles import acl_codes as codes
from tests.doubles.acl_mdl import Mdl
from tests.doubles.acl_rt import Rt, Util
from tests.doubles.acl_state import DataBuffer, Refused, State, call, whole


class Acl(ModuleType):
    """One process's ``acl``: a module to be put into ``sys.modules``, and the test's hold on it."""

    def __init__(
        self,
        *,
        soc: str = "Ascend310",
        devices: int = 1,
        run_mode: int = 1,
        initialised: bool = False,
        hidden_bytes: int = 8,
        without: Sequence[str] = (),
    ) -> None:
        super().__init__("acl")
        self.__spec__ = ModuleSpec("acl", None, origin=__file__)
        self._state = State(soc, devices, run_mode, initialised, hidden_bytes)
        self.rt, self.mdl, self.util = (
            _functions(room, without) for room in (Rt(self._state), Mdl(self._state), Util(self._state))
        )
        self.expect_finalize = True

    # -- the test's side

    @property
    def calls(self) -> list[str]:
        """The name of every call so far."""
        return self._state.calls

    def fail_at(self, name: str, nth: int = 1, code: int | None = None) -> None:
        """Make the nth (from 1) call of ``name`` fail."""
        if name not in codes.FAILURES:
            raise ValueError(f"no call {name!r}")
        self._state.injections[name, nth] = code

    def fail_call(self, index: int, code: int | None = None) -> None:
        """Make the call fail that will be ``calls[index]``."""
        self._state.injections[index] = code

    @property
    def misuses(self) -> list[str]:
        """Every misuse so far; unlike ``problems``, without what is simply still in use."""
        return list(self._state.misuses)

    def problems(self) -> list[str]:
        """Every misuse so far, and everything that is not given back."""
        return [*self._state.misuses, *self._state.leaks(self.expect_finalize)]

    def check(self, *, injected: bool | None = None) -> None:
        """Raise AssertionError if there are problems, or if ``injected`` and no failure that was asked for happened."""
        if problems := self.problems():
            self.forgive()
            raise AssertionError("acl was misused:\n  " + "\n  ".join(problems))
        if injected is not None:
            assert bool(self._state.injected) is injected, f"failures that happened: {self._state.injected}"

    def forgive(self) -> list[str]:
        """The problems so far, which from now on count no more."""
        found = self.problems()
        self._state.misuses.clear()
        self._state.forgiven = [*self._state.handles.values(), *self._state.memory.regions]
        self.expect_finalize = False
        return found

    @contextmanager
    def installed(self) -> Iterator[Acl]:
        """``import acl`` finds this double."""
        before = sys.modules.get("acl")
        sys.modules["acl"] = self
        try:
            yield self
        finally:
            if before is None:
                del sys.modules["acl"]
            else:
                sys.modules["acl"] = before

    # -- the module's side

    @call("init", init=False)
    def init(self, config: str = "", /) -> None:
        state = self._state
        if config and not Path(config).is_file():
            raise Refused(codes.INVALID_FILE)
        if state.finalized:
            raise Refused(codes.REPEAT_INIT, "init after finalize: a process may do it once")
        if state.initialised:
            raise Refused(codes.REPEAT_INIT)  # benign: something else in the process uses the device, too
        state.initialised = True

    @call("finalize", init=False)
    def finalize(self) -> None:
        state = self._state
        if state.finalized:
            raise Refused(codes.REPEAT_FINALIZE, "finalize twice")
        if not state.initialised:
            raise Refused(codes.UNINITIALISED, "finalize without init")
        if state.foreign_init:
            state.misuse("it was not this code that called init")
        for leak in state.leaks(True):
            if leak != "leak: init without finalize":
                state.misuse(f"{leak} is still there")
        state.initialised, state.finalized = False, True

    @call("get_recent_err_msg", init=False)
    def get_recent_err_msg(self) -> str:
        return self._state.last_error

    @call("get_soc_name", init=False)
    def get_soc_name(self) -> str:
        return self._state.soc if self._state.device_count else ""

    @call("create_data_buffer")
    def create_data_buffer(self, address: int, size: int, /) -> int:
        state, address, size = self._state, whole(address), whole(size)
        region = state.memory.find(address)
        if region is None:
            raise Refused(codes.INVALID_PARAM, f"{address:#x} is no memory")
        if region.kind != "device":
            state.misuse(f"wraps host memory ({region}); a model reads and writes device memory")
        if size <= 0 or address - region.address + size > region.size:
            state.misuse(f"{size} bytes do not lie in {region}")
        return state.give(DataBuffer(state.context, address, size))

    @call("destroy_data_buffer")
    def destroy_data_buffer(self, handle: int, /) -> None:
        buffer = self._state.get(handle, DataBuffer)
        region = self._state.memory.find(buffer.address)
        if region is not None and region.in_flight:
            self._state.misuse("an execution that uses it has not been waited for")
        self._state.drop(handle)

    @call("get_data_buffer_addr")
    def get_data_buffer_addr(self, handle: int, /) -> int:
        return self._state.get(handle, DataBuffer).address

    @call("get_data_buffer_size")
    def get_data_buffer_size(self, handle: int, /) -> int:
        return self._state.get(handle, DataBuffer).size


def _functions(room: Any, without: Sequence[str]) -> Any:
    """The room's public methods, but for those that this pyACL does not have."""
    prefix = type(room).__name__.lower()
    names = [name for name in dir(room) if not name.startswith("_") and f"{prefix}.{name}" not in without]
    return SimpleNamespace(**{name: getattr(room, name) for name in names})
