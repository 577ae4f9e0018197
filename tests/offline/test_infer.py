from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crnn.errors import DatasetError, OptionError
from crnn.offline.bins import prepare_words, prepared_words, read_batch
from crnn.offline.infer import infer
from crnn.offline.results import read_result, result_files
from crnn.spec import DELIVERABLE

TEXTS = [np.base_repr(1000 + 37 * i, 36).lower() for i in range(11)]


@pytest.fixture
def bins(bar_code: Callable[..., bytes], write_lmdb: Callable[..., Path], tmp_path: Path) -> Path:
    path = write_lmdb([(bar_code(text), text) for text in TEXTS])
    prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", DELIVERABLE)
    return tmp_path / "bins"


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("form", ["bin", "txt", "npy"])
@pytest.mark.parametrize("naming", ["benchmark", "ais_bench"])
def test_a_result_is_a_slice_of_axis_1(
    naming: Any, form: Any, batch_size: int, bins: Path, engine: Any, tmp_path: Path
) -> None:
    files = prepared_words(bins)
    done = infer(files, engine, tmp_path / "out", naming=naming, form=form, batch_size=batch_size)
    folder, index = (tmp_path / "out" / "dumpOutput_device0", 1) if naming == "benchmark" else (tmp_path / "out", 0)
    assert (done.folder, done.words, done.kept) == (folder, 11, 0)
    assert [path.name for path in result_files(folder)] == [f"test_{i}_{index}.{form}" for i in range(1, 12)]
    assert {len(batch) for batch in engine.batches} == {batch_size}  # the last one is padded, with its first word
    last = engine.batches[-1]
    used = (11 - 1) % batch_size + 1
    assert all((padding == last[0]).all() for padding in last[used:])
    expected = engine.run(read_batch(files, DELIVERABLE))
    for n in range(11):
        path = folder / f"test_{n + 1}_{index}.{form}"
        if form == "bin":
            assert path.read_bytes() == np.ascontiguousarray(expected[:, n]).tobytes()
        tolerance = 1e-6 if (naming, form) == ("ais_bench", "txt") else 0  # its "%f" has six decimals
        np.testing.assert_allclose(read_result(path, DELIVERABLE), expected[:, n : n + 1], rtol=0, atol=tolerance)


def test_text_has_ais_benchs_lines(bins: Path, engine: Any, tmp_path: Path) -> None:
    infer(prepared_words(bins), engine, tmp_path / "out", naming="ais_bench", form="txt")
    lines = (tmp_path / "out" / "test_1_0.txt").read_text().splitlines()
    assert len(lines) == 26
    assert all(re.fullmatch(r"(-?\d+\.\d{6} ){36}-?\d+\.\d{6}", line) for line in lines)


def test_benchmarks_performance_file(bins: Path, engine: Any, tmp_path: Path) -> None:
    done = infer(prepared_words(bins), engine, tmp_path / "out", batch_size=4, device=3)
    path = tmp_path / "out" / "perf_vision_batchsize_4_device_3.txt"
    assert done.performance == path
    assert done.folder == tmp_path / "out" / "dumpOutput_device3"
    number = r"([\d.e+-]+)"
    module = rf"throughputRate: {number}, moduleLatency: {number}\n"
    lines = rf"\[e2e\] throughputRate: {number}, latency: {number}\n\[data read\] {module}\[preprocess\] {module}"
    lines += rf"\[infer\] throughputRate: {number}, Interface throughputRate: {number}, moduleLatency: {number}\n"
    match = re.fullmatch(lines + rf"\[post\] {module}", path.read_text())
    assert match is not None
    figures = [float(figure) for figure in match.groups()]
    assert figures[0] * figures[1] == pytest.approx(1000 * 11, rel=1e-3)  # words/s, and ms for all words
    for rate, latency in [(2, 3), (4, 5), (7, 8), (9, 10)]:  # words/s, and ms a word
        assert figures[rate] * figures[latency] == pytest.approx(1000, rel=1e-3)
    assert figures[1] == pytest.approx(11 * sum(figures[k] for k in (3, 5, 8, 10)), rel=1e-3)


def test_ais_benchs_summary(bins: Path, engine: Any, tmp_path: Path) -> None:
    done = infer(prepared_words(bins), engine, tmp_path / "out", naming="ais_bench", batch_size=4)
    assert done.performance == tmp_path / "out_summary.json"
    summary = json.loads(done.performance.read_text())
    assert summary["filesinfo"]["10"] == {
        "infiles": [str(bins / "test_11.bin")],
        "outfiles": [str(tmp_path / "out" / "test_11_0.bin")],
    }
    compute = summary["NPU_compute_time"]
    assert list(compute) == ["min", "max", "mean", "median", "percentile(99%)", "count"]
    assert compute["count"] == len(summary["npu_compute_time_list"]) == 3  # without the warm-up
    assert 0 < compute["min"] <= compute["median"] <= compute["percentile(99%)"] <= compute["max"]
    assert summary["throughput"] == pytest.approx(1000 * 4 / compute["mean"])
    assert summary["H2D_latency"]["count"] == summary["D2H_latency"]["count"] == 0
    assert summary["pid"] == os.getpid()
    assert done.lines[1].startswith("[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(")


@pytest.mark.parametrize("form", ["bin", "txt", "npy"])
def test_goes_on_where_it_stopped(form: Any, bins: Path, engine: Any, tmp_path: Path) -> None:
    files = prepared_words(bins)
    done = infer(files, engine, tmp_path / "out", form=form)
    before = {path.name: path.read_bytes() for path in result_files(done.folder)}
    (done.folder / f"test_2_1.{form}").unlink()
    (done.folder / f"test_9_1.{form}").write_bytes(b"" if form == "txt" else b"short")
    engine.batches.clear()
    again = infer(files, engine, tmp_path / "out", form=form, batch_size=1)
    assert (again.words, again.kept) == (2, 9)
    assert {path.name: path.read_bytes() for path in result_files(done.folder)} == before
    assert [batch.tobytes() for batch in engine.batches[1:]] == [files[1].read_bytes(), files[8].read_bytes()]
    last = infer(files, engine, tmp_path / "out", form=form)
    assert (last.words, last.kept, last.performance) == (0, 11, None)


def test_results_of_other_work_are_never_taken_for_these(bins: Path, engine: Any, tmp_path: Path) -> None:
    files = prepared_words(bins)
    folder = infer(files, engine, tmp_path / "out").folder
    with pytest.raises(DatasetError, match="begun with another format"):
        infer(files, engine, tmp_path / "out", form="npy")
    with pytest.raises(DatasetError, match="begun with another input"):
        infer(files[1:], engine, tmp_path / "out")
    engine.path.write_bytes(b"other weights")
    with pytest.raises(DatasetError, match="dumpOutput_device0: begun with another model"):
        infer(files, engine, tmp_path / "out")
    (folder / "crnn-infer.json").unlink()
    with pytest.raises(DatasetError, match=r"test_1_1\.bin: is there already, from elsewhere"):
        infer(files, engine, tmp_path / "out")


def test_only_words_as_the_model_takes_them(bins: Path, engine: Any, tmp_path: Path) -> None:
    (bins / "test_5.bin").write_bytes(bytes(3200))
    with pytest.raises(DatasetError, match=r"test_5\.bin: has 3,200 bytes, but the model takes 12,800"):
        infer(prepared_words(bins), engine, tmp_path / "out")
    np.save(bins / "test_5.npy", np.zeros((1, 1, 32, 100)))
    (bins / "test_5.bin").unlink()
    with pytest.raises(DatasetError, match=r"test_5\.npy: holds float64\[1, 1, 32, 100\]"):
        infer(prepared_words(bins), engine, tmp_path / "out")
    np.save(bins / "test_5.npy", np.zeros((1, 1, 100, 32), np.float32))
    with pytest.raises(DatasetError, match=r"test_5\.npy: holds float32\[1, 1, 100, 32\]"):
        infer(prepared_words(bins), engine, tmp_path / "out")
    for header in (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999999,)}",
    ):
        damaged = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header
        (bins / "test_5.npy").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"test_5\.npy: no NumPy array"):
            infer(prepared_words(bins), engine, tmp_path / "out")
    np.save(bins / "test_5.npy", np.zeros((1, 1, 32, 100), np.float32))  # .npy among .bin is fine
    assert infer(prepared_words(bins), engine, tmp_path / "out").words == 11
    np.save(bins / "test_6.npy", np.zeros((1, 1, 32, 100), np.float32))
    with pytest.raises(DatasetError, match=r"would have the same result file test_6_1\.bin"):
        infer(prepared_words(bins), engine, tmp_path / "new")
    engine.spec = dataclasses.replace(DELIVERABLE, mean=0.4)
    with pytest.raises(DatasetError, match=r"prepared with mean 0\.5, but the model wants 0\.4"):
        infer(prepared_words(bins), engine, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    engine.spec = DELIVERABLE
    with pytest.raises(DatasetError, match="holds the words themselves"):
        infer(prepared_words(bins)[:1], engine, bins, naming="ais_bench")
    with pytest.raises(OptionError, match="batch size"):
        infer(prepared_words(bins), engine, tmp_path / "new", batch_size=0)


def test_pixels_for_aipp(
    bar_code: Callable[..., bytes], write_lmdb: Callable[..., Path], engine: Any, tmp_path: Path
) -> None:
    engine.spec = dataclasses.replace(DELIVERABLE, aipp="gray")
    path = write_lmdb([(bar_code(text), text) for text in TEXTS])
    prepare_words(path, tmp_path / "bins", tmp_path / "label.txt", engine.spec)
    done = infer(prepared_words(tmp_path / "bins"), engine, tmp_path / "out", batch_size=4)
    assert engine.batches[0].shape == (4, 32, 100, 1)
    assert len(result_files(done.folder)) == 11
