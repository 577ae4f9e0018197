"""A word's answer must not depend on its batch mates: tried on every network as it is loaded.

OpenVINO 2026.4 (CPU) computes some LSTM graphs wrongly at batch sizes over 1, without a word: two LSTM nodes that read
the same tensor, and any LSTM in a compiled model that was saved and loaded again. At batch size 1 they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.errors import EngineError
from crnn.images import normalise
from crnn.spec import ModelSpec

_TOLERANCE = {"float32": 1e-3}
_COARSE = 0.1
"""The largest difference of a probability where rounding is coarse. What is computed wrongly differs by nearly 1."""


def check_mates(
    run: Callable[[NDArray[Any]], NDArray[np.float32]], spec: ModelSpec, path: Path, precision: str
) -> None:
    """Raise EngineError unless two pictures get the same answers alone as together."""
    batch = normalise(_pictures(spec), spec)
    together = np.exp(run(batch))
    alone = np.exp(np.concatenate([run(batch[i : i + 1]) for i in range(len(batch))], axis=1))
    difference = float(np.abs(together - alone).max())
    if not difference <= _TOLERANCE.get(precision, _COARSE):  # written so that NaN is refused too
        raise EngineError(
            f"{path}: computed wrongly here: what is read in a word depends on the words beside it (probabilities "
            f"differ by {difference:.2g}); use --engine onnxruntime"
        )


def _pictures(spec: ModelSpec) -> NDArray[np.uint8]:
    """Two different pictures of strokes: dark bars of random height and width on light ground."""
    rng = np.random.default_rng(5)
    pictures = np.full((2, *spec.picture_shape), 220, np.uint8)
    for picture, pitch in zip(pictures, (7, 11), strict=True):
        for left in range(2, spec.width - pitch, pitch):
            top, bottom = sorted(rng.integers(0, spec.height, 2).tolist())
            picture[top : bottom + 3, left : left + pitch // 3] = 30
            picture[top : top + 3, left : left + pitch - 2] = 30
    return pictures
