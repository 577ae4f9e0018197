"""A network that reads bar codes, so that tests of evaluation know what it must answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.bars import STEP

from crnn.spec import DELIVERABLE, SPEC_KEY


@pytest.fixture(scope="session")
def bar_code_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of the contract's shapes. Time step t looks at pixel (16, 4t); the nearest class's gray wins."""
    grays = 2 * np.arange(37, dtype=np.float32) * STEP / 255 - 1
    sharpness = 2000  # log-probability falls with the squared distance: -s (x - g)^2 = 2 s g x - s g^2 + what is common
    constants = {
        "row": np.array([16]),
        "columns": np.array([*range(0, 100, 4), 99]),
        "slope": 2 * sharpness * grays,
        "offset": -sharpness * grays**2,
    }
    nodes = [
        helper.make_node("Gather", ["actual_input_1", "row"], ["line"], axis=2),
        helper.make_node("Gather", ["line", "columns"], ["pixels"], axis=3),
        helper.make_node("Squeeze", ["pixels"], ["flat"], axes=[1]),
        helper.make_node("Transpose", ["flat"], ["steps"], perm=[2, 0, 1]),
        helper.make_node("Mul", ["steps", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["output1"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "bar_codes",
        [helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, ["N", 1, 32, 100])],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [26, "N", 37])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(model, {SPEC_KEY: DELIVERABLE.to_json()})
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("model") / "bars.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def with_temperature(bar_code_model: Path, tmp_path: Path) -> Callable[[float], Path]:
    """with_temperature(t): the same network, whose spec has the temperature t."""

    def make(temperature: float) -> Path:
        model = onnx.load(bar_code_model)
        helper.set_model_props(model, {SPEC_KEY: replace(DELIVERABLE, temperature=temperature).to_json()})
        path = tmp_path / f"bars{temperature}.onnx"
        onnx.save(model, path)
        return path

    return make
