from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from crnn import ctc
from crnn.charset import ALNUM36
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.engines import open_engine
from crnn.errors import DatasetError, ModelError, OptionError
from crnn.export.onnx import build, round_weights
from crnn.export.parity import CheckSet, Report, export, load_check_set, publish
from crnn.spec import ModelSpec
from crnn.training.folding import network_of

SPEC = ModelSpec(licence="for tests", lineage=("random weights",))


def torch_output(state: dict[str, Tensor], images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        output: NDArray[np.float32] = network_of(state)(torch.from_numpy(images)).numpy()
    return output


def changed(model: onnx.ModelProto, name: str, by: float) -> onnx.ModelProto:
    """A copy of the model with something random, up to ``by``, added to every value of one initializer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = [each for each in copy.graph.initializer if each.name == name]
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(
        numpy_helper.from_array((array + by * np.random.default_rng(0).random(array.shape)).astype(array.dtype), name)
    )
    return copy


@pytest.fixture(scope="module")
def few(words: CheckSet) -> CheckSet:
    return CheckSet(words.images[:8], words.keys[:8], words.labels[:8])


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def exported(
    request: pytest.FixtureRequest,
    weights: dict[str, Tensor],
    words: CheckSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Report, dict[str, Tensor]]:
    """What the gate reports of the file it wrote, and the weights the file should hold."""
    out = tmp_path_factory.mktemp("exported") / "crnn.onnx"
    report = export(weights, SPEC, out, words, fp16=request.param)
    return report, round_weights(weights) if request.param else weights


def test_the_check_words_tell_networks_apart(weights: dict[str, Tensor], words: CheckSet) -> None:
    """The weights of these tests read the words as many different strings, so equal strings mean something."""
    texts = {word.text for word in ctc.decode(torch_output(weights, words.images), ALNUM36)}
    assert len(texts) > 60


def test_batches_agree_with_torch(exported: tuple[Report, dict[str, Tensor]], words: CheckSet) -> None:
    report, state = exported
    engine = open_engine(report.path, "onnxruntime")
    for size in (1, 2, 7, 64):
        batch = words.images[:size]
        found, expected = engine.run(batch), torch_output(state, batch)
        assert found.shape == (26, size, 37)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4
        assert report.differences[size] < 1e-4
    assert engine.spec == SPEC
    assert report.words == report.read == 70
    assert report.size == report.path.stat().st_size
    assert [each.name for each in report.path.parent.iterdir()] == ["crnn.onnx"]


def test_a_words_output_does_not_depend_on_its_batch(
    exported: tuple[Report, dict[str, Tensor]], words: CheckSet
) -> None:
    engine = open_engine(exported[0].path, "onnxruntime")
    alone = np.concatenate([engine.run(words.images[i : i + 1]) for i in range(8)], axis=1)
    assert np.abs(alone - engine.run(words.images)[:, :8]).max() < 1e-4


def test_rounding_is_reported_word_by_word(
    exported: tuple[Report, dict[str, Tensor]], weights: dict[str, Tensor], words: CheckSet
) -> None:
    rounding, state = exported[0].rounding, exported[1]
    if state is weights:
        assert rounding is None
        return
    assert rounding is not None
    before, after = torch_output(weights, words.images), torch_output(state, words.images)
    assert rounding.difference == pytest.approx(np.abs(before - after).max(), rel=1e-2)
    expected = [
        (key, label, old.text, new.text)
        for key, label, old, new in zip(
            words.keys, words.labels, ctc.decode(before, ALNUM36), ctc.decode(after, ALNUM36), strict=True
        )
        if old.text != new.text
    ]
    assert [(each.key, each.label, each.before, each.after) for each in rounding.changed] == expected


def test_graph_that_reads_other_words_is_not_written(weights: dict[str, Tensor], few: CheckSet, tmp_path: Path) -> None:
    out = tmp_path / "crnn.onnx"
    out.write_bytes(b"an older file")
    wrong = changed(build(weights, SPEC), "rnn.1.embedding.bias", 5)
    with pytest.raises(ModelError, match=r"not written: \d+ of 8 words .* first image-\d{9}: '\w*', in torch '\w*'"):
        publish(wrong, network_of(weights), SPEC, out, few)
    assert out.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [out]


def test_unflipped_backward_lstm_is_not_written(weights: dict[str, Tensor], few: CheckSet, tmp_path: Path) -> None:
    wrong = build(weights, SPEC)
    (node,) = [each for each in wrong.graph.node if each.name == "rnn.0.joined"]
    node.input[1] = "rnn.0.bw_rnn.out"
    with pytest.raises(ModelError, match="not written"):
        publish(wrong, network_of(weights), SPEC, tmp_path / "crnn.onnx", few)
    assert not list(tmp_path.iterdir())


def test_same_words_with_other_numbers_are_not_written(
    weights: dict[str, Tensor], few: CheckSet, tmp_path: Path
) -> None:
    wrong = changed(build(weights, SPEC), "rnn.1.embedding.bias", 1e-3)
    with pytest.raises(ModelError, match=r"not written: at batch size 1 the log-probabilities differ"):
        publish(wrong, network_of(weights), SPEC, tmp_path / "crnn.onnx", few)
    assert not list(tmp_path.iterdir())


def test_graph_that_is_not_valid_is_not_written(weights: dict[str, Tensor], few: CheckSet, tmp_path: Path) -> None:
    wrong = build(weights, SPEC)
    wrong.graph.node[0].input[1] = "nothing has this name"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        publish(wrong, network_of(weights), SPEC, tmp_path / "crnn.onnx", few)
    assert not list(tmp_path.iterdir())


def test_file_with_another_spec_is_not_written(weights: dict[str, Tensor], few: CheckSet, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="spec in the file"):
        publish(build(weights, ModelSpec()), network_of(weights), SPEC, tmp_path / "crnn.onnx", few)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(weights: dict[str, Tensor], few: CheckSet, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no folder"):
        export(weights, SPEC, tmp_path / "absent" / "crnn.onnx", few)
    with pytest.raises(OptionError, match="it is a folder"):
        export(weights, SPEC, tmp_path, few)


def test_undecodable_pictures_are_left_out_and_counted(words_lmdb: Path, tmp_path: Path) -> None:
    reader = LmdbReader(words_lmdb)
    with LmdbWriter(tmp_path / "mixed") as writer:
        writer.add(b"no picture", "first")
        writer.add(reader.image_bytes(3), reader.label(3))
    check = load_check_set(tmp_path / "mixed", SPEC)
    assert (check.keys, check.labels, check.skipped) == (("image-000000002",), (reader.label(3),), 1)
    assert check.images.shape == (1, 1, 32, 100)
    with LmdbWriter(tmp_path / "bad") as writer:
        writer.add(b"no picture", "first")
    with pytest.raises(DatasetError, match="no word that can be read"):
        load_check_set(tmp_path / "bad", SPEC)
