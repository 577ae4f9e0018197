"""Ranges for int8, measured on training words: what ``crnn quantize`` does."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.datasets.split import is_held_out
from crnn.engines import Engine, open_engine
from crnn.engines.artefact import first_line
from crnn.errors import DatasetError, ModelError
from crnn.evaluation.words import prepared, usable_labels
from crnn.images import normalise
from crnn.protocols import COMPARED, protocol_of
from crnn.quantization import Ranges, place

QUANTILE = 0.9999
"""The share of a tensor's values that its range covers; the rarest and largest are cut, so the others are finer."""

_BATCH = 64

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many words are done, and how many there are."""


def calibrate(
    model: Path, datasets: Sequence[Path], words: int = 512, engine: str | None = None, progress: Progress | None = None
) -> Ranges:
    """Measure the ranges of ``model`` on ``words`` words, and what int8 loses, and write the ranges beside it.

    The words are spread evenly over the training words of the LMDB ``datasets``; what is lost is measured on their
    held-out words (:mod:`crnn.datasets.split`) by the engine of that name, by default the fastest installed. A
    tensor's range ends at the mean, over batches of 64, of the quantile :data:`QUANTILE` of its values.

    Raises ModelError if the model is unfit or its ranges cannot be written, DatasetError if there are no words, and
    EngineError if the engine has no int8.
    """
    from crnn.engines.qdq import observed

    if not os.access(model.absolute().parent, os.W_OK):
        raise ModelError(f"{place(model)}: cannot be written there; copy the model into a folder of yours")
    readers = [LmdbReader(path) for path in datasets]
    reference = open_engine(model, "onnxruntime", precision="float32")
    data = model.read_bytes()
    if reference.spec.input_dtype != np.float32:
        raise ModelError(f"{model}: takes pixels; int8 is for files of float32 input")
    probe, names = observed(data, model)
    tops, words = _tops(probe, names, reference, readers, words, progress)
    digest = hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory(prefix="crnn-") as folder:  # nothing lies beside the model before it is measured
        copy = Path(folder) / model.name
        copy.write_bytes(data)
        Ranges(digest, tops, words, 0, 0.0, 0.0, 0.0).save(copy)
        plain, rounded = (
            _texts(open_engine(copy, engine, precision=precision), readers, precision, progress)
            for precision in ("float32", "int8")
        )
    labels = [label for label, _ in plain]
    ranges = Ranges(
        digest,
        tops,
        words,
        held_out=len(labels),
        float32=_share(labels, [text for _, text in plain]),
        int8=_share(labels, [text for _, text in rounded]),
        same=_share([text for _, text in plain], [text for _, text in rounded]),
    )
    ranges.save(model)
    return ranges


def _tops(
    probe: bytes,
    names: list[str],
    engine: Engine,
    readers: Sequence[LmdbReader],
    words: int,
    progress: Progress | None,
) -> tuple[dict[str, float], int]:
    """The end of each tensor's range, and how many words it was measured on: words that training may see."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engine.threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(probe, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class of their own
        what = f"cannot be measured ({first_line(error)}); if its weights lie in a second file, `crnn export` it first"
        raise ModelError(f"{engine.path}: {what}") from None
    quantiles: list[list[float]] = []
    done = 0
    protocol = protocol_of(engine.spec.charset)
    usable = [[i for i in usable_labels(reader, protocol=protocol)[0] if not is_held_out(i)] for reader in readers]
    for reader, indices, count in zip(readers, usable, _shares([len(those) for those in usable], words), strict=True):
        chosen = [indices[k * len(indices) // count] for k in range(count)]
        for _, pixels, _ in prepared(reader, chosen, engine.spec, _BATCH):
            if len(pixels):
                values = session.run(names, {engine.spec.input_name: normalise(pixels, engine.spec)})
                if any(each.min() < 0 for each in values):
                    raise ModelError(f"{engine.path}: has convolutions that read values below 0; they cannot be int8")
                quantiles.append([float(np.quantile(each, QUANTILE)) for each in values])
            done += len(pixels)
            if progress:
                progress("calibrating", done, words)
    if not quantiles:
        raise DatasetError(f"{', '.join(str(reader.path) for reader in readers)}: no training words can be used")
    means = np.mean(quantiles, axis=0)
    return {name: float(f"{mean:.6g}") for name, mean in zip(names, means, strict=True)}, done


def _shares(sizes: Sequence[int], words: int) -> list[int]:
    """How many of ``words`` words each data set gives: as many as it has, or the same number as the others."""
    shares = [0] * len(sizes)
    left = words
    for rank, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[i] = min(sizes[i], left // (len(sizes) - rank))
        left -= shares[i]
    return shares


def _texts(
    engine: Engine, readers: Sequence[LmdbReader], what: str, progress: Progress | None
) -> list[tuple[str, str]]:
    """(label, text) of the held-out words."""
    texts: list[tuple[str, str]] = []
    protocol = protocol_of(engine.spec.charset)
    labelled = [(reader, usable_labels(reader, held_out=True, protocol=protocol)[0]) for reader in readers]
    total = sum(len(labels) for _, labels in labelled)
    for reader, labels in labelled:
        for indices, pixels, _ in prepared(reader, list(labels), engine.spec, _BATCH):
            if indices:
                read = ctc.greedy(engine.run(normalise(pixels, engine.spec))).texts(engine.spec.charset)
                texts += [(labels[i], COMPARED[protocol](text)) for i, text in zip(indices, read, strict=True)]
            if progress:
                progress(what, len(texts), total)
    if not texts:
        raise DatasetError(f"{', '.join(str(reader.path) for reader in readers)}: no held-out word can be used")
    return texts


def _share(these: Sequence[str], those: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(these, those, strict=True)) / len(these)
