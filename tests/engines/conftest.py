"""Engines are tried on copies of the bundled weights, with a cache folder of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import crnn
from crnn import quantization
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import bundled_model
from crnn.images import normalise, prepare
from crnn.spec import DELIVERABLE


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled weights and their ranges, where a test may change them."""
    bundled = bundled_model()
    for path in (bundled, quantization.place(bundled)):
        shutil.copy(path, tmp_path / f"model{''.join(path.suffixes)}")
    return tmp_path / "model.onnx"


@pytest.fixture(scope="session")
def words() -> NDArray[np.float32]:
    """float32[100, 1, 32, 100], the bundled sample."""
    sample = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb")
    return normalise(np.stack([prepare(sample.image(i), DELIVERABLE) for i in range(len(sample))]), DELIVERABLE)
