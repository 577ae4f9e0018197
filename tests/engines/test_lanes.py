"""How a Reader's calls share the processors."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crnn import Reader, quantization
from crnn.engines import bundled_model
from crnn.engines.lanes import Lanes


def pictures(count: int) -> list[bytes]:
    """PNG files of noise, none like another."""
    files = []
    for i in range(count):
        stream = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (32, 100), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "png")
        files.append(stream.getvalue())
    return files


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_stream_has_calls_beside_each_other_and_reads_the_same(name: str) -> None:
    files = pictures(10)
    reader = Reader(engine=name, threads=2, batch_size=4, precision="float32")
    expected = [reader.read(file) for file in files]
    assert reader._lanes._stream is None  # single pictures need no second model
    assert [word.text for word in reader.read_many(files[:3])] == [word.text for word in expected[:3]]
    assert reader._lanes._stream is None  # nor does a single batch
    words = list(reader.read_many(files))
    assert (reader._lanes.single.engine.threads, reader._lanes.single.calls) == (2, 1)
    assert (reader._lanes.stream().engine.threads, reader._lanes.stream().calls) == (1, 2)
    assert [word.text for word in words] == [word.text for word in expected]
    assert [word.confidence for word in words] == pytest.approx([word.confidence for word in expected], abs=1e-5)


@pytest.mark.parametrize(
    ("threads", "single", "stream"), [(1, (1, 1), (1, 1)), (2, (2, 1), (1, 2)), (20, (4, 5), (3, 6))]
)
def test_no_thread_too_many(threads: int, single: tuple[int, int], stream: tuple[int, int]) -> None:
    lanes = Lanes(bundled_model(), "onnxruntime", threads, None)
    assert (lanes.single.engine.threads, lanes.single.calls) == single
    assert lanes.calls == stream[1]
    lane = lanes.stream()
    assert (lane.engine.threads, lane.calls) == stream
    assert lanes.stream() is lane


@pytest.mark.parametrize("change", ["replaced", "overwritten", "deleted", "its ranges deleted"])
def test_a_stream_has_the_weights_that_were_opened(model: Path, change: str) -> None:
    lanes = Lanes(model, "onnxruntime", 2, None)
    if change == "deleted":
        model.unlink()
    elif change == "its ranges deleted":
        quantization.place(model).unlink()
    else:
        other = model.with_name("other.onnx")
        shutil.copy(model, other)
        if change == "replaced":
            os.replace(other, model)
        else:
            model.write_bytes(other.read_bytes())
    assert lanes.stream() is lanes.single
    assert lanes.calls == lanes.single.calls


def test_torchs_number_of_threads_is_set_where_it_is_asked_for() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert Lanes(bundled_model(), "torch", None, None).single.engine.threads == 3
        assert Lanes(bundled_model(), "torch", 2, None).single.engine.threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
