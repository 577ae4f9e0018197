from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from crnn.engines import FASTEST_FIRST, NAMES, choose
from crnn.engines.processors import usable_processors
from crnn.errors import EngineError


def test_auto_takes_the_fastest_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set(FASTEST_FIRST) <= set(NAMES)
    for name in FASTEST_FIRST:
        assert choose(tmp_path / "model.onnx") == (name, "the fastest installed")
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        choose(tmp_path / "model.onnx")


def test_a_trainers_weights_go_to_torch(tmp_path: Path) -> None:
    assert choose(tmp_path)[0] == choose(tmp_path / "weights.safetensors")[0] == "torch"


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, files: dict[str, str], allowed: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    everything = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_processors(tmp_path) == (allowed or everything)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_processors_mask_counts(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_processors(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
