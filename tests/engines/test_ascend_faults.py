"""The double of pyACL finds faults: each of these, put into a copy of the engine, has to show in a short scenario.

A test that passes with the engine as it is proves little unless it fails with an engine that is wrong.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.doubles.acl import Acl
from tests.doubles.om import Twin, write_om
from tests.engines.twin import linear, pictures

from crnn.engines import ascend, open_engine, pyacl

_UNLOAD = """        self._model = acl.make("mdl.load_from_file", str(self.path))
        resources.callback(acl.do, "mdl.unload", self._model)
"""
_DESCRIBE = """        self._description = acl.handle("mdl.create_desc")
        resources.callback(acl.do, "mdl.destroy_desc", self._description)
"""
_DATASET = """        dataset = acl.handle("mdl.create_dataset")
        resources.callback(acl.do, "mdl.destroy_dataset", dataset)
"""
_FREE = """            resources.callback(acl.do, "rt.free", addresses[-1])
"""
_ADD = """            acl.make("mdl.add_dataset_buffer", dataset, buffer)
"""
_FINALIZE = """                stack.callback(self.do, "finalize")
"""
_SET_CONTEXT = """        acl.do("rt.set_context", self._context)
"""
_EXECUTE = """        acl.do("mdl.execute", self._model, self._inputs, self._outputs)
"""

# name: [(module, what is there, what is put in its place)]
FAULTS: dict[str, list[tuple[ModuleType, str, str]]] = {
    "data buffers are not destroyed": [
        (ascend, '            resources.callback(acl.do, "destroy_data_buffer", buffer)\n', "")
    ],
    "data sets are not destroyed": [(ascend, _DATASET, _DATASET.splitlines(keepends=True)[0])],
    "device memory is not freed": [(ascend, _FREE, "")],
    "host memory is not freed": [(ascend, '        resources.callback(acl.do, "rt.free_host", self._result)\n', "")],
    "the model is not unloaded": [(ascend, _UNLOAD, _UNLOAD.splitlines(keepends=True)[0])],
    "the description is not destroyed": [(ascend, _DESCRIBE, _DESCRIBE.splitlines(keepends=True)[0])],
    "the context is not destroyed": [
        (pyacl, 'self.do("rt.destroy_context", self._contexts.pop(device))', "del self._contexts[device]")
    ],
    "the device is not reset": [(pyacl, 'self.do("rt.reset_device", device)', "pass")],
    "pyACL is not finalised": [(pyacl, _FINALIZE, "                pass\n")],
    "the description is destroyed before the model is unloaded": [
        (ascend, _DESCRIBE, ""),
        (ascend, _UNLOAD, _UNLOAD + _DESCRIBE),
    ],
    "device memory is freed before the buffers on it are destroyed": [
        (ascend, _FREE, ""),
        (ascend, _ADD, _ADD + '            resources.callback(acl.do, "rt.free", address)\n'),
    ],
    "the device is reset before its context is destroyed": [
        (pyacl, "release.callback(self._reset, device)", "self._reset(device)")
    ],
    "pyACL is finalised twice": [(pyacl, _FINALIZE, _FINALIZE * 2)],
    "pyACL is finalised before the engines are closed": [(pyacl, _FINALIZE, '                self.do("finalize")\n')],
    "the gear is never set": [(ascend, "        if self._gears:  # before", "        if False:  # before")],
    "the gear is set once": [
        (
            ascend,
            "        if self._gears:  # before",
            '        first, self.__dict__["set"] = "set" not in self.__dict__, True\n        if first:  # before',
        )
    ],
    "the gear is set for the words there are, not for a gear": [
        (ascend, "self._gears_index, size)", "self._gears_index, size + 1)")
    ],
    "the gears' own input has no buffer": [
        (ascend, "self._dataset(resources, inputs)", "self._dataset(resources, inputs[:1])")
    ],
    "the host buffer is dropped before it is copied": [
        (ascend, "source = acl.address_of(data)", "source = acl.address_of(bytes(bytearray(data)))")
    ],
    "batches are put together along axis 0": [(ascend, "np.concatenate(pieces, axis=1)", "np.concatenate(pieces)")],
    "padding is cut off along axis 0": [(ascend, "output[:, : len(words)]", "output[: len(words)]")],
    "a thread has no context": [(ascend, _SET_CONTEXT + "        source", "        source")],
    "the context is not set to close from another thread": [
        (ascend, '        resources.callback(acl.do, "rt.set_context", self._context)  # whichever thread closes\n', "")
    ],
    "pixels are copied in the wrong direction": [
        (ascend, "len(data), pyacl.HOST_TO_DEVICE", "len(data), pyacl.DEVICE_TO_HOST")
    ],
    "the answer is copied in the wrong direction": [
        (ascend, "count, pyacl.DEVICE_TO_HOST", "count, pyacl.HOST_TO_DEVICE")
    ],
    "more is copied than there is": [(ascend, "source, len(data),", "source, len(data) + 4,")],
    "less is copied than there is": [(ascend, "source, len(data),", "source, len(data) - 4,")],
    "the host buffer is too small": [(ascend, '"rt.malloc_host", self._output_size', '"rt.malloc_host", 3848')],
    "the device buffer is too small": [(ascend, '"rt.malloc", size,', '"rt.malloc", max(8, size // 2),')],
    "two threads run one model at once": [
        (
            ascend,
            "            try:\n                output = ",
            "        if True:\n            try:\n                output = ",
        )
    ],
    "the answer is read before the network has run": [(ascend, _EXECUTE, "")],
    "a buffer is freed twice": [(ascend, _FREE, _FREE * 2)],
}


def altered(changes: list[tuple[ModuleType, str, str]]) -> ModuleType:
    """Copies of the engine's modules with the changes; the engine's."""
    copies = {}
    for module in (pyacl, ascend):
        assert module.__spec__ is not None and module.__file__ is not None
        source = Path(module.__file__).read_text(encoding="utf-8")
        for where, old, new in changes:
            if where is module:
                assert source.count(old) == 1, f"{module.__name__} holds {source.count(old)} times:\n{old}"
                source = source.replace(old, new)
        copy = importlib.util.module_from_spec(module.__spec__)
        exec(compile(source, module.__file__, "exec"), copy.__dict__)
        copies[module] = copy
    copies[ascend].__dict__["pyacl"] = copies[pyacl]
    return copies[ascend]


def scenario(module: Any, om: Path, expected: dict[int, NDArray[np.float32]]) -> None:
    """Open, read from two threads at once, close from a third, end the process."""
    runtime = module.pyacl.runtime()
    try:
        engine = module.AscendEngine(om)
        for count, wanted in expected.items():
            np.testing.assert_allclose(engine.run(pictures(count)), wanted, rtol=1e-5, atol=1e-4)
        together = threading.Barrier(2)

        def read(count: int) -> None:
            together.wait(10)
            for _ in range(8):
                np.testing.assert_allclose(engine.run(pictures(count)), expected[count], rtol=1e-5, atol=1e-4)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, (3, 6)))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(engine.close).result()
        second = module.AscendEngine(om)  # is still open when the process ends
        second.run(pictures(1))
    finally:
        runtime.shutdown()


@pytest.fixture(scope="module")
def om_and_answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, NDArray[np.float32]]]:
    folder = tmp_path_factory.mktemp("om")
    twin = linear(folder / "twin.onnx")
    reference = open_engine(twin, "onnxruntime")
    return write_om(folder / "x.om", twin, gears=(1, 4)), {count: reference.run(pictures(count)) for count in (1, 3, 6)}


@pytest.fixture(autouse=True)
def slow_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each execution takes 2 ms, so that two threads meet in it if nothing keeps them apart."""
    run = Twin.run

    def slow(self: Twin, data: bytes, batch: int) -> bytes:
        time.sleep(0.002)
        return run(self, data, batch)

    monkeypatch.setattr(Twin, "run", slow)


def found(changes: list[tuple[ModuleType, str, str]], om_and_answers: Any) -> list[str]:
    """What is wrong with the engine thus changed; empty if nothing is."""
    problems: list[str] = []
    with Acl().installed() as acl:
        try:
            scenario(altered(changes), *om_and_answers)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        return problems + acl.forgive()


def test_the_engine_as_it_is_passes(om_and_answers: Any) -> None:
    assert found([], om_and_answers) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, om_and_answers: Any) -> None:
    assert found(FAULTS[name], om_and_answers)
