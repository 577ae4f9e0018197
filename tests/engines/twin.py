"""A small ONNX network of the contract's shapes, for what runs behind the double of pyACL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn.spec import DELIVERABLE, SPEC_KEY


def linear(path: Path) -> Path:
    """Each time step is a linear map of the picture's last row, so every word has an answer of its own."""
    weights = np.random.default_rng(3).normal(size=(26, 100, 37)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["actual_input_1", "last"], ["row"], axis=2),  # [N, 1, 100]
        helper.make_node("Transpose", ["row"], ["columns"], perm=[1, 0, 2]),  # [1, N, 100]
        helper.make_node("MatMul", ["columns", "weights"], ["logits"]),  # [26, N, 37]
        helper.make_node("LogSoftmax", ["logits"], ["output1"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, ["N", 1, 32, 100])],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [26, "N", 37])],
        [numpy_helper.from_array(np.array(31), "last"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(model, {SPEC_KEY: DELIVERABLE.to_json()})
    onnx.save(model, path)
    return path


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random input of the contract."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, 32, 100)).astype(np.float32)
