from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from crnn import ctc, quantization
from crnn.engines import cache, open_engine
from crnn.engines.canary import check_mates
from crnn.engines.openvino import OpenVinoEngine, choose_precision
from crnn.errors import EngineError, ModelError, OptionError
from crnn.quantization import Ranges
from crnn.spec import DELIVERABLE


def texts(logp: NDArray[np.float32]) -> list[str]:
    return ctc.greedy(logp).texts(DELIVERABLE.charset)


def test_it_computes_what_torch_computes(model: Path, words: NDArray[np.float32]) -> None:
    torch = open_engine(model, "torch")
    expected = {size: torch.run(words[:size]) for size in (1, 2, 7, 64)}
    for _ in range(2):  # compiled here, then from the cache
        engine = open_engine(model, "openvino", precision="float32")
        assert (engine.name, engine.precision, engine.device) == ("openvino", "float32", "CPU")
        for size, wanted in expected.items():
            output = engine.run(words[:size])
            np.testing.assert_allclose(np.exp(output), np.exp(wanted), atol=1e-4)
            assert texts(output) == texts(wanted)


def test_the_cache_is_used_and_repaired(model: Path, words: NDArray[np.float32], cache_folder: Path) -> None:
    expected = open_engine(model, "openvino", precision="float32").run(words[:5])
    (built,) = cache_folder.iterdir()
    first = built.stat().st_ino
    np.testing.assert_array_equal(open_engine(model, "openvino", precision="float32").run(words[:5]), expected)
    assert [path.stat().st_ino for path in cache_folder.iterdir()] == [first]
    whole = built.read_bytes()
    for damaged in (b"", b"null\n", whole[: len(whole) // 2]):
        built.write_bytes(damaged)
        np.testing.assert_allclose(
            open_engine(model, "openvino", precision="float32").run(words[:5]), expected, atol=1e-4
        )
        assert abs(built.stat().st_size - len(whole)) < 0.01 * len(whole)  # it holds names that change from run to run


def without_its_last_layer(model: Path, into: Path, **options: Any) -> None:
    network = onnx.load(model)
    for tensor in network.graph.initializer:
        if "rnn.1.embedding" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(network, into, **options)


def test_weights_in_a_second_file_are_read_anew(model: Path, words: NDArray[np.float32], cache_folder: Path) -> None:
    apart: dict[str, Any] = {"save_as_external_data": True, "location": "weights", "size_threshold": 1024}
    expected = open_engine(model, "openvino", precision="float32").run(words[:2])
    kept = sorted(cache_folder.iterdir())
    onnx.save(onnx.load(model), model.parent / "apart.onnx", **apart)
    first = open_engine(model.parent / "apart.onnx", "openvino", precision="float32")
    np.testing.assert_allclose(first.run(words[:2]), expected, atol=1e-4)
    (model.parent / "weights").unlink()
    without_its_last_layer(model, model.parent / "apart.onnx", **apart)
    second = open_engine(model.parent / "apart.onnx", "openvino", precision="float32")
    assert not np.allclose(second.run(words[:2]), expected, atol=1)
    assert sorted(cache_folder.iterdir()) == kept


def test_a_file_replaced_while_it_is_opened(
    model: Path, words: NDArray[np.float32], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes into the cache is what the digest was taken of."""
    expected = open_engine(model, "openvino", precision="float32").run(words[:2])
    for built in cache_folder.iterdir():
        built.unlink()
    original, other = model.read_bytes(), model.with_name("other.onnx")
    without_its_last_layer(model, other)
    load = cache.load

    def replaced_now(name: str) -> bytes | None:
        model.write_bytes(other.read_bytes())
        return load(name)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "load", replaced_now)
        open_engine(model, "openvino", precision="float32")
    model.write_bytes(original)
    np.testing.assert_allclose(open_engine(model, "openvino", precision="float32").run(words[:2]), expected, atol=1e-4)


def test_it_works_without_a_place_for_the_cache(
    model: Path, words: NDArray[np.float32], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_folder.write_text("not a folder")
    with pytest.warns(UserWarning, match=r"\$CRNN_CACHE keeps nothing, .*File exists"):
        assert open_engine(model, "openvino", precision="float32").run(words[:2]).shape == (26, 2, 37)


def test_a_place_for_the_cache_that_nobody_named_is_not_missed(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    cache_folder.write_text("not a folder")
    monkeypatch.delenv("CRNN_CACHE")
    monkeypatch.setattr(cache, "folder", lambda: cache_folder)
    cache.store("x.built", b"")
    assert not recwarn.list


def test_the_cache_keeps_the_latest(cache_folder: Path) -> None:
    names = [cache.key(str(i)) for i in range(12)]
    for i, name in enumerate(names):
        cache.store(name, str(i).encode())
        os.utime(cache_folder / name, (i + 1, i + 1))
    assert [cache.load(name) for name in names[-3:]] == [b"9", b"10", b"11"]
    assert cache.load(names[0]) is None
    assert len(list(cache_folder.iterdir())) <= 9


def with_twin_lstms(model: Path) -> Path:
    """The same network as others export it: the backward LSTMs read the forward ones' tensor, from its end."""
    network = onnx.load(model)
    flipped = {node.output[0]: node.input[0] for node in network.graph.node if node.op_type == "Slice"}
    nodes = [node for node in network.graph.node if node.op_type != "Slice"]
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = flipped.get(name, name)
        if node.op_type == "LSTM" and "bw_rnn" in node.name:
            next(each for each in node.attribute if each.name == "direction").s = b"reverse"
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    onnx.save(network, model)
    return model


def test_two_lstms_that_read_the_same_tensor(model: Path, words: NDArray[np.float32]) -> None:
    expected = open_engine(model, "onnxruntime").run(words[:7])
    twins = with_twin_lstms(model)
    np.testing.assert_allclose(np.exp(open_engine(twins, "onnxruntime").run(words[:7])), np.exp(expected), atol=1e-4)
    output = open_engine(twins, "openvino", precision="float32").run(words[:7])
    np.testing.assert_allclose(np.exp(output), np.exp(expected), atol=1e-4)


def test_a_network_that_mixes_words_up_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(model, "openvino", precision="float32")
    run: Callable[[NDArray[Any]], NDArray[np.float32]] = engine.run
    check_mates(run, engine.spec, model, "float32")

    def swapped(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.roll(run(batch), 1, axis=1)

    def broken(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(run(batch), np.nan)

    for wrong in (swapped, broken):
        for precision in ("float32", "bfloat16", "int8"):
            with pytest.raises(EngineError, match=r"model\.onnx: computed wrongly here.*--engine onnxruntime"):
                check_mates(wrong, engine.spec, model, precision)
    call = OpenVinoEngine._call
    monkeypatch.setattr(OpenVinoEngine, "_call", lambda self, batch: np.roll(call(self, batch), 1, axis=1))
    with pytest.raises(EngineError, match="computed wrongly"):
        open_engine(model, "openvino", precision="float32")


def test_calls_from_many_threads_do_not_touch_each_other(model: Path, words: NDArray[np.float32]) -> None:
    engine = open_engine(model, "openvino", threads=1, precision="float32")
    assert engine.threads == 1
    batches = [words[seed : seed + 1 + seed % 3] for seed in range(40)]
    expected = [engine.run(batch) for batch in batches]
    kept = [output.copy() for output in expected]
    with ThreadPoolExecutor(8) as pool:
        for output, wanted in zip(pool.map(engine.run, batches), expected, strict=True):
            np.testing.assert_allclose(output, wanted, atol=1e-4)
    for output, copy in zip(expected, kept, strict=True):
        np.testing.assert_array_equal(output, copy)


def test_what_it_cannot_do_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="openvino does not compute in float64: choose float32, bfloat16, int8"):
        open_engine(model, "openvino", precision="float64")
    (model.parent / "text.onnx").write_text("hello")
    (model.parent / "text.safetensors").write_text("hello")
    for name in ("text.onnx", "text.safetensors"):
        with pytest.raises(ModelError, match=name) as caught:
            open_engine(model.parent / name, "openvino")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"pip install 'crnn\[openvino\]'"):
        open_engine(model, "openvino")


def test_the_precision_is_the_fastest_that_is_exact_enough() -> None:
    ranges = Ranges("abc", {"x": 1.0}, 10, 100, float32=0.8, int8=0.796, same=0.97)
    lossy = replace(ranges, int8=0.79)
    old, avx2, vnni, amx = ["avx"], ["avx", "avx2"], ["avx512_bf16", "avx512_vnni"], ["avx512_vnni", "amx_bf16"]
    no_vnni = ["avx", "avx2", "avx512f"]
    chosen = [choose_precision(features, ranges, "abc") for features in (old, avx2, no_vnni, vnni, amx)]
    assert chosen == ["float32", "int8", "float32", "int8", "bfloat16"]
    assert choose_precision(vnni, lossy, "abc") == "float32"
    assert choose_precision(vnni, None, "abc") == "float32"
    assert choose_precision(vnni, ranges, "def") == "float32"


def test_ranges_of_other_weights_are_pointed_out(model: Path) -> None:
    ranges = quantization.load(model)
    assert ranges is not None
    replace(ranges, model="0" * 64).save(model)
    engine = open_engine(model, "openvino")
    assert engine.precision != "int8"
    command = f"`crnn quantize TRAINING_LMDB --model {model}`"
    assert any("belongs to other weights" in note and command in note for note in engine.notes)
    assert open_engine(model, "openvino", precision="float32").notes == ()
