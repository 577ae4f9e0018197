"""An engine that reads bar codes, so that tests of the pipeline know what it must answer, and files made without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.bars import STEP

from crnn.spec import DELIVERABLE, ModelSpec


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
        classes = np.rint(line[:, [*range(0, 100, 4), 99]] / STEP).astype(int).T  # [26, N]
        logits = np.where(np.arange(37) == classes[..., np.newaxis], 8.0, 0.0)
        logp: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))).astype(np.float32)
        return logp


@pytest.fixture
def engine(tmp_path: Path) -> BarEngine:
    path = tmp_path / "bars.onnx"
    path.write_bytes(b"bars")
    return BarEngine(path)


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
