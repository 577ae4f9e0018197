"""A model repository for NVIDIA Triton Inference Server: ``DIR/crnn/config.pbtxt`` and ``DIR/crnn/1/model.onnx``.

The layout and the fields are those of Triton's documents "Model Repository" and "Model Configuration"; the file is a
ModelConfig message of ``model_config.proto`` in protobuf's text format, for the ``onnxruntime`` backend.

Triton's batches have their axis first in every tensor, and the contract's output has it second. So there are two forms:

- As it is: ``max_batch_size: 0``, which tells Triton nothing of batches. A request has any number of words, and each
  request is a call of the network of its own.
- Batch first: a Transpose behind the output makes it ``[N, steps, classes]``, and Triton batches requests together.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from torch import Tensor

from crnn.engines import open_engine
from crnn.errors import ModelError, OptionError
from crnn.export import parity
from crnn.export.onnx import check as check_model
from crnn.files import make_folder
from crnn.spec import SPEC_KEY, ModelSpec

NAME = "crnn"
MAX_BATCH = 64
QUEUE_DELAY = 2000
"""Microseconds that a request waits for others to share a batch with: a small part of what a batch takes on a CPU."""


def export(
    state_dict: Mapping[str, Tensor],
    spec: ModelSpec,
    repository: Path,
    check: parity.CheckSet,
    *,
    fp16: bool = False,
    batch_first: bool = False,
) -> parity.Report:
    """Write ``repository/crnn``, whole or not at all, if the network passes :func:`crnn.export.parity.export`'s gate.

    The batch-first form has to read the check set as the other does, too.

    Raises ModelError if it does not pass; OptionError if ``repository/crnn`` is there already or cannot be written.
    """
    model = repository / NAME
    if model.exists():
        raise OptionError(f"{model}: is there already; remove it, or name another folder for --triton")
    make_folder(repository)
    temporary = repository / f".{NAME}.tmp"
    file = temporary / "1" / "model.onnx"
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(temporary)  # left by one that was killed
        file.parent.mkdir(parents=True)
        report = parity.export(state_dict, spec, file, check, fp16=fp16)
        if batch_first:
            _put_batch_first(file, spec, check)
        (temporary / "config.pbtxt").write_text(config(spec, batch_first=batch_first), encoding="utf-8")
        size = file.stat().st_size
        os.replace(temporary, model)
    except OSError as error:
        raise OptionError(f"{model}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(report, path=model / "1" / "model.onnx", size=size)


def config(spec: ModelSpec, *, batch_first: bool) -> str:
    """The text of ``config.pbtxt``. Its parameter ``crnn.spec`` tells clients what they need to know of the weights."""
    batch = [] if batch_first else [-1]
    sizes = [*batch, *spec.input_shape], [spec.steps, *batch, spec.charset.classes]
    lines = [
        f'name: "{NAME}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if batch_first else 0}",
        _tensor("input", spec.input_name, sizes[0]),
        _tensor("output", spec.output_name, sizes[1]),
    ]
    if batch_first:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}")
    lines.append(f"parameters {{ key: {_quoted(SPEC_KEY)} value {{ string_value: {_quoted(spec.to_json())} }} }}")
    return "\n".join(lines) + "\n"


def _tensor(what: str, name: str, dims: list[int]) -> str:
    return f"{what} [ {{ name: {_quoted(name)} data_type: TYPE_FP32 dims: {dims} }} ]"


def _quoted(text: str) -> str:
    """A string of protobuf's text format. The texts are JSON or names: no control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _put_batch_first(path: Path, spec: ModelSpec, check: parity.CheckSet) -> None:
    """Give the model in ``path`` its output as float32[batch, steps, classes], and compare what both forms read.

    The spec is taken out of the file: it says that the steps come first, and ``crnn read`` would go by it.
    """
    engine = open_engine(path, "onnxruntime")
    model = onnx.load(path)
    inner = f"{spec.output_name}.steps_first"
    last = next(node for node in model.graph.node if spec.output_name in node.output)
    last.output[:] = [inner]
    model.graph.node.append(
        helper.make_node(
            "Transpose", [inner], [spec.output_name], name=f"{spec.output_name}.batch_first", perm=[1, 0, 2]
        )
    )
    shape: list[str | int] = ["batch", spec.steps, spec.charset.classes]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(spec.output_name, TensorProto.FLOAT, shape))
    helper.set_model_props(model, {})
    batches = [check.images[i : i + MAX_BATCH] for i in range(0, len(check.images), MAX_BATCH)]
    expected = [engine.run(batch) for batch in batches]
    onnx.save(model, path)
    check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, before in zip(batches, expected, strict=True):
        after = np.asarray(session.run([spec.output_name], {spec.input_name: batch})[0]).transpose(1, 0, 2)
        same = parity.decoded_texts(after, spec) == parity.decoded_texts(before, spec)
        if not (same and np.abs(after - before).max() <= parity.TOLERANCE):  # NaN is refused too
            raise ModelError("not written: with the batch axis first the network reads other words")
