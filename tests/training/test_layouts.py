from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training.foreign_networks import Ascend, Dtrb, Meijieru, Mmocr, Parseq, lively
from torch import Tensor, nn

from crnn.charset import ALNUM36
from crnn.engines import open_engine
from crnn.errors import CheckpointError, CrnnError, ModelError, OptionError
from crnn.spec import ModelSpec
from crnn.training.checkpoints import save_weights
from crnn.training.folding import network_of
from crnn.training.foreign import load, read, save
from crnn.training.initial import initial_weights
from crnn.training.layouts import LAYOUTS, from_ours, to_ours
from crnn.training.network import CRNN

PRINTABLE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def pictures(channels: int = 1, width: int = 100, count: int = 6) -> Tensor:
    return torch.rand(count, channels, 32, width, generator=torch.Generator().manual_seed(5)) * 2 - 1


def time_first(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.transpose(0, 1), 2)


# layout, its network, and the network's answer as log-probabilities [T, N, classes], blank first
CASES: dict[str, tuple[nn.Module, Any, Any]] = {
    "ascend": (Ascend(), pictures(), lambda out: out),
    "meijieru": (Meijieru(), pictures(), lambda out: torch.log_softmax(out, 2)),
    "dtrb": (Dtrb(), pictures(), time_first),
    "dtrb of 3 channels and 94 characters": (Dtrb(95, 3), pictures(3), time_first),
    "mmocr": (Mmocr(), pictures(), lambda out: torch.cat([(x := time_first(out))[..., -1:], x[..., :-1]], 2)),
    "parseq": (Parseq(), pictures(3, 128), time_first),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Tensor], Tensor, Tensor]:
    """(layout, state dict, pictures, log-probabilities)."""
    network, images, answer = CASES[request.param]
    lively(network, images)
    with torch.no_grad():
        expected = answer(network(images))
    return request.param.split()[0], network.state_dict(), images, expected


def run(weights: Mapping[str, Tensor], spec: ModelSpec, images: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = network_of(weights, spec.trunk)(images)
    return output


def test_an_imported_network_computes_what_the_original_does(
    case: tuple[str, dict[str, Tensor], Tensor, Tensor], tmp_path: Path
) -> None:
    layout, state, images, expected = case
    assert (
        expected.std() > 0.05 and (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3
    )  # not the same to all pictures
    torch.save(state, tmp_path / "theirs.pth")
    imported = load(tmp_path / "theirs.pth")
    assert imported.layout.name == layout
    output = run(imported.weights, imported.spec, images)
    assert output.shape == expected.shape == (imported.spec.steps, len(images), imported.spec.charset.classes)
    assert (output - expected).abs().max() <= 1e-5
    assert imported.spec.input_shape == images.shape[1:]

    save_weights(tmp_path / "ours.safetensors", imported.weights, imported.spec)
    engine = open_engine(tmp_path / "ours.safetensors")
    assert engine.spec == imported.spec
    assert abs(engine.run(images.numpy()) - expected.numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"module." + key: value for key, value in state.items()},
        lambda state: {
            "state_dict": {"module." + k: v for k, v in state.items()},
            "epoch": 3,
            "optimizer": {"lr": 0.1},
        },
        lambda state: {"model": {"model." + key: value for key, value in state.items()}, "best_acc": 0.5},
        lambda state: {"state_dict": {k: v for k, v in state.items() if "num_batches" not in k}, "amp": None},
    ],
)
def test_wrappers_are_taken_off(case: tuple[str, dict[str, Tensor], Tensor, Tensor], tmp_path: Path, wrap: Any) -> None:
    layout, state, _, _ = case
    torch.save(wrap(state), tmp_path / "theirs.pth")
    tensors, spec = read(tmp_path / "theirs.pth")
    assert spec is None
    assert {key for key in state if "num_batches" not in key} <= tensors.keys() <= state.keys()
    expected = to_ours(state, LAYOUTS[layout])
    assert all(value.equal(expected[key]) for key, value in to_ours(tensors, LAYOUTS[layout]).items())


def test_what_pictures_each_network_reads(case: tuple[str, dict[str, Tensor], Tensor, Tensor], tmp_path: Path) -> None:
    layout, state, images, _ = case
    torch.save(state, tmp_path / "theirs.pth")
    imported = load(tmp_path / "theirs.pth")
    spec = imported.spec
    assert spec.resampling == ("bilinear" if layout in ("meijieru", "mmocr") else "bicubic")
    assert (spec.mean, spec.std) == ((127 / 255, 127 / 255) if layout == "mmocr" else (0.5, 0.5))
    assert (spec.width, spec.channels) == (images.shape[3], images.shape[1])
    assert spec.charset.symbols == (PRINTABLE if spec.charset.classes == 95 else ALNUM36.symbols)
    assert spec.lineage == (f"theirs.pth: {layout} checkpoint, pytorch gate order",)
    assert bool(imported.notes) == (layout == "mmocr")


def test_training_does_not_begin_with_another_trunk(tmp_path: Path) -> None:
    """The shapes are the same, so nothing else would notice."""
    spec = ModelSpec(trunk="dtrb", steps=24)
    save_weights(tmp_path / "dtrb.safetensors", CRNN(batch_norm=False).state_dict(), spec)
    stream: Any = SimpleNamespace(spec=ModelSpec())
    with pytest.raises(CheckpointError, match="its trunk is 'dtrb', and training is of 'crnn'"):
        initial_weights(tmp_path / "dtrb.safetensors", stream)


# There and back


def random_weights(hidden: int = 256) -> dict[str, Tensor]:
    """Any float32 at all: random bits, without those that are no finite number."""
    generator = torch.Generator().manual_seed(9)
    state = CRNN(hidden=hidden, batch_norm=False).state_dict()
    for key, value in state.items():
        bits = torch.randint(-(2**31), 2**31, value.shape, generator=generator).to(torch.int32).view(torch.float32)
        state[key] = torch.where(bits.isfinite(), bits, torch.tensor(0.25))
    return state


@pytest.mark.parametrize("layout", ["ascend", "meijieru"])
@pytest.mark.parametrize("gates", ["pytorch", "npu"])
def test_exported_and_imported_weights_are_the_same_bits(layout: str, gates: str, tmp_path: Path) -> None:
    weights = random_weights()
    spec = ModelSpec(licence="CC0", lineage=("scratch",), temperature=1.5)
    save(tmp_path / "theirs.pth", weights, spec, layout, gates)
    imported = load(tmp_path / "theirs.pth", gates=gates)
    assert imported.layout.name == layout
    assert imported.weights.keys() == weights.keys()
    assert all(value.equal(weights[key]) for key, value in imported.weights.items())
    if layout == "ascend":  # whose container has room for the spec
        assert replace(imported.spec, lineage=("scratch",)) == spec
    other = load(tmp_path / "theirs.pth", gates="npu" if gates == "pytorch" else "pytorch")
    assert not other.weights["rnn.0.fw_rnn.weight_hh_l0"].equal(weights["rnn.0.fw_rnn.weight_hh_l0"])
    assert os.listdir(tmp_path) == ["theirs.pth"]


@pytest.mark.parametrize(("layout", "network"), [("ascend", Ascend()), ("meijieru", Meijieru())])
def test_their_network_loads_an_export_and_answers_the_same(layout: str, network: nn.Module, tmp_path: Path) -> None:
    ours = lively(CRNN(), pictures())  # with batch normalisation of its own
    save(tmp_path / "out.pth", ours.state_dict(), ModelSpec(), layout)
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    if layout == "ascend":
        assert content["epoch"] == 0 and content["best_acc"] == 0.0
        content = content["state_dict"]
    network.load_state_dict(content)  # strict: every key, every shape
    with torch.no_grad():
        theirs = torch.log_softmax(network.eval()(pictures()), 2)
        assert (theirs - ours(pictures())).abs().max() <= 1e-5


def test_their_normalisation_layers_change_nothing() -> None:
    state = from_ours(random_weights(), LAYOUTS["ascend"])
    norm = nn.BatchNorm2d(512)
    norm.load_state_dict({kind: state[f"cnn.batchnorm4.{kind}"] for kind in norm.state_dict()})
    values = torch.randn(2, 512, 4, 5)
    assert norm.eval()(values).equal(values)


def test_what_those_scripts_cannot_build_is_not_exported(tmp_path: Path) -> None:
    weights = CRNN(batch_norm=False).state_dict()
    for spec, layout, part in [
        (ModelSpec(trunk="dtrb", steps=24), "ascend", "the trunk dtrb"),
        (ModelSpec(channels=3), "meijieru", "3 channels"),
        (ModelSpec(), "parseq", "--layout is ascend or meijieru"),
    ]:
        with pytest.raises(OptionError, match=part):
            save(tmp_path / "out.pth", weights, spec, layout)
    with pytest.raises(OptionError, match="cannot be written"):
        save(tmp_path / "no" / "out.pth", weights, ModelSpec(), "ascend")
    assert not os.listdir(tmp_path)


# What is refused


class Hostile:
    """Unpickled by the book, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": Meijieru(hidden=8).state_dict(), "extra": Hostile(tmp_path / "ran")}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pth: not read: it holds a \w+\.mkdir") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)  # it is hostile indeed
    assert (tmp_path / "ran").exists()


def test_every_key_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state = Ascend(hidden=8).state_dict()
    del state["cnn.conv3.bias"], state["rnn.1.bw_rnn.bias_hh_l0"]
    state["cnn.extra.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "bad.pth")
    message = str(caught.value)
    assert "bad.pth: not the keys of a CRNN in the layout ascend" in message
    assert "missing: cnn.conv3.bias, rnn.1.bw_rnn.bias_hh_l0; unexpected: cnn.extra.weight" in message

    state = Ascend(hidden=8).state_dict()
    state["cnn.conv1.weight"] = torch.zeros(128, 64, 5, 5)
    state["rnn.0.embedding.bias"] = torch.zeros(9)
    state["cnn.batchnorm2.running_var"] = torch.zeros(255)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "bad.pth")
    message = str(caught.value)
    assert "cnn.conv1.weight is [128, 64, 5, 5] instead of [128, 64, 3, 3]" in message
    assert "rnn.0.embedding.bias is [9] instead of [8]" in message
    assert "cnn.batchnorm2.running_var is [255] instead of [256]" in message
    assert "\n" not in message

    state = Ascend(hidden=8).state_dict()
    state["cnn.conv1.bias"][3] = torch.nan
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"cnn\.conv1\.bias holds values that are not finite"):
        load(tmp_path / "bad.pth")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "net.onnx").write_bytes(b"x")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    save_weights(tmp_path / "ours.safetensors", CRNN(batch_norm=False).state_dict(), ModelSpec())
    for name, part in [
        ("none.pth", "no such file"),
        ("", "is a folder"),
        ("text.pth", "not a checkpoint"),
        ("empty.pth", "not a checkpoint"),
        ("text.safetensors", "no safetensors file"),
        ("net.onnx", "ONNX"),
        ("list.pth", "holds no state dict, but list"),
        ("epoch.pth", "holds no state dict, but the keys epoch"),
        ("other.pth", "of no layout we know: ascend, meijieru, dtrb, mmocr, parseq"),
        ("module.pth", r"could run code.*save the state dict alone"),
        ("ours.safetensors", "crnn's own already"),
    ]:
        with pytest.raises(CheckpointError, match=part) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_preparations_that_cannot_be_reproduced_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pth"
    torch.save(Dtrb(hidden=8).state_dict(), path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pad": True}, "--PAD.*aspect ratio"),
        ({"resampling": "cv2.INTER_CUBIC"}, "INTER_CUBIC: OpenCV's.*--resampling bicubic"),
        ({"resampling": "cubic"}, "--resampling is one of nearest"),
        ({"layout": "doctr"}, "docTR's crnn_vgg16_bn is another network"),
        ({"layout": "sierkinhane"}, "INTER_CUBIC.*--layout meijieru"),
        ({"layout": "easyocr"}, "--layout is one of ascend"),
        ({"gates": "onnx"}, "--gates is pytorch or npu"),
        ({"charset": "abc"}, "3 characters, and 37 classes need 36"),
    ]
    for options, part in cases:
        with pytest.raises(OptionError, match=part):
            load(path, **options)
    with pytest.raises(CheckpointError, match=r"None-VGG-BiLSTM-CTC.*missing"):
        state = Dtrb(hidden=8).state_dict()
        torch.save({key: value for key, value in state.items() if "Prediction" not in key}, path)
        load(path)
    torch.save({"feat_extractor.0.weight": torch.zeros(1), "decoder.weight_ih_l0": torch.zeros(1)}, path)
    with pytest.raises(OptionError, match="docTR"):
        load(path)


def test_a_chinese_network_is_not_imported_by_accident(tmp_path: Path) -> None:
    path, charset = tmp_path / "theirs.pth", tmp_path / "chars.txt"
    torch.save({"state_dict": Meijieru(classes=101, hidden=8).state_dict(), "best_acc": 0.9}, path)
    characters = [chr(0x4E00 + i) for i in range(100)]
    charset.write_text("\n".join(characters) + "\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"101 classes are not crnn\.pytorch's.*INTER_CUBIC"):
        load(path, charset=str(charset))
    with pytest.raises(OptionError, match="give the 100 characters"):
        load(path, resampling="bicubic")
    imported = load(path, charset=str(charset), resampling="bicubic", width=160, mean=0.588, std=0.193)
    spec = imported.spec
    assert (spec.charset.symbols, spec.width, spec.steps) == ("".join(characters), 160, 41)
    assert (spec.mean, spec.std, spec.resampling) == (0.588, 0.193, "bicubic")
    one_line = load(path, charset="".join(characters), resampling="bicubic")
    assert one_line.spec.charset == spec.charset


def test_another_precision_becomes_float32_and_is_said(tmp_path: Path) -> None:
    state = Meijieru(hidden=8).half().state_dict()
    torch.save(state, tmp_path / "half.pth")
    imported = load(tmp_path / "half.pth")
    assert all(value.dtype == torch.float32 for value in imported.weights.values())
    assert imported.weights["cnn.conv0.weight"].equal(state["cnn.conv0.weight"].float())
    assert imported.notes == ("the weights are stored as float16; here they are float32",)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"ab\ncd\n", "line 1 is not one character"),
        ("あい".encode("gbk"), "not UTF-8"),
        (b"aa", "'a'"),
    ],
)
def test_charset_files_that_are_none(tmp_path: Path, content: bytes, part: str) -> None:
    torch.save(Meijieru(hidden=8).state_dict(), tmp_path / "theirs.pth")
    (tmp_path / "chars.txt").write_bytes(content)
    with pytest.raises(ModelError, match=part):
        load(tmp_path / "theirs.pth", charset=str(tmp_path / "chars.txt"))
    with pytest.raises(CrnnError, match="no file"):
        load(tmp_path / "theirs.pth", charset=str(tmp_path / "none.txt"))
