"""The largest speed at which this machine multiplies matrices, by the libraries that the engines compute with.

A network cannot compute faster than its largest products would. So the share of that speed says how much is left to
gain. One library's product may be far from the peak on a processor it does not know; of several the fastest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZE = 2048
"""Rows and columns: large enough to be as fast as any, and in float32 16 MB a matrix."""

LIBRARIES = {
    "numpy": ("float32",),
    "openvino": ("float32", "bfloat16", "int8"),
    "torch": ("float32", "bfloat16"),
}
"""What each can multiply in. ONNX Runtime is not here: it needs a model file, and NumPy does its float32 as well."""


def open_product(library: str, precision: str, threads: int, size: int = SIZE) -> Callable[[], object]:
    """A function that multiplies two square matrices of ``size`` once.

    NumPy's threads are set by the environment the process was started with (see :mod:`crnn.bench.worker`).
    """
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    if library == "numpy":
        out = np.empty_like(left)
        return lambda: np.matmul(left, right, out=out)
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = torch.from_numpy(left).to(kind), torch.from_numpy(right).to(kind)
        return lambda: torch.mm(a, b)
    return _openvino(left, right, precision, threads)


def _openvino(left: Any, right: Any, precision: str, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13 as ops

    def quantised(node: Any, levels: int) -> Any:
        ends = np.float32(-4), np.float32(4)
        return ops.fake_quantize(node, *ends, *ends, levels)

    given: Any = ops.parameter(left.shape, np.float32)
    kept: Any = ops.constant(right)
    factors = (quantised(given, 256), quantised(kept, 255)) if precision == "int8" else (given, kept)
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    model = openvino.Model([ops.matmul(*factors, False, False)], [given])
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(left))  # a copy, which the request keeps alive
    infer: Callable[[], object] = request.infer
    return infer


def rate(multiply: Callable[[], object], size: int = SIZE, seconds: float = 0.5) -> float:
    """Multiply-adds a second of the fastest call within ``seconds``, after one that does not count."""
    multiply()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        multiply()
        done = time.perf_counter()
        best = min(best, done - began)
        if done >= end:
            return float(size) ** 3 / best
