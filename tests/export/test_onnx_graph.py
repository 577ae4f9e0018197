from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from crnn.charset import Charset
from crnn.errors import CheckpointError, ModelError
from crnn.export.onnx import build, round_weights, weights_from_onnx
from crnn.export.parity import CheckSet
from crnn.spec import SPEC_KEY, ModelSpec
from crnn.training.folding import fold, network_of
from crnn.training.network import CRNN

SPEC = ModelSpec(licence="for tests", lineage=("random weights",))
NODES = {
    "Conv": 7,
    "Relu": 7,
    "MaxPool": 4,
    "Squeeze": 5,
    "Transpose": 1,
    "LSTM": 4,
    "Slice": 4,
    "Concat": 2,
    "MatMul": 2,
    "Add": 2,
    "LogSoftmax": 1,
}


@pytest.fixture(scope="module")
def model(weights: dict[str, Tensor]) -> onnx.ModelProto:
    return build(weights, SPEC)


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_graph_is_the_contracts(model: onnx.ModelProto) -> None:
    assert Counter(node.op_type for node in model.graph.node) == NODES
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 11)]
    assert model.ir_version == 6
    assert model.producer_name == "crnn"
    (image,), (output,) = model.graph.input, model.graph.output
    assert (image.name, shape(image)) == ("actual_input_1", ["batch", 1, 32, 100])
    assert (output.name, shape(output)) == ("output1", [26, "batch", 37])
    assert image.type.tensor_type.elem_type == output.type.tensor_type.elem_type == TensorProto.FLOAT


def test_lstms_run_forward_without_initial_states_and_never_share_an_input(model: onnx.ModelProto) -> None:
    lstms = [node for node in model.graph.node if node.op_type == "LSTM"]
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    for node in lstms:
        assert len(node.input) == 4  # X, W, R, B
        assert {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}["direction"] == b"forward"
    assert len({node.input[0] for node in lstms}) == 4
    assert [makers[node.input[0]] for node in lstms] == ["Transpose", "Slice", "Add", "Slice"]


def test_spec_travels_in_the_metadata(model: onnx.ModelProto) -> None:
    (text,) = [entry.value for entry in model.metadata_props if entry.key == SPEC_KEY]
    assert ModelSpec.from_json(text) == SPEC


def test_names_and_size_come_from_the_spec(weights: dict[str, Tensor]) -> None:
    model = build(weights, replace(SPEC, input_name="image", output_name="scores"))
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "scores")


def test_file_sizes(model: onnx.ModelProto, weights: dict[str, Tensor]) -> None:
    assert model.ByteSize() <= 34e6
    assert build(weights, SPEC, fp16=True).ByteSize() <= 17.5e6


def test_fp16_stores_halves_behind_casts_and_computes_in_float32(weights: dict[str, Tensor]) -> None:
    model = build(weights, SPEC, fp16=True)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts.pop("Cast") == 7 + 4 * 2 + 2
    assert counts == NODES
    halves = {each.name for each in model.graph.initializer if each.data_type == TensorProto.FLOAT16}
    casts = {node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    assert halves == casts
    for tensor in model.graph.initializer:
        assert tensor.name in halves or np.prod(tensor.dims) <= 2048  # only biases and Slice's bounds are not halves


def test_onnx_runtime_folds_the_casts_when_it_loads_the_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(build(weights, SPEC, fp16=True).SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert "Cast" not in {node.op_type for node in optimized.graph.node}


@pytest.mark.parametrize("fp16", [False, True])
def test_read_back_and_exported_again_it_is_the_same(weights: dict[str, Tensor], tmp_path: Path, fp16: bool) -> None:
    first = build(weights, SPEC, fp16=fp16)
    onnx.save(first, tmp_path / "first.onnx")
    state, spec = weights_from_onnx(tmp_path / "first.onnx")
    assert spec == SPEC
    expected = round_weights(weights) if fp16 else fold(weights)
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key
    assert build(state, spec, fp16=fp16).SerializeToString() == first.SerializeToString()


def test_rounding_is_idempotent_and_leaves_biases(weights: dict[str, Tensor]) -> None:
    once = round_weights(weights)
    twice = round_weights(once)
    folded = fold(weights)
    for key in folded:
        assert torch.equal(once[key], twice[key])
        assert torch.equal(once[key], folded[key]) == key.rpartition(".")[2].startswith("bias")


def test_weights_too_large_for_float16_are_refused(weights: dict[str, Tensor]) -> None:
    state = dict(fold(weights))
    state["cnn.conv3.weight"] = state["cnn.conv3.weight"] * 1e6
    with pytest.raises(ModelError, match=r"cnn\.conv3\.weight.*--fp16"):
        build(state, SPEC, fp16=True)


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(weights: dict[str, Tensor], value: float, fp16: bool) -> None:
    state = fold(weights)
    last = state["rnn.1.embedding.weight"].clone()
    last[5, 5] = value
    state["rnn.1.embedding.weight"] = last
    with pytest.raises(ModelError, match=r"rnn\.1\.embedding\.weight .* not finite"):
        build(state, SPEC, fp16=fp16)


def test_other_sizes(words: CheckSet) -> None:
    """Width, charset and hidden units: nothing about the standard network is written into the builder."""
    spec = ModelSpec(charset=Charset("abc"), width=48, steps=13)
    network = CRNN(classes=4, hidden=8, batch_norm=False).eval()
    images = words.images[:3, :, :, :48].copy()
    session = onnxruntime.InferenceSession(build(network.state_dict(), spec).SerializeToString())
    (found,) = session.run(None, {"actual_input_1": images})
    with torch.no_grad():
        assert np.allclose(found, network(torch.from_numpy(images)).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "spec", "message"),
    [
        (CRNN(classes=4), ModelSpec(), "4 classes, their spec has 37"),
        (CRNN(channels=3), ModelSpec(), "3 channels, their spec has 1"),
        (CRNN(), ModelSpec(aipp="rgb"), "AIPP stage rgb"),
        (CRNN(), ModelSpec(height=64), "the sizes its spec gives"),
    ],
)
def test_weights_that_do_not_fit_the_spec_are_refused(network: CRNN, spec: ModelSpec, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(network.state_dict(), spec)


def test_missing_or_unknown_tensors_are_refused(weights: dict[str, Tensor]) -> None:
    state = fold(weights)
    with pytest.raises(CheckpointError, match="not the weights of a CRNN"):
        build({**state, "head.weight": torch.zeros(1)}, SPEC)
    del state["cnn.conv4.bias"]
    with pytest.raises(CheckpointError, match=r"cnn\.conv4\.bias"):
        build(state, SPEC)


def test_reading_back_refuses_other_files(model: onnx.ModelProto, tmp_path: Path) -> None:
    foreign = onnx.ModelProto()
    foreign.CopyFrom(model)
    foreign.producer_name = "pytorch"
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="not exported by crnn"):
        weights_from_onnx(tmp_path / "foreign.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"not a model at all" * 100)
    with pytest.raises(ModelError, match=r"noise\.onnx is not an ONNX file"):
        weights_from_onnx(tmp_path / "noise.onnx")
    with pytest.raises(ModelError, match="cannot read"):
        weights_from_onnx(tmp_path / "absent.onnx")


def test_network_of_reads_the_sizes_off_the_weights(weights: dict[str, Tensor]) -> None:
    assert network_of(weights).batch_norm
    assert not network_of(fold(weights)).batch_norm
