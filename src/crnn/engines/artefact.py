"""What the engines of ONNX files share: the spec in the file, whether the network fits it, batches of a fixed size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.engines import check_batch, check_output
from crnn.errors import ModelError
from crnn.spec import DELIVERABLE, SPEC_KEY, ModelSpec


class Port(NamedTuple):
    """An input or output as the file declares it. A size that is free is a string or None."""

    name: str
    kind: str
    """ONNX's name of the type, such as ``tensor(float)``."""
    shape: Sequence[int | str | None]


def read_spec(
    path: Path, text: str | None, inputs: Sequence[Port], outputs: Sequence[Port]
) -> tuple[ModelSpec, tuple[str, ...], int | None]:
    """(the spec, notes for the user, the batch size if the file fixes it) of a network.

    ``text`` is the file's own spec, from its metadata. A file without one, made by somebody else's exporter, is taken
    to follow the deliverable's contract, and the notes say so; a single input and output may have names of their own.

    Raises ModelError if ``text`` is no spec, or if the inputs and outputs are not what the spec says.
    """
    notes: tuple[str, ...] = ()
    if text is not None:
        try:
            spec = ModelSpec.from_json(text)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
    else:
        spec = DELIVERABLE
        if len(inputs) == len(outputs) == 1:
            spec = dataclasses.replace(DELIVERABLE, input_name=inputs[0].name, output_name=outputs[0].name)
        notes = (f"{path.name} carries no {SPEC_KEY}: read as 1 x 32 x 100 gray, 26 steps, blank and 0-9a-z",)
    batch = _check(path, "input", inputs, spec.input_name, (None, spec.channels, spec.height, spec.width), 0)
    _check(path, "output", outputs, spec.output_name, (spec.steps, None, spec.charset.classes), 1)
    return spec, notes, batch


def run_in_pieces(
    call: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batch: NDArray[np.float32],
    size: int | None,
    spec: ModelSpec,
    path: Path,
) -> NDArray[np.float32]:
    """What :meth:`crnn.engines.Engine.run` gives, by ``call``, which takes batches of ``size`` only (None: of any).

    The last piece is filled up with empty pictures. Raises ModelError if the batch or the answer is not the spec's.
    """
    check_batch(batch, spec)
    if size is None or size == len(batch):
        output = call(batch)
    else:
        missing = -len(batch) % size
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        pieces = [call(padded[i : i + size]) for i in range(0, len(padded), size)]
        output = np.concatenate(pieces, axis=1)[:, : len(batch)]
    check_output(output, len(batch), spec, path)
    return output


def first_line(error: Exception) -> str:
    """The first line of a library's message that is not only a place in its source, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[:200] for line in lines if line and not line.startswith("Exception from")), type(error).__name__)


def _check(
    path: Path, what: str, ports: Sequence[Port], name: str, expected: tuple[int | None, ...], batch_axis: int
) -> int | None:
    """Compare the model's declared input or output with the spec; the batch size if the file fixes it, else None."""
    port = next((port for port in ports if port.name == name), None)
    if port is None:
        names = ", ".join(port.name for port in ports)
        raise ModelError(f"{path}: has no {what} called {name!r} (it has: {names})")
    if port.kind != "tensor(float)":
        raise ModelError(f"{path}: {what} {name} is {port.kind} instead of tensor(float)")
    shape = list(port.shape)
    fits = len(shape) == len(expected) and all(
        want is None or not isinstance(have, int) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ["N" if size is None else size for size in expected]
        raise ModelError(f"{path}: {what} {name} has the shape {shape} instead of {wanted}")
    batch = shape[batch_axis]
    return batch if isinstance(batch, int) and batch > 0 else None
