"""What a model's weights mean: the one description that training, export, evaluation and reading all derive from.

The spec travels inside the artefact (ONNX metadata and safetensors header, under :data:`SPEC_KEY`), so the charset, the
preparation of pictures and the weights cannot come apart.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from crnn.charset import ALNUM36, Charset
from crnn.errors import ModelError

SPEC_KEY = "crnn.spec"
"""The metadata key that holds :meth:`ModelSpec.to_json` in an artefact."""

VERSION = 2
_SINCE_2 = ("trunk", "aipp")  # a spec of version 1 does not have these, and means their defaults
RESAMPLINGS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # Pillow's filters, lower-cased

FRAME_PITCH = 4
"""Input columns from one time step to the next: the paper's convolutions halve the width twice."""

TRUNKS = {"crnn": (1, 0), "dtrb": (-1, 4)}
"""The two forms of the convolutions: time steps beyond ``width // 4``, and the input column frame 0 is centred on.

``crnn`` is the paper's. ``dtrb`` is that of the deep-text-recognition-benchmark (Baek et al., ICCV 2019): its two last
pools take 2 x 1 pixels, not 2 x 2 padded by a column on each side, and so add no columns.
"""

AIPPS = ("", "gray", "rgb", "bgr")


@dataclass(frozen=True)
class ModelSpec:
    """A network of the paper's layers: what goes in and what comes out. The defaults are the deliverable's contract.

    The input is float32[N, channels, height, width]: a gray picture, or with 3 channels one in RGB, resized to
    ``height`` x ``width`` pixels with ``resampling``, its values ``(v / 255 - mean) / std``. The output is
    float32[steps, N, charset.classes], time-major log-probabilities, where class ``blank`` is the CTC blank. ``trunk``
    names the form of the convolutions (:data:`TRUNKS`).

    ``aipp`` is for files compiled for Ascend with an AIPP stage, which makes the normalised gray input on the device.
    Such a file takes the resized pixels as they are, uint8[N, height, width, 1 or 3]: ``gray``, or colour in the order
    ``rgb`` or ``bgr``.

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
    trunk: str = "crnn"
    aipp: str = ""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelSpec).items():
            self._check_type(name, kind)
        for name in ("height", "width"):
            self._require(getattr(self, name) > 0, name, "must be at least 1 pixel")
        self._require(self.blank == 0, "blank", "must be class 0")
        self._require(self.channels in (1, 3), "channels", "must be 1 (gray) or 3 (RGB)")
        self._require(self.trunk in TRUNKS, "trunk", f"must be one of {', '.join(TRUNKS)}")
        more, _ = TRUNKS[self.trunk]
        steps = self.width // FRAME_PITCH + more
        rule = f"must be {steps} for a width of {self.width} (width // {FRAME_PITCH} {more:+d})"
        self._require(self.steps == steps > 0, "steps", rule)
        self._require(self.aipp in AIPPS, "aipp", "must be gray, rgb, bgr or empty")
        self._require(not self.aipp or self.channels == 1, "aipp", "must be empty where the network reads 3 channels")
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

    @property
    def colour(self) -> bool:
        """Whether pictures are resized in colour; else they are made gray first."""
        return self.channels == 3 or self.aipp in ("rgb", "bgr")

    @property
    def picture_mode(self) -> Literal["L", "RGB"]:
        """Pillow's name for the pictures that are resized."""
        return "RGB" if self.colour else "L"

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(height, width), or (height, width, 3) in colour: the shape of one prepared picture, uint8."""
        return (self.height, self.width, 3) if self.colour else (self.height, self.width)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """What the artefact takes for one picture: (channels, height, width), or with AIPP (height, width, 1 or 3)."""
        if self.aipp:
            return self.height, self.width, 3 if self.colour else 1
        return self.channels, self.height, self.width

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The type of the artefact's input: float32, or with AIPP uint8."""
        return np.dtype(np.uint8 if self.aipp else np.float32)

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal specs give equal bytes."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["charset"] = self.charset.symbols
        return json.dumps({**values, "version": VERSION}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelSpec:
        """The spec that :meth:`to_json` wrote, now or in version 1.

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
        version = values.pop("version", None)
        if version not in (1, VERSION) or isinstance(version, bool):
            raise ModelError(f"model spec: version {version!r}, but this crnn reads 1 to {VERSION}; update crnn")
        known = {field.name for field in fields(ModelSpec)} - set(_SINCE_2 if version == 1 else ())
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
