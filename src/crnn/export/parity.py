"""The gate every exported file passes: it reads real words as the trained network does, or it is not written.

Log-probabilities are compared within a tolerance, the words must be the same. The engine that reads the file is the
one that users read with, and it reads the file as it will lie on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine, open_engine
from crnn.errors import CrnnError, DatasetError, ModelError, OptionError
from crnn.export.onnx import build, round_weights
from crnn.export.onnx import check as check_model
from crnn.files import replaced
from crnn.images import normalise, prepare
from crnn.spec import ModelSpec
from crnn.training.folding import network_of
from crnn.training.network import CRNN

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4  # on log-probabilities, natural logarithm
_CHUNK = 64


@dataclass(frozen=True)
class Changed:
    """A word of the check set that float16 weights read otherwise than the float32 ones they came from."""

    key: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Rounding:
    """What rounding the weights did to the check set, in torch.

    ``difference`` is the largest absolute change of a log-probability, ``changed`` the words that read otherwise.
    """

    difference: float
    changed: tuple[Changed, ...]


@dataclass(frozen=True)
class Report:
    """What the gate saw.

    ``words``: how many of the check set were compared, ``skipped`` of it could not be (undecodable pictures);
    ``read``: how many were read as anything at all (an untrained network reads nothing, and agreeing on that says
    little). ``size`` is the file's, in bytes. ``differences``: batch size -> largest absolute difference of the
    log-probabilities from torch's. ``rounding`` is None in float32.
    """

    path: Path
    size: int
    words: int
    skipped: int
    read: int
    differences: Mapping[int, float]
    rounding: Rounding | None


@dataclass(frozen=True)
class CheckSet:
    """Real words as network input, float32[N, channels, height, width], with their keys and labels."""

    images: NDArray[np.float32]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: int = 0


def sample_words() -> Path:
    """The small LMDB of words that comes with the package."""
    return Path(str(resources.files("crnn") / "samples" / "words_lmdb"))


def load_check_set(path: Path, spec: ModelSpec) -> CheckSet:
    """Every word of an LMDB, prepared as ``spec`` says. Pictures that cannot be decoded are counted and left out.

    Raises DatasetError if it cannot be opened or has no word that can be used.
    """
    reader = LmdbReader(path)
    pictures, keys, labels, reasons = [], [], [], []
    for i in range(len(reader)):
        try:
            picture, label = prepare(reader.image_bytes(i), spec), reader.label(i)
        except CrnnError as error:
            reasons.append(str(error))
            continue
        pictures.append(picture)
        keys.append(reader.key(i))
        labels.append(label)
    if not pictures:
        why = f" ({reasons[0]})" if reasons else ""
        raise DatasetError(f"{path} holds no word that can be read{why}: give another set with --check")
    return CheckSet(normalise(np.stack(pictures), spec), tuple(keys), tuple(labels), len(reasons))


def export(
    state_dict: Mapping[str, Tensor],
    spec: ModelSpec,
    out: Path,
    check: CheckSet,
    *,
    fp16: bool = False,
    batch: int | None = None,
) -> Report:
    """Build the model, pass it through the gate and put it in ``out``; see :func:`build` and :func:`publish`.

    With ``fp16`` the reference is the network with rounded weights, and the report says what rounding changed.
    """
    model = build(state_dict, spec, fp16=fp16, batch=batch)
    if not fp16:
        return publish(model, network_of(state_dict, spec.trunk), spec, out, check)
    before, after = (network_of(weights, spec.trunk) for weights in (state_dict, round_weights(state_dict)))
    return publish(model, after, spec, out, check, unrounded=before)


def publish(
    model: onnx.ModelProto, reference: CRNN, spec: ModelSpec, out: Path, check: CheckSet, unrounded: CRNN | None = None
) -> Report:
    """Write ``model`` to ``out`` if it reads the check set as ``reference`` does; else raise and leave ``out`` alone.

    The words of the check set must be the same strings, and the log-probabilities of its first 1, 2, 7 and 64 words
    (the set is repeated if it is smaller) within 1e-4
    of torch's in float64. ``unrounded`` is the network before its weights were rounded.
    Raises ModelError with the first word or the batch size that differs; OptionError if ``out`` cannot be written.
    """
    if os.path.isdir(out) or not os.path.isdir(out.parent):
        what = "it is a folder" if os.path.isdir(out) else f"no folder {out.parent}"
        raise OptionError(f"{out}: cannot be written ({what})")
    with replaced(out) as temporary:
        onnx.save(model, temporary)
        check_model(temporary)
        engine = open_engine(temporary, "onnxruntime")
        if engine.spec != spec:
            raise ModelError("not written: the spec in the file is not the weights' spec")
        expected = _run_all(reference, check.images)
        texts = decoded_texts(expected, spec)
        _require_same_words(decoded_texts(_run_all(engine, check.images), spec), texts, check)
        report = Report(
            path=out,
            size=temporary.stat().st_size,
            words=len(texts),
            skipped=check.skipped,
            read=sum(map(bool, texts)),
            differences=_require_same_numbers(engine, reference, check.images),
            rounding=_rounding(_run_all(unrounded, check.images), expected, spec, check) if unrounded else None,
        )
    return report


def _run(network: Engine | CRNN, images: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """float32[N, C, H, W] -> float32[T, N, classes], by an engine or by torch."""
    if not isinstance(network, CRNN):
        return network.run(images)
    with torch.no_grad():
        output: NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
    return output


def _run_all(network: Engine | CRNN, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same for any number of images, a batch at a time."""
    return np.concatenate([_run(network, images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK)], axis=1)


def decoded_texts(log_probabilities: NDArray[np.float32], spec: ModelSpec) -> list[str]:
    """The words of float32[T, N, classes], decoded greedily."""
    return [word.text for word in ctc.decode(log_probabilities, spec.charset)]


def _require_same_words(texts: Sequence[str], expected: Sequence[str], check: CheckSet) -> None:
    wrong = [i for i, (text, reference) in enumerate(zip(texts, expected, strict=True)) if text != reference]
    if wrong:
        i = wrong[0]
        raise ModelError(
            f"not written: {len(wrong)} of {len(texts)} words of the check set decode to other strings than in torch,"
            f" first {check.keys[i]}: {texts[i]!r}, in torch {expected[i]!r}"
        )


def _require_same_numbers(engine: Engine, reference: CRNN, images: NDArray[np.float32]) -> dict[int, float]:
    """Batch size -> largest absolute difference over a batch of the first so many images.

    torch computes in float64: in float32 its own rounding can be more than the tolerance in a frame that is unsure.
    """
    exact = deepcopy(reference).double()
    differences = {}
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        difference = differences[size] = float(
            np.abs(_run(engine, batch) - _run(exact, batch.astype(np.float64))).max()
        )
        if not difference <= TOLERANCE:  # NaN is refused too
            raise ModelError(
                f"not written: at batch size {size} the log-probabilities differ from torch's by {difference:.2g}"
                f" (at most {TOLERANCE:g})"
            )
    return differences


def _rounding(before: NDArray[np.float32], after: NDArray[np.float32], spec: ModelSpec, check: CheckSet) -> Rounding:
    words = zip(check.keys, check.labels, decoded_texts(before, spec), decoded_texts(after, spec), strict=True)
    return Rounding(float(np.abs(after - before).max()), tuple(Changed(*word) for word in words if word[2] != word[3]))
