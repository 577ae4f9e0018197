"""What a model's weights mean: the one description that training, export, evaluation and reading all derive from.

The spec travels inside the artefact (ONNX metadata and safetensors header, under :data:`SPEC_KEY`), so the charset, the
preparation of pictures and the weights cannot come apart.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from crnn.charset import ALNUM36, Charset
from crnn.errors import ModelError

SPEC_KEY = "crnn.spec"
"""The metadata key that holds :meth:`ModelSpec.to_json` in an artefact."""

VERSION = 1
RESAMPLINGS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # Pillow's filters, lower-cased

FRAME_PITCH = 4
"""Input columns from one time step to the next: the paper's convolutions halve the width twice."""


@dataclass(frozen=True)
class ModelSpec:
    """A network of the paper's layers: what goes in and what comes out. The defaults are the deliverable's contract.

    The input is float32[N, channels, height, width]: a gray picture resized to ``height`` x ``width`` pixels with
    ``resampling``, its values ``(v / 255 - mean) / std``. The output is float32[steps, N, charset.classes],
    time-major log-probabilities, where class ``blank`` is the CTC blank.

    ``temperature`` divides the logits to calibrate confidences (1.0 leaves them alone). ``licence`` is the weights'
    licence; ``lineage`` says, in order, what they came from.

    Raises:
        ModelError: a field has a wrong type or a value that no such network can have.
    """

    charset: Charset = ALNUM36
    blank: int = 0
    height: int = 32
    width: int = 100
    channels: int = 1
    steps: int = 26
    resampling: str = "bicubic"
    mean: float = 0.5
    std: float = 0.5
    input_name: str = "actual_input_1"
    output_name: str = "output1"
    temperature: float = 1.0
    licence: str = ""
    lineage: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelSpec).items():
            self._check_type(name, kind)
        for name in ("height", "width"):
            self._require(getattr(self, name) > 0, name, "must be at least 1 pixel")
        self._require(self.blank == 0, "blank", "must be class 0")
        self._require(self.channels == 1, "channels", "must be 1: pictures are read in gray")
        steps = self.width // FRAME_PITCH + 1
        self._require(self.steps == steps, "steps", f"must be {steps} for a width of {self.width} (width // 4 + 1)")
        self._require(self.resampling in RESAMPLINGS, "resampling", f"must be one of {', '.join(RESAMPLINGS)}")
        self._require(math.isfinite(self.mean), "mean", "must be a finite number")
        for name in ("std", "temperature"):
            value = getattr(self, name)
            self._require(value > 0 and math.isfinite(value), name, "must be a finite number above 0")
        self._require(bool(self.input_name), "input_name", "must not be empty")
        self._require(self.output_name not in ("", self.input_name), "output_name", "must be a name of its own")

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if kind is float:  # 1 and 1.0 mean the same, and are written the same
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
            else:
                self._require(isinstance(value, float), name, "must be a number")
        elif args := get_args(kind):
            same = isinstance(value, tuple) and all(isinstance(item, args[0]) for item in value)
            self._require(same, name, "must be a list of strings")
        else:
            self._require(type(value) is kind, name, f"must be of type {kind.__name__}")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ModelError(f"model spec: {name} {rule}, not {getattr(self, name)!r}")

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal specs give equal bytes."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["charset"] = self.charset.symbols
        return json.dumps({**values, "version": VERSION}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelSpec:
        """The spec that :meth:`to_json` wrote.

        Raises:
            ModelError: not JSON, another version, or a key that is missing, unknown, repeated or has an invalid value.
        """
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"model spec: not JSON ({error})") from None
        if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
            raise ModelError("model spec: must be a JSON object")
        values: dict[str, Any] = dict(pairs)
        if len(values) != len(pairs):
            raise ModelError("model spec: a key appears more than once")
        if (version := values.pop("version", None)) != VERSION or isinstance(version, bool):
            raise ModelError(f"model spec: version {version!r}, but this crnn reads version {VERSION}; update crnn")
        known = {field.name for field in fields(ModelSpec)}
        if unknown := sorted(values.keys() - known):
            raise ModelError(
                f"model spec: unknown key {', '.join(map(repr, unknown))}; was it written by a newer crnn?"
            )
        if missing := sorted(known - values.keys()):
            raise ModelError(f"model spec: missing key {', '.join(map(repr, missing))}")
        values["charset"] = Charset(values["charset"])
        if isinstance(values["lineage"], list):
            values["lineage"] = tuple(values["lineage"])
        return ModelSpec(**values)


DELIVERABLE = ModelSpec()
"""The contract of the Ascend deliverable; what an artefact without a spec of its own is taken to follow."""
