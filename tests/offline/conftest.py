"""An engine that reads bar codes, so that tests of the pipeline know what it must answer, and files made without it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crnn.datasets.lmdb import LmdbWriter
from crnn.spec import DELIVERABLE, ModelSpec

_STEP = 7  # gray levels from one class to the next: 36 * 7 = 252


class BarEngine:
    """Time step t looks at pixel (16, 4t): its gray, divided by 7, is the class."""

    name, version, precision, device, threads = "bars", "1", "float32", "CPU", 1
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, spec: ModelSpec = DELIVERABLE) -> None:
        self.path, self.spec = path, spec
        self.batches: list[NDArray[Any]] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        assert batch.shape[1:] == self.spec.input_shape and batch.dtype == self.spec.input_dtype
        self.batches.append(batch)
        line = batch[:, 16, :, 0] if self.spec.aipp else (batch[:, 0, 16] * 0.5 + 0.5) * 255
        classes = np.rint(line[:, [*range(0, 100, 4), 99]] / _STEP).astype(int).T  # [26, N]
        logits = np.where(np.arange(37) == classes[..., np.newaxis], 8.0, 0.0)
        logp: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))).astype(np.float32)
        return logp


@pytest.fixture
def engine(tmp_path: Path) -> BarEngine:
    path = tmp_path / "bars.onnx"
    path.write_bytes(b"bars")
    return BarEngine(path)


@pytest.fixture(scope="session")
def bar_code() -> Callable[[str], bytes]:
    """bar_code(text): a 100 x 32 PNG with one bar a character, its gray the character's class."""

    def draw(text: str) -> bytes:
        picture = np.zeros((32, 100), np.uint8)
        for i, index in enumerate(DELIVERABLE.charset.encode(text)):
            picture[:, 8 * i : 8 * i + 4] = index * _STEP
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    return draw


@pytest.fixture
def write_lmdb(tmp_path: Path) -> Callable[..., Path]:
    """write_lmdb([(picture, label), ...], name="words_lmdb") -> its path."""

    def write(words: Sequence[tuple[bytes, str]], name: str = "words_lmdb") -> Path:
        with LmdbWriter(tmp_path / name) as writer:
            for picture, label in words:
                writer.add(picture, label)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def output_for() -> Callable[[Sequence[str], int], NDArray[np.float32]]:
    """output_for(texts, seed): float32[26, N, 37], log-probabilities with noise whose best paths spell the texts."""

    def make(texts: Sequence[str], seed: int) -> NDArray[np.float32]:
        random = np.random.default_rng(seed)
        logits = random.normal(size=(26, len(texts), 37))
        for n, text in enumerate(texts):
            path = [k for index in DELIVERABLE.charset.encode(text) for k in (index, 0)]
            logits[np.arange(26), n, (path + [0] * 26)[:26]] += 12
        logp: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))).astype(np.float32)
        return logp

    return make
