"""Checkpoints of other projects, read as data: nothing in the file is run, whatever it was made to do.

A file holds tensors under one of the layouts of :mod:`crnn.training.layouts`, bare or in a container that training
scripts make (``state_dict`` beside ``epoch``, ``optimizer``, ...), with or without the prefixes of wrappers
(``module.``, ``model.``). It says nothing of how pictures were prepared, so that comes from the project that the layout
belongs to, and where this package cannot prepare pictures in that way the import is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crnn.charset import Charset, read_charset
from crnn.errors import CheckpointError, ModelError, OptionError
from crnn.files import replaced
from crnn.spec import FRAME_PITCH, RESAMPLINGS, SPEC_KEY, TRUNKS, ModelSpec
from crnn.training.gates import ORDERS, swap
from crnn.training.layouts import LAYOUTS, Layout, from_ours, recognise, to_ours

EXPORTED = ("ascend", "meijieru")
"""The layouts that can be written too: those whose network is the paper's."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "params")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_OPENCV = (
    "OpenCV's filters do not smooth when they shrink a picture and Pillow's, which crnn uses, do, so the network would"
    " see other pictures than in training. To import it all the same, name the nearest: --resampling "
)
_CANNOT_RESAMPLE = {
    "inter_cubic": f"{_OPENCV}bicubic",
    "inter_linear": f"{_OPENCV}bilinear",
    "inter_area": f"{_OPENCV}box",
    "pad": "DTRB's --PAD keeps the aspect ratio and fills up the right side; crnn stretches pictures to the full width",
}
_CANNOT_IMPORT = {
    "doctr": "docTR's crnn_vgg16_bn is another network (VGG-16, one LSTM of two layers), it keeps the aspect ratio of"
    " pictures and normalises each colour by itself",
    "sierkinhane": "Sierkinhane's training shrinks pictures with OpenCV's INTER_CUBIC. " + _OPENCV + "bicubic, with"
    " --layout meijieru (the keys are the same), --width, --mean and --std",
}
NAMES = (*LAYOUTS, *_CANNOT_IMPORT)
"""What ``--layout`` understands, if only to say why it cannot be done."""


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint in our terms: folded float32 ``weights``, their ``spec``, and what to know about them."""

    weights: dict[str, Tensor]
    spec: ModelSpec
    layout: Layout
    gates: str
    notes: tuple[str, ...]


def load(
    path: Path,
    *,
    layout: str | None = None,
    charset: str | None = None,
    gates: str = "pytorch",
    resampling: str | None = None,
    width: int | None = None,
    mean: float | None = None,
    std: float | None = None,
    pad: bool = False,
) -> Imported:
    """Read a checkpoint of another project.

    ``layout``: a name in :data:`NAMES`; by default it is recognised. ``charset``: a file or a string, see
    :func:`crnn.charset.read_charset`; by default the project's own for that number of classes. ``gates``: the order of
    the LSTM gates in the file (:mod:`crnn.training.gates`). ``resampling``, ``width``, ``mean``, ``std`` override how
    the layout's project prepares pictures; ``pad`` is DTRB's ``--PAD``, which cannot be done.

    Raises CheckpointError for a file that holds no such network, OptionError for an option that cannot be used (and a
    preparation that cannot be reproduced), ModelError for a charset or a spec that cannot be.
    """
    if gates not in ORDERS:
        raise OptionError(f"--gates is pytorch or npu, not {gates!r}")
    _refuse(layout, "pad" if pad else resampling)
    tensors, spec = read(path)
    try:
        found = LAYOUTS[layout] if layout else _recognised(tensors)
        weights = to_ours(tensors, found)
        classes = weights["rnn.1.embedding.bias"].shape[0]
        if found.name == "meijieru" and classes not in found.charsets and spec is None and resampling is None:
            raise OptionError(f"{classes} classes are not crnn.pytorch's. {_CANNOT_IMPORT['sierkinhane']}")
    except (CheckpointError, OptionError) as error:
        raise type(error)(f"{path}: {error}") from None
    if gates == "npu":
        weights = swap(weights)
    changes = {"resampling": resampling, "width": width, "mean": mean, "std": std}
    given = {name: value for name, value in changes.items() if value is not None}
    made = _spec(found, weights, spec, given, charset)
    lineage = (*(spec.lineage if spec else ()), f"{path.name}: {found.name} checkpoint, {gates} gate order")
    notes = list(found.notes)
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.is_floating_point()}
    if kinds != {"float32"}:
        notes.append(f"the weights are stored as {', '.join(sorted(kinds))}; here they are float32")
    return Imported(weights, replace(made, lineage=lineage), found, gates, tuple(notes))


def save(path: Path, weights: Mapping[str, Tensor], spec: ModelSpec, layout: str, gates: str = "pytorch") -> None:
    """Write our weights as a checkpoint that the scripts of ``layout`` load: ``ascend`` or ``meijieru``.

    For Ascend's ``pth2onnx.py`` that is ``{epoch, state_dict, best_acc}``, with the spec under ``crnn.spec``, which
    those scripts do not look at and :func:`load` reads back; for crnn.pytorch a bare state dict. ``gates="npu"`` is for
    the scripts that exchange the gates themselves. The file appears whole or not at all.

    Raises OptionError if that network is not one the scripts build, or the file cannot be written.
    """
    if layout not in EXPORTED:
        raise OptionError(f"--layout is {' or '.join(EXPORTED)} for a .pth file, not {layout!r}")
    if gates not in ORDERS:
        raise OptionError(f"--gates is pytorch or npu, not {gates!r}")
    if spec.trunk != "crnn" or spec.channels != 1:
        what = f"the trunk {spec.trunk} and {spec.channels} channels"
        raise OptionError(f"the {layout} scripts build the paper's convolutions over gray pictures; this has {what}")
    state = from_ours(swap(weights) if gates == "npu" else weights, LAYOUTS[layout])
    content: dict[str, Any] = state
    if layout == "ascend":
        content = {"epoch": 0, "state_dict": state, "best_acc": 0.0, SPEC_KEY: spec.to_json()}
    with replaced(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def read(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    """The tensors of a checkpoint without their wrappers' prefixes, and the spec if :func:`save` put one in.

    Raises CheckpointError if the file is none, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: " + ("is a folder: name the file in it" if path.is_dir() else "no such file"))
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path}: an ONNX file is no checkpoint; crnn reads with it as it is (--model)")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    tensors = _state_dict(content)
    if not tensors:
        what = f"the keys {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path}: holds no state dict, but {what[:200]}")
    stripped = {_without_prefixes(key): tensor for key, tensor in tensors.items()}
    if len(stripped) != len(tensors):
        raise CheckpointError(f"{path}: holds more than one network (the same keys under several prefixes)")
    text = content.get(SPEC_KEY)
    try:
        return stripped, ModelSpec.from_json(text) if isinstance(text, str) else None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no exception of its own for a bad file
        reason = " ".join(str(error).split())
        if name := re.search(r"GLOBAL (\S+)", reason):
            what = f"it holds a {name[1]}, which could run code, and nothing of it was run"
            raise CheckpointError(f"{path}: not read: {what}; save the state dict alone where you trust it") from None
        raise CheckpointError(f"{path}: not a checkpoint that PyTorch can read ({reason[:160]})") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if SPEC_KEY in (file.metadata() or {}):
                raise CheckpointError(f"{path}: these weights are crnn's own already; nothing is to be imported")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: no safetensors file: {error}") from None


def _state_dict(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _without_prefixes(key: str) -> str:
    while prefix := next((each for each in _PREFIXES if key.startswith(each)), ""):
        key = key.removeprefix(prefix)
    return key


def _recognised(tensors: Mapping[str, Tensor]) -> Layout:
    if any(key.startswith("feat_extractor.") for key in tensors):
        raise OptionError(f"--layout doctr: {_CANNOT_IMPORT['doctr']}")
    return recognise(tensors)


def _refuse(layout: str | None, resampling: str | None) -> None:
    """Raise OptionError for what cannot be done, by its name."""
    if layout in _CANNOT_IMPORT:
        raise OptionError(f"--layout {layout}: {_CANNOT_IMPORT[layout]}")
    if layout is not None and layout not in LAYOUTS:
        raise OptionError(f"--layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
    name = (resampling or "bicubic").lower().removeprefix("cv2.")
    if name in _CANNOT_RESAMPLE:
        raise OptionError(f"{'--PAD' if name == 'pad' else f'--resampling {resampling}'}: {_CANNOT_RESAMPLE[name]}")
    if resampling is not None and resampling not in RESAMPLINGS:
        raise OptionError(f"--resampling is one of {', '.join(RESAMPLINGS)}, not {resampling!r}")


def _spec(
    layout: Layout, weights: Mapping[str, Tensor], spec: ModelSpec | None, given: Mapping[str, Any], charset: str | None
) -> ModelSpec:
    """What the weights mean: the spec from the file or the layout's preparation, then what was ``given``."""
    classes, channels = weights["rnn.1.embedding.bias"].shape[0], weights["cnn.conv0.weight"].shape[1]
    fields = {name: getattr(spec, name) for name in spec.__dataclass_fields__} if spec else dict(layout.preparation)
    fields |= {**given, "channels": channels}
    symbols: Charset | None = read_charset(charset) if charset is not None else fields.get("charset")
    if symbols is None:
        symbols = layout.charsets.get(classes)
    if symbols is None:
        raise OptionError(
            f"{layout.name} has no charset of its own for {classes} classes: give the {classes - 1} characters in the"
            " order of their classes with --charset"
        )
    if symbols.classes != classes:
        raise OptionError(f"--charset has {len(symbols)} characters, and {classes} classes need {classes - 1}")
    more, _ = TRUNKS[fields.get("trunk", "crnn")]
    fields |= {"charset": symbols, "steps": fields.get("width", ModelSpec.width) // FRAME_PITCH + more}
    return ModelSpec(**fields)
