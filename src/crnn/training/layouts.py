"""Other projects' checkpoints of this network: what each calls its tensors, and how its pictures were prepared.

The same seven convolutions and two bidirectional LSTM layers are published under several names. A :class:`Layout` is
one of those conventions; :func:`to_ours` and :func:`from_ours` translate a state dict. The names, shapes and
preparations are those of the projects' own model files and training configurations:

- ``ascend``: CRNN in Ascend's ModelZoo-PyTorch (``crnn.py``), two one-way LSTMs a layer;
- ``meijieru``: crnn.pytorch (``models/crnn.py``), and Sierkinhane's CRNN_Chinese_Characters_Rec, with the same keys;
- ``dtrb``: clovaai's deep-text-recognition-benchmark, VGG-BiLSTM-CTC;
- ``mmocr``: open-mmlab's MMOCR (``_base_crnn_mini-vgg.py``);
- ``parseq``: the CRNN of baudm's PARSeq repository.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crnn.charset import ALNUM36, Charset
from crnn.errors import CheckpointError
from crnn.training.folding import fold
from crnn.training.network import CRNN, LAYERS

_LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_NORM = ("weight", "bias", "running_mean", "running_var")
_HEAD = "head"  # DTRB's linear layer behind the last one; ours has none
_MIXED62 = Charset(string.digits + string.ascii_letters)
_PRINTABLE94 = Charset(string.digits + string.ascii_letters + string.punctuation)

# A variance for which normalising changes nothing. BatchNorm divides by sqrt(variance + 1e-5). No float32 gives exactly
# 1 there, but with the nearest one the quotient, in float64, is so close to 1 (1.5e-8 at most) that no float32 weight
# times it rounds to another: folding these layers away gives the same bits back.
_IDENTITY_VARIANCE = 1 - torch.nn.BatchNorm2d(1).eps


@dataclass(frozen=True)
class Layout:
    """One project's names for the tensors.

    ``convs``: prefixes of the seven convolutions. ``norms``: index of a convolution -> prefix of the BatchNorm behind
    it; ``biased`` says whether those convolutions have a bias of their own. ``recurrent``: prefix of an LSTM layer,
    ``{}`` being 0 or 1; ``directions``: its forward and backward tensors, ``{}`` being a tensor's kind; ``linear``: its
    linear layer. ``head``: prefix of a further linear layer at the end, if there is one. ``preparation``: what in the
    spec is not the deliverable's. ``charsets``: the project's charset for a number of classes. ``notes``: what cannot
    be the same here as there; ``hint``: what to say to somebody whose keys do not fit.
    """

    name: str
    convs: tuple[str, ...] = tuple(f"cnn.conv{i}" for i in range(7))
    norms: Mapping[int, str] = field(default_factory=lambda: {i: f"cnn.batchnorm{i}" for i in (2, 4, 6)})
    biased: bool = True
    recurrent: str = "rnn.{}"
    directions: tuple[str, str] = ("rnn.{}_l0", "rnn.{}_l0_reverse")
    linear: str = "embedding"
    head: str | None = None
    blank_last: bool = False
    preparation: Mapping[str, Any] = field(default_factory=dict)
    charsets: Mapping[int, Charset] = field(default_factory=lambda: {37: ALNUM36})
    notes: tuple[str, ...] = ()
    hint: str = ""

    def names(self) -> dict[str, str]:
        """Our name of every tensor that a state dict of this layout must have -> its name there."""
        names: dict[str, str] = {}
        for i, theirs in enumerate(self.convs):
            kinds = ("weight", "bias") if self.biased or i not in self.norms else ("weight",)
            names |= {f"cnn.conv{i}.{kind}": f"{theirs}.{kind}" for kind in kinds}
        for i, theirs in self.norms.items():
            names |= {f"cnn.batchnorm{i}.{kind}": f"{theirs}.{kind}" for kind in _NORM}
        for k in range(2):
            layer = self.recurrent.format(k)
            for ours, theirs in zip(("fw_rnn", "bw_rnn"), self.directions, strict=True):
                names |= {f"rnn.{k}.{ours}.{kind}_l0": f"{layer}.{theirs.format(kind)}" for kind in _LSTM}
            names |= {f"rnn.{k}.embedding.{kind}": f"{layer}.{self.linear}.{kind}" for kind in ("weight", "bias")}
        if self.head:
            names |= {f"{_HEAD}.{kind}": f"{self.head}.{kind}" for kind in ("weight", "bias")}
        return names


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("ascend", directions=("fw_rnn.{}_l0", "bw_rnn.{}_l0")),
        Layout("meijieru", preparation={"resampling": "bilinear"}),
        Layout(
            "dtrb",
            convs=tuple(f"FeatureExtraction.ConvNet.{i}" for i in (0, 3, 6, 8, 11, 14, 18)),
            norms={4: "FeatureExtraction.ConvNet.12", 5: "FeatureExtraction.ConvNet.15"},
            biased=False,
            recurrent="SequenceModeling.{}",
            linear="linear",
            head="Prediction",
            preparation={"trunk": "dtrb"},
            charsets={37: ALNUM36, 95: _PRINTABLE94},
            hint="of its networks only None-VGG-BiLSTM-CTC is a CRNN",
        ),
        Layout(
            "mmocr",
            convs=tuple(f"backbone.cnn.conv{i}" for i in range(7)),
            norms={i: f"backbone.cnn.batchnorm{i}" for i in (2, 4, 6)},
            recurrent="decoder.decoder.{}",
            blank_last=True,
            preparation={"resampling": "bilinear", "mean": 127 / 255, "std": 127 / 255},
            notes=(
                "pictures are stretched to 100 x 32, as MMOCR trains; its tests keep the aspect ratio, so its published"
                " figures are of another width",
                "MMOCR shrinks pictures with OpenCV's bilinear filter, here it is Pillow's, which smooths them",
            ),
        ),
        Layout(
            "parseq",
            biased=False,
            linear="linear",
            preparation={"width": 128},
            charsets={37: ALNUM36, 63: _MIXED62, 95: _PRINTABLE94},
        ),
    )
}


def recognise(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout that shares most keys with ``tensors``. Raises CheckpointError if none shares half of its own."""
    shared = {layout.name: sum(key in tensors for key in layout.names().values()) for layout in LAYOUTS.values()}
    best = LAYOUTS[max(shared, key=lambda name: shared[name])]
    if shared[best.name] * 2 < len(best.names()):
        some = ", ".join(list(tensors)[:3])
        raise CheckpointError(f"its keys ({some}, ...) are of no layout we know: {', '.join(LAYOUTS)}")
    return best


def to_ours(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """A state dict of ``layout`` as float32 weights of :class:`~crnn.training.network.CRNN`, folded.

    What the network computes stays the same: BatchNorm goes into the convolutions, DTRB's last linear layer into the
    one before it (both computed in float64 and rounded once), a blank that is the last class becomes class 0.

    Raises CheckpointError, one line with every key that is missing, unexpected or of the wrong shape, or where a value
    is not finite.
    """
    names = layout.names()
    _check(tensors, layout, names)
    state = {ours: tensors[theirs].detach().float().clone() for ours, theirs in names.items()}
    for ours, value in state.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{names[ours]} holds values that are not finite: their training has failed")
    state = fold(state)
    if layout.head:
        matrix, bias = (state.pop(f"{_HEAD}.{kind}").double() for kind in ("weight", "bias"))
        inner = {kind: state[f"rnn.1.embedding.{kind}"].double() for kind in ("weight", "bias")}
        state["rnn.1.embedding.weight"] = (matrix @ inner["weight"]).float()
        state["rnn.1.embedding.bias"] = (matrix @ inner["bias"] + bias).float()
    if layout.blank_last:
        for kind in ("weight", "bias"):
            state[f"rnn.1.embedding.{kind}"] = state[f"rnn.1.embedding.{kind}"].roll(1, 0)
    return state


def from_ours(state_dict: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our weights (folded or not) as a state dict of ``layout``, ``ascend`` or ``meijieru``: the inverse of
    :func:`to_ours`, to the bit.

    Those networks have BatchNorm behind convolutions 2, 4 and 6. It is written so that it changes nothing: scale 1,
    shift 0, mean 0, and the variance that makes the divisor 1.
    """
    state = fold(state_dict)
    for i in layout.norms:
        width = LAYERS[i][0]
        values = dict(zip(_NORM, (1.0, 0.0, 0.0, _IDENTITY_VARIANCE), strict=True))
        state |= {f"cnn.batchnorm{i}.{kind}": torch.full((width,), value) for kind, value in values.items()}
    foreign = {theirs: state[ours].clone() for ours, theirs in layout.names().items()}
    return foreign | {f"{norm}.num_batches_tracked": torch.tensor(0) for norm in layout.norms.values()}


def _check(tensors: Mapping[str, Tensor], layout: Layout, names: Mapping[str, str]) -> None:
    """Raise CheckpointError unless ``tensors`` are those that ``names`` (ours -> theirs) promise."""
    counters = {f"{norm}.num_batches_tracked" for norm in layout.norms.values()}  # PyTorch before 0.4.1 has none
    complaints = []
    if missing := [key for key in names.values() if key not in tensors]:
        complaints.append(f"missing: {', '.join(missing)}")
    if unexpected := [key for key in tensors if key not in counters.union(names.values())]:
        complaints.append(f"unexpected: {', '.join(unexpected)}")
    if not missing:
        expected = _shapes(tensors, layout, names)
        wrong = [
            f"{theirs} is {list(tensors[theirs].shape)} instead of {expected[ours]}"
            for ours, theirs in names.items()
            if list(tensors[theirs].shape) != expected[ours]
        ]
        if wrong:
            complaints.append(f"wrong shape: {', '.join(wrong)}")
    if complaints:
        hint = f" ({layout.hint})" if layout.hint else ""
        raise CheckpointError(f"not the keys of a CRNN in the layout {layout.name}{hint}; {'; '.join(complaints)}")


def _shapes(tensors: Mapping[str, Tensor], layout: Layout, names: Mapping[str, str]) -> dict[str, list[int]]:
    """Our name -> the shape its tensor must have, by the number of channels, hidden units and classes."""
    channels = _size(tensors, names["cnn.conv0.weight"], 1)
    hidden = _size(tensors, names["rnn.0.fw_rnn.weight_hh_l0"], 1)
    classes = _size(tensors, names[f"{_HEAD if layout.head else 'rnn.1.embedding'}.bias"], 0)
    with torch.device("meta"):  # shapes alone, no memory
        network = CRNN(hidden if layout.head else classes, channels, hidden, batch_norm=False)
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    shapes |= {f"cnn.batchnorm{i}.{kind}": [LAYERS[i][0]] for i in layout.norms for kind in _NORM}
    return shapes | {f"{_HEAD}.weight": [classes, hidden], f"{_HEAD}.bias": [classes]}


def _size(tensors: Mapping[str, Tensor], key: str, axis: int) -> int:
    if tensors[key].ndim <= axis:
        raise CheckpointError(f"{key} has the shape {list(tensors[key].shape)}, which no CRNN's has")
    return tensors[key].shape[axis]
