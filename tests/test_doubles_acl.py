"""The acl double itself: a straight script written from pyACL's documents passes, and each broken rule is caught."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.doubles.acl import Acl
from tests.doubles.acl_codes import FAILURES
from tests.doubles.aipp import parse
from tests.doubles.om import write_om

GRAY = """aipp_op {
    aipp_mode: static
    input_format: RGB888_U8
    src_image_size_w: 100
    src_image_size_h: 32
    csc_switch: true
    rbuv_swap_switch: true
    matrix_r0c0: 76
    matrix_r0c1: 150
    matrix_r0c2: 30
    min_chn_0: 127.5
    var_reci_chn_0: 0.0078431
}"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32[batch, 1, 32, 100] -> float32[26, batch, 37]: each step a linear map of the first row."""
    path = tmp_path_factory.mktemp("network") / "linear.onnx"
    weights = np.random.default_rng(3).normal(size=(26, 100, 37)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["actual_input_1", "first"], ["row"], axis=2),
            helper.make_node("Transpose", ["row"], ["columns"], perm=[1, 0, 2]),
            helper.make_node("MatMul", ["columns", "weights"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["output1"], axis=2),
        ],
        "linear",
        [helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, ["batch", 1, 32, 100])],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [26, "batch", 37])],
        [numpy_helper.from_array(np.array(0), "first"), numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


@pytest.fixture
def om(network: Path, tmp_path: Path) -> Path:
    return write_om(tmp_path / "two.om", network, batch=2)


@pytest.fixture
def geared(network: Path, tmp_path: Path) -> Path:
    return write_om(tmp_path / "gears.om", network, gears=(1, 2, 4))


def expected(network: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    output: NDArray[np.float32] = onnxruntime.InferenceSession(network).run(None, {"actual_input_1": batch})[0]
    return output


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, 32, 100)).astype(np.float32)


def ok(result: Any) -> Any:
    """Unpack (value, ret) or ret."""
    if isinstance(result, tuple):
        value, ret = result
        assert ret == 0, ret
        return value
    assert result == 0, result
    return None


def start(acl: Acl, om: Path) -> SimpleNamespace:
    """Everything up to the first execution, in the documented order."""
    ok(acl.init())
    ok(acl.rt.set_device(0))
    s = SimpleNamespace(context=ok(acl.rt.create_context(0)), stream=ok(acl.rt.create_stream()))
    s.model = ok(acl.mdl.load_from_file(str(om)))
    s.desc = acl.mdl.create_desc()
    ok(acl.mdl.get_desc(s.desc, s.model))
    s.into, s.out, s.buffers, s.memory = acl.mdl.create_dataset(), acl.mdl.create_dataset(), [], []
    sizes = [
        *((s.into, acl.mdl.get_input_size_by_index(s.desc, i)) for i in range(acl.mdl.get_num_inputs(s.desc))),
        *((s.out, acl.mdl.get_output_size_by_index(s.desc, i)) for i in range(acl.mdl.get_num_outputs(s.desc))),
    ]
    for dataset, size in sizes:
        s.memory.append(ok(acl.rt.malloc(size, 0)))
        s.buffers.append(acl.create_data_buffer(s.memory[-1], size))
        ok(acl.mdl.add_dataset_buffer(dataset, s.buffers[-1]))
    s.host_size = sizes[-1][1]
    s.host = ok(acl.rt.malloc_host(s.host_size))
    return s


def push(acl: Acl, s: SimpleNamespace, batch: NDArray[Any]) -> None:
    data = batch.tobytes()
    ok(acl.rt.memcpy(s.memory[0], len(data), acl.util.bytes_to_ptr(data), len(data), 1))


def pull(acl: Acl, s: SimpleNamespace) -> NDArray[np.float32]:
    ok(acl.rt.memcpy(s.host, s.host_size, s.memory[-1], s.host_size, 2))
    dims = ok(acl.mdl.get_cur_output_dims(s.desc, 0))["dims"]
    data = np.frombuffer(acl.util.ptr_to_bytes(s.host, s.host_size), np.float32)
    return data[: int(np.prod(dims))].reshape(dims)


def infer(acl: Acl, s: SimpleNamespace, batch: NDArray[Any], gear: int | None = None) -> NDArray[np.float32]:
    push(acl, s, batch)
    if gear is not None:
        index = ok(acl.mdl.get_input_index_by_name(s.desc, "ascend_mbatch_shape_data"))
        ok(acl.mdl.set_dynamic_batch_size(s.model, s.into, index, gear))
    ok(acl.mdl.execute(s.model, s.into, s.out))
    return pull(acl, s)


def steps(acl: Acl, s: SimpleNamespace) -> list[Callable[[], int]]:
    """The documented order of release."""
    return [
        *(lambda buffer=buffer: acl.destroy_data_buffer(buffer) for buffer in s.buffers),
        lambda: acl.mdl.destroy_dataset(s.into),
        lambda: acl.mdl.destroy_dataset(s.out),
        *(lambda address=address: acl.rt.free(address) for address in s.memory),
        lambda: acl.rt.free_host(s.host),
        lambda: acl.mdl.unload(s.model),
        lambda: acl.mdl.destroy_desc(s.desc),
        lambda: acl.rt.destroy_stream(s.stream),
        lambda: acl.rt.destroy_context(s.context),
        lambda: acl.rt.reset_device(0),
        lambda: acl.finalize(),
    ]


def stop(acl: Acl, s: SimpleNamespace) -> None:
    for step in steps(acl, s):
        ok(step())


def test_the_documented_sequence_is_no_misuse(acl: Acl, om: Path, network: Path) -> None:
    assert import_module("acl") is acl
    s = start(acl, om)
    assert ok(acl.rt.get_run_mode()) == 1
    assert ok(acl.mdl.get_input_dims(s.desc, 0)) == {"name": "actual_input_1", "dimCount": 4, "dims": [2, 1, 32, 100]}
    assert ok(acl.mdl.get_output_dims(s.desc, 0)) == {"name": "output1", "dimCount": 3, "dims": [26, 2, 37]}
    assert acl.mdl.get_input_size_by_index(s.desc, 0) == 2 * 12_800
    assert acl.mdl.get_output_size_by_index(s.desc, 0) == 2 * 3_848
    assert (acl.mdl.get_input_data_type(s.desc, 0), acl.mdl.get_output_data_type(s.desc, 0)) == (0, 0)
    assert acl.mdl.get_input_index_by_name(s.desc, "ascend_mbatch_shape_data")[1] != 0
    for seed in range(3):
        batch = pictures(2, seed)
        np.testing.assert_allclose(infer(acl, s, batch), expected(network, batch), atol=1e-5)
    stop(acl, s)


def test_gears(acl: Acl, geared: Path, network: Path) -> None:
    s = start(acl, geared)
    assert ok(acl.mdl.get_dynamic_batch(s.desc)) == {"batchCount": 3, "batch": [1, 2, 4]}
    assert acl.mdl.get_num_inputs(s.desc) == 2
    assert acl.mdl.get_input_size_by_index(s.desc, 1) == 8
    for gear in (4, 1, 2):
        batch = pictures(gear)
        np.testing.assert_allclose(infer(acl, s, batch, gear), expected(network, batch), atol=1e-5)
    stop(acl, s)


def test_results_of_execute_async_appear_after_synchronize(acl: Acl, om: Path, network: Path) -> None:
    s, batch = start(acl, om), pictures(2)
    push(acl, s, batch)
    ok(acl.mdl.execute_async(s.model, s.into, s.out, s.stream))
    ok(acl.rt.synchronize_stream(s.stream))
    np.testing.assert_allclose(pull(acl, s), expected(network, batch), atol=1e-5)
    ok(acl.mdl.execute_async(s.model, s.into, s.out, s.stream))
    pull(acl, s)
    push(acl, s, batch)
    assert ["before rt.synchronize_stream" in each for each in acl.misuses] == [True, False]
    assert "under way" in acl.misuses[1]
    ok(acl.rt.synchronize_stream(s.stream))
    stop(acl, s)
    assert len(acl.forgive()) == 2


def test_aipp_takes_pixels(acl: Acl, network: Path, tmp_path: Path) -> None:
    s = start(acl, write_om(tmp_path / "aipp.om", network, batch=2, aipp=GRAY))
    assert ok(acl.mdl.get_input_dims(s.desc, 0))["dims"] == [2, 32, 100, 3]
    assert (acl.mdl.get_input_size_by_index(s.desc, 0), acl.mdl.get_input_data_type(s.desc, 0)) == (19_200, 4)
    bgr = np.random.default_rng(1).integers(0, 256, (2, 32, 100, 3), dtype=np.uint8)
    blue, green, red = (bgr[..., i].astype(int) for i in range(3))
    gray = (76 * red + 150 * green + 30 * blue) // 256
    network_input = ((gray - 127.5) * 0.0078431).astype(np.float32)[:, None]
    np.testing.assert_allclose(infer(acl, s, bgr), expected(network, network_input), atol=1e-4)
    stop(acl, s)


def test_aipp_of_ready_made_gray() -> None:
    switches = "aipp_mode: static input_format: YUV400_U8 csc_switch: false"
    text = f"aipp_op {{ {switches} min_chn_0: 127.5 var_reci_chn_0: 0.0078431 }}"
    pixels = np.array([0, 128, 255], np.uint8).reshape(1, 1, 3, 1)
    result = parse(text, 3, 1, 1).apply(pixels, 1)
    assert result.shape == (1, 1, 1, 3)
    np.testing.assert_allclose(result[0, 0, 0], [-1, 0.00392, 1], atol=1e-4)


def test_every_release_is_missed_and_every_swap_is_noticed(om: Path) -> None:
    """Leave out each step of the release in turn; then swap each with the one that follows."""
    with Acl().installed() as acl:
        count = len(steps(acl, start(acl, om)))
        acl.forgive()
    for skipped in range(count):
        with Acl().installed() as acl:
            s = start(acl, om)
            for index, step in enumerate(steps(acl, s)):
                if index != skipped:
                    step()
            with pytest.raises(AssertionError, match="acl was misused"):
                acl.check()
    # two of a kind (buffers, datasets, pieces of memory), or one of the input's and one of the output's
    harmless = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)}
    for first in range(count - 1):
        with Acl().installed() as acl:
            order = steps(acl, start(acl, om))
            order[first], order[first + 1] = order[first + 1], order[first]
            for step in order:
                step()
            assert bool(acl.problems()) is ((first, first + 1) not in harmless), first
            acl.forgive()


def test_every_single_call_can_fail(om: Path, geared: Path) -> None:
    for model, gear in ((om, None), (geared, 2)):
        with Acl().installed() as acl:
            s = start(acl, model)
            infer(acl, s, pictures(2), gear)
            before = len(acl.calls)
            stop(acl, s)
            names = list(acl.calls)
            acl.check(injected=False)
        for index, name in enumerate(names):
            with Acl().installed() as acl:
                acl.fail_call(index)
                code = FAILURES[name][1]
                try:
                    s = start(acl, model)
                    infer(acl, s, pictures(2), gear)
                    assert code is None or index >= before, name  # ok() must have noticed any code
                except (AssertionError, TypeError, ValueError):
                    assert index < before
                    acl.forgive()
                    continue
                results = [step() for step in steps(acl, s)] if index >= before else []
                if results:
                    assert results[index - before] == code
                    acl.check(injected=True)  # a failing release leaves no leak behind
                acl.forgive()


def test_a_failed_release_may_be_tried_again(acl: Acl, om: Path) -> None:
    s = start(acl, om)
    acl.fail_at("rt.free", 2, code=500003)
    results = [step() for step in steps(acl, s)]
    assert results.count(500003) == 1
    assert acl.rt.free(s.memory[1]) == 0
    acl.check(injected=True)


Break = Callable[[Acl, SimpleNamespace, Path], Any]


def _drop_bytes(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    pointer = acl.util.bytes_to_ptr(pictures(2).tobytes())
    acl.rt.memcpy(s.memory[0], 25_600, pointer, 25_600, 1)


def _drop_array(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    pointer = acl.util.numpy_to_ptr(pictures(2))
    acl.rt.memcpy(s.memory[0], 25_600, pointer, 25_600, 1)


def _move_array(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    array = pictures(2).reshape(-1).copy()
    pointer = acl.util.numpy_to_ptr(array)
    array.resize(1_000_000, refcheck=False)
    acl.rt.memcpy(s.memory[0], 25_600, pointer, 25_600, 1)


def _copy(room: int, count: int, kind: int, *, to: int = 0) -> Break:
    def step(acl: Acl, s: SimpleNamespace, om: Path) -> None:
        data = pictures(4).tobytes()
        assert acl.rt.memcpy(s.memory[to], room, acl.util.bytes_to_ptr(data), count, kind) != 0

    return step


def _elsewhere(step: Break) -> Break:
    """In a thread that has no context."""

    def run(acl: Acl, s: SimpleNamespace, om: Path) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(step, acl, s, om).result()

    return run


def _other_context(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    push(acl, s, pictures(2))
    other = ok(acl.rt.create_context(0))
    acl.mdl.execute(s.model, s.into, s.out)
    ok(acl.rt.destroy_context(other))
    ok(acl.rt.set_context(s.context))


def _read_unwritten(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    acl.rt.memcpy(s.host, s.host_size, s.memory[-1], s.host_size, 2)


def _dataset_as_buffer(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    assert acl.destroy_data_buffer(s.into) == 100000


def _buffer_twice(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    acl.mdl.add_dataset_buffer(s.out, s.buffers[0])


def _late_view(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    address = ok(acl.rt.malloc_host(8))
    view = acl.util.ptr_to_numpy(address, (2,), np.dtype(np.float32).num)
    acl.rt.free_host(address)
    del view


def _free_device_as_host(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    address = ok(acl.rt.malloc(64, 0))
    assert acl.rt.free_host(address) != 0
    ok(acl.rt.free(address))


def _free_twice(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    address = ok(acl.rt.malloc(64, 0))
    ok(acl.rt.free(address))
    assert acl.rt.free(address) != 0


def _free_before_the_dataset(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    address, dataset = ok(acl.rt.malloc(64, 0)), acl.mdl.create_dataset()
    buffer = acl.create_data_buffer(address, 64)
    ok(acl.mdl.add_dataset_buffer(dataset, buffer))
    ok(acl.destroy_data_buffer(buffer))
    ok(acl.rt.free(address))
    ok(acl.mdl.destroy_dataset(dataset))


def _host_buffer(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    ok(acl.destroy_data_buffer(acl.create_data_buffer(s.host, 64)))


def _context_destroyed(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    other = ok(acl.rt.create_context(0))
    ok(acl.rt.destroy_context(other))
    assert acl.rt.malloc(64, 0) == (0, 107002)
    ok(acl.rt.set_context(s.context))


BREAKS: dict[str, tuple[Break, str]] = {
    "bytes dropped": (_drop_bytes, "referenced by nobody"),
    "array dropped": (_drop_array, "referenced by nobody"),
    "array moved": (_move_array, "has moved"),
    "strided array": (lambda acl, s, om: acl.util.numpy_to_ptr(pictures(2)[..., ::2]), "not contiguous"),
    "device to host, the other way": (_copy(25_600, 25_600, 2), "wrong direction"),
    "kind 4": (_copy(25_600, 25_600, 4), "kind 4"),
    "more than the destination": (_copy(25_600, 51_200, 1), "do not fit"),
    "destination overstated": (_copy(51_200, 51_200, 1), "reach over the end of the destination"),
    "nothing": (_copy(25_600, 0, 1), "0 bytes"),
    "no context": (_elsewhere(lambda acl, s, om: acl.rt.malloc(64, 0)), "no context"),
    "another context": (_other_context, "another context"),
    "input of another thread": (
        lambda acl, s, om: (_elsewhere(_push_with_context)(acl, s, om), acl.mdl.execute(s.model, s.into, s.out)),
        "written by another thread",
    ),
    "input never written": (lambda acl, s, om: acl.mdl.execute(s.model, s.into, s.out), "never written"),
    "output never written": (_read_unwritten, "nothing was ever written"),
    "dataset as buffer": (_dataset_as_buffer, "the handle of mdl.create_dataset"),
    "buffer added twice": (_buffer_twice, "in a dataset already"),
    "view outlives its memory": (_late_view, "still looks at the memory"),
    "free for free_host": (_free_device_as_host, "freed by rt.free"),
    "free twice": (_free_twice, "freed twice"),
    "free before the dataset": (_free_before_the_dataset, "mdl.destroy_dataset comes first"),
    "zero bytes": (lambda acl, s, om: acl.rt.malloc(0, 0), "must be above 0"),
    "unknown policy": (lambda acl, s, om: acl.rt.malloc(64, 3), "policy 3"),
    "buffer of host memory": (_host_buffer, "wraps host memory"),
    "destroyed context": (_context_destroyed, "no context"),
    "device memory read by the host": (lambda acl, s, om: acl.util.ptr_to_bytes(s.memory[0], 4), "rt.memcpy comes"),
    "gear of a static model": (lambda acl, s, om: acl.mdl.set_dynamic_batch_size(s.model, s.into, 0, 1), "no gears"),
    "stale handle": (lambda acl, s, om: acl.mdl.get_num_inputs(12345), "no handle"),
    "input index": (lambda acl, s, om: acl.mdl.get_input_size_by_index(s.desc, 1), "input 1 of 1"),
}


def _push_with_context(acl: Acl, s: SimpleNamespace, om: Path) -> None:
    ok(acl.rt.set_context(s.context))
    push(acl, s, pictures(2))


@pytest.mark.parametrize("name", BREAKS)
def test_misuse_is_recorded(name: str, om: Path) -> None:
    step, text = BREAKS[name]
    with Acl().installed() as acl:
        s = start(acl, om)
        step(acl, s, om)
        assert any(text in each for each in acl.misuses), acl.misuses
        stop(acl, s) if name != "buffer added twice" else None
        with pytest.raises(AssertionError, match="acl was misused"):
            acl.check()


def test_gears_are_checked(geared: Path, network: Path) -> None:
    with Acl().installed() as acl:
        s, batch = start(acl, geared), pictures(4)
        infer(acl, s, batch, 2)
        assert not acl.misuses
        push(acl, s, batch)
        ok(acl.mdl.execute(s.model, s.into, s.out))
        assert "set_dynamic_batch_size is missing" in acl.misuses[0]
        np.testing.assert_allclose(pull(acl, s), expected(network, batch), atol=1e-5)  # the largest gear was used
        assert acl.mdl.set_dynamic_batch_size(s.model, s.into, 1, 3) == 145013
        assert acl.mdl.set_dynamic_batch_size(s.model, s.into, 0, 2) == 145011
        short = acl.mdl.create_dataset()
        assert acl.mdl.set_dynamic_batch_size(s.model, short, 1, 2) == 145011
        assert acl.mdl.execute(s.model, short, s.out) == 100017
        assert len(acl.misuses) == 5
        acl.forgive()


def test_codes_of_init_and_finalize(om: Path) -> None:
    with Acl().installed() as acl:
        assert acl.rt.malloc(64, 0) == (0, 100001)
        assert acl.init() == 0
        assert acl.init() == 100002
        assert len(acl.misuses) == 1  # the call before init; a second init is benign
        assert acl.finalize() == 0
        assert acl.finalize() == 100037
        assert acl.rt.set_device(0) == 100001
        assert acl.init() == 100002
        assert len(acl.forgive()) == 4
    with Acl(initialised=True).installed() as acl:
        assert acl.init() == 100002
        acl.check()
        acl.finalize()
        assert "not this code" in acl.forgive()[0]
    with Acl(devices=0).installed() as acl:
        acl.init()
        assert acl.rt.set_device(0) == 207004
        acl.finalize()
        acl.check()
    with Acl(soc="Ascend310P3").installed() as acl:
        acl.init()
        acl.rt.set_device(0)
        assert acl.mdl.load_from_file(str(om)) == (0, 507008)
        assert acl.mdl.load_from_file("missing.om") == (0, 145002)
        assert acl.mdl.load_from_file(__file__) == (0, 100012)
        assert "100012" in acl.get_recent_err_msg()
        acl.rt.reset_device(0)
        acl.finalize()
        acl.check()


def test_two_threads_need_a_lock(om: Path) -> None:
    """Both execute one model at once; a barrier in the twin makes the overlap certain."""
    with Acl().installed() as acl:
        s = start(acl, om)
        push(acl, s, pictures(2))
        twin = acl._state.handles[s.model].twin  # type: ignore[union-attr]
        barrier, run = threading.Barrier(2, timeout=20), twin.run

        def slow(data: bytes, batch: int) -> bytes:
            barrier.wait()
            return run(data, batch)

        twin.run = slow  # type: ignore[method-assign]

        def work() -> None:
            ok(acl.rt.set_context(s.context))
            acl.mdl.execute(s.model, s.into, s.out)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work) for _ in range(2)]:
                done.result()
        assert any("two threads at once" in each for each in acl.misuses)
        acl.forgive()


def test_an_older_pyacl_lacks_functions() -> None:
    acl = Acl(without=["util.bytes_to_ptr"])
    assert not hasattr(acl.util, "bytes_to_ptr")
    assert hasattr(acl.util, "numpy_to_ptr")
    assert hasattr(Acl().util, "bytes_to_ptr")


def test_a_process_of_its_own(fake_cann: Any, om: Path) -> None:
    environment = fake_cann().environment
    for code, status in (
        ("import acl; acl.init(); acl.finalize()", 0),
        ("import acl; acl.init()", 70),
        ("import acl, atexit; acl.init(); atexit.register(acl.finalize)", 0),
    ):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert ("init without finalize" in done.stderr) is (status == 70)


def test_after_a_failed_execution(acl: Acl, om: Path, geared: Path) -> None:
    s = start(acl, om)
    push(acl, s, pictures(2))
    ok(acl.mdl.execute_async(s.model, s.into, s.out, s.stream))
    acl.fail_at("rt.synchronize_stream")
    assert acl.rt.synchronize_stream(s.stream) == 507011
    stop(acl, s)  # the work is lost, and everything can be given back
    acl.check(injected=True)
    with Acl().installed() as other:
        s = start(other, geared)
        push(other, s, pictures(2))
        ok(other.mdl.set_dynamic_batch_size(s.model, s.into, 1, 2))
        other.fail_at("mdl.execute")
        assert other.mdl.execute(s.model, s.into, s.out) == 507011
        ok(other.mdl.execute(s.model, s.into, s.out))
        assert "set_dynamic_batch_size is missing" in other.misuses[0]
        other.forgive()


def test_what_is_forgiven_counts_no_more(acl: Acl, om: Path) -> None:
    s = start(acl, om)
    lost = ok(acl.rt.malloc(64, 0))
    acl.rt.malloc(0, 0)
    assert len(acl.misuses) == 1
    found = acl.forgive()
    assert any("0 bytes" in each for each in found) and "leak: 64 bytes of rt.malloc" in found
    stop(acl, s)  # the handles are still good, and the memory that was lost is mentioned no more
    assert lost and acl.problems() == []


def test_a_process_that_lives_on_keeps_context_and_device(acl: Acl, om: Path) -> None:
    s = start(acl, om)
    acl.expect_finalize = False
    for step in steps(acl, s)[:-3]:
        assert acl.problems()
        ok(step())
    assert acl.problems() == []


def test_two_models_share_a_context(acl: Acl, om: Path) -> None:
    """The release of one is not held against what the other still uses; its own datasets are."""
    s = start(acl, om)
    infer(acl, s, pictures(2))
    second = ok(acl.mdl.load_from_file(str(om)))
    ok(acl.mdl.unload(second))
    assert not acl.misuses
    third = ok(acl.mdl.load_from_file(str(om)))
    ok(acl.mdl.execute(third, s.into, s.out))
    ok(acl.mdl.unload(third))
    assert acl.misuses == ["mdl.unload: mdl.create_dataset is to be released before the model"] * 2
    acl.forgive()
    stop(acl, s)


def test_a_gear_set_by_another_thread(geared: Path) -> None:
    with Acl().installed() as acl:
        s = start(acl, geared)
        push(acl, s, pictures(4))
        with ThreadPoolExecutor(1) as pool:
            ok(pool.submit(acl.mdl.set_dynamic_batch_size, s.model, s.into, 1, 2).result())
        acl.mdl.execute(s.model, s.into, s.out)
        assert acl.misuses == ["mdl.execute: another thread set the gear: no lock around memcpy and execute"]
        acl.forgive()


def test_float16_output_and_a_hidden_input_of_four_bytes(network: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "half.om", network, gears=(1, 2), output_type="FP16")
    with Acl(hidden_bytes=4).installed() as acl:
        s = start(acl, om)
        assert acl.mdl.get_input_size_by_index(s.desc, 1) == 4
        assert acl.mdl.get_output_data_type(s.desc, 0) == 1
        assert acl.mdl.get_output_size_by_index(s.desc, 0) == 2 * 26 * 37 * 2
        batch = pictures(1)
        push(acl, s, batch)
        ok(acl.mdl.set_dynamic_batch_size(s.model, s.into, 1, 1))
        ok(acl.mdl.execute(s.model, s.into, s.out))
        ok(acl.rt.memcpy(s.host, s.host_size, s.memory[-1], s.host_size, 2))
        data = np.frombuffer(acl.util.ptr_to_bytes(s.host, s.host_size), np.float16)
        np.testing.assert_allclose(data[: 26 * 37].reshape(26, 1, 37), expected(network, batch), atol=0.05)
        assert np.all(data[26 * 37 :].view(np.uint8) == 0xA5)  # nothing useful lies behind the gear that was used
        stop(acl, s)
        acl.check()
