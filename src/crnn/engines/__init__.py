"""What runs a network: one protocol, one module an engine, and the way to open one by name."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import ModelSpec

_ENGINES = {
    "onnxruntime": "OnnxRuntimeEngine",
    "openvino": "OpenVinoEngine",
    "torch": "TorchEngine",
    "ascend": "AscendEngine",
    "cann": "CannEngine",
}
"""Name of an engine, which is that of its module here, and its class: ``Class(path, threads, precision)``."""

NAMES = tuple(_ENGINES)
"""What an engine is asked for by; the name is that of the library behind it."""

FASTEST_FIRST = ("openvino", "onnxruntime", "torch")
"""The engines that run an ONNX file, in the order in which ``auto`` tries whether they are installed."""


class Engine(Protocol):
    """A loaded network. ``run`` may be called from several threads at once."""

    name: str
    """As it is asked for, such as ``onnxruntime``."""
    version: str
    """The runtime's own version."""
    precision: str
    """The floating-point type it computes in, such as ``float32``."""
    device: str
    """What it really runs on, such as ``CPU``."""
    path: Path
    """The file the weights came from."""
    spec: ModelSpec
    notes: tuple[str, ...]
    """What a user should know about the model, one line each: that a contract had to be assumed, for instance."""

    @property
    def threads(self) -> int:
        """How many threads one call of ``run`` computes in."""
        ...

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """float32[N, channels, height, width] -> float32[steps, N, classes], log-probabilities, class 0 the blank.

        A file with AIPP takes uint8[N, height, width, 1 or 3] (``spec.input_shape`` and ``spec.input_dtype``).

        Raises ModelError if the batch or the network's answer does not have the spec's shape.
        """
        ...


def open_engine(
    model: str | Path | None = None,
    name: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    calls: int | None = None,
) -> Engine:
    """Load ``model`` (default: the bundled weights) into the engine called ``name``, which runs or raises.

    Without a name, or with ``auto``, :func:`choose` picks the engine. ``threads`` is how many threads a call computes
    in (default: one for each processor this process may use). torch has one number for the whole process, which is set
    to it, and by default left as it is; a device has its own ways. ``precision`` (``float32``, ``bfloat16``, ``int8``,
    as far as the engine knows them; default: the engine's own choice) is what it computes in, or it raises. ``calls``
    is how many calls are to run at once: openvino makes room for as many, by default for what fits on the processors.

    Raises EngineError if the engine is unknown or cannot run here, ModelError if the model is unfit, OptionError if the
    engine does not compute in ``precision``.
    """
    path, name, _ = resolve(model, name)
    if name not in NAMES:
        raise EngineError(f"unknown engine {name!r}; choose one of: {', '.join(NAMES)}")
    if not path.exists():
        raise ModelError(f"{path}: no such model")
    more = {"calls": calls} if name == "openvino" else {}
    engine: Engine = getattr(import_module(f"crnn.engines.{name}"), _ENGINES[name])(path, threads, precision, **more)
    return engine


def resolve(model: str | os.PathLike[str] | None, name: str | None) -> tuple[Path, str, str]:
    """(the model's file, default: the bundled weights; the engine, by default :func:`choose`'s; why that one)."""
    path = bundled_model() if model is None else Path(model)
    if name is None or name == "auto":
        return path, *choose(path)
    return path, name, "asked for by name"


def choose(model: Path) -> tuple[str, str]:
    """The engine that ``auto`` means for ``model``, and why.

    ascend for a compiled ``.om``, torch for weights as the trainer keeps them (``.safetensors`` files, run folders),
    for anything else the first of :data:`FASTEST_FIRST` that is installed. One that is installed but broken is not
    passed over: opening it says so.

    Raises EngineError if none is installed.
    """
    if model.suffix == ".om":
        return "ascend", "the one that runs a compiled .om"
    if model.suffix == ".safetensors" or model.is_dir():
        return "torch", "the one that runs a trainer's weights"
    for name in FASTEST_FIRST:
        if find_spec(name) is not None:
            return name, "the fastest installed"
    raise EngineError("no engine is installed: pip install onnxruntime")


def require_float32(name: str, precision: str | None) -> None:
    """Raise OptionError where an engine that computes in float32 alone is asked for something else."""
    if precision not in (None, "float32"):
        raise OptionError(f"the engine {name} does not compute in {precision}: choose float32")


def bundled_model() -> Path:
    """The one ``.onnx`` file in ``crnn/weights``. Raises ModelError if it is not there."""
    folder = Path(__file__).parent.parent / "weights"
    found = sorted(folder.glob("*.onnx"))
    if len(found) != 1:
        raise ModelError(f"{folder}: holds {len(found)} .onnx files instead of one; name a model with --model")
    return found[0]


def check_batch(batch: NDArray[Any], spec: ModelSpec) -> None:
    """Raise ModelError unless ``batch`` is N >= 1 times ``spec.input_shape``, of the type ``spec.input_dtype``."""
    if batch.dtype != spec.input_dtype or batch.shape[1:] != spec.input_shape or len(batch) == 0:
        wanted = ", ".join(map(str, spec.input_shape))
        raise ModelError(f"a batch must be {spec.input_dtype}[N, {wanted}], not {batch.dtype}{list(batch.shape)}")


def check_output(output: NDArray[np.float32], count: int, spec: ModelSpec, path: Path) -> None:
    """Raise ModelError unless ``output`` is [steps, count, classes] of the spec."""
    expected = (spec.steps, count, spec.charset.classes)
    if output.shape != expected:
        shapes = f"{list(output.shape)} instead of {list(expected)}"
        raise ModelError(f"{path}: the network's answer has the shape {shapes} [steps, N, classes]")
