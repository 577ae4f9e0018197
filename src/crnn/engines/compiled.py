"""What was compiled into an ``.om`` file: it has no room for that, so it lies beside it, as JSON.

    {"schema": "crnn.om/1", "crnn.spec": {...}, "soc_version": "Ascend310", "batches": [1, 4, 16],
     "precision": "force_fp16", "cann_version": "8.0.RC3", "onnx_sha256": "...", "om_sha256": "..."}

``batches`` holds one fixed batch size, or the gears. AIPP is the spec's (``crnn.spec.aipp``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from crnn.errors import ModelError
from crnn.spec import SPEC_KEY, ModelSpec

SCHEMA = "crnn.om/1"
MAGIC = b"IMOD"  # how an .om begins: framework_types_internal.h of CANN's graph engine

PRECISIONS = {
    "force_fp16": "float16",
    "fp16": "float16",
    "force_fp32": "float32",
    "cube_fp16in_fp32out": "float32",
    "must_keep_origin_dtype": "float32",
    "origin": "float32",
    "allow_fp32_to_fp16": "mixed float16",
    "allow_mix_precision": "mixed float16",
    "allow_mix_precision_fp16": "mixed float16",
    "mixed_float16": "mixed float16",
    "allow_fp32_to_bf16": "mixed bfloat16",
    "allow_mix_precision_bf16": "mixed bfloat16",
    "mixed_bfloat16": "mixed bfloat16",
}
"""ATC's names of precisions (``--precision_mode`` and ``--precision_mode_v2``), and what an engine calls them."""


@dataclass(frozen=True)
class Compiled:
    """What is known of an ``.om`` file. ``cann_version`` is empty where it could not be found out."""

    spec: ModelSpec
    soc_version: str
    batches: tuple[int, ...]
    precision: str
    cann_version: str
    onnx_sha256: str
    om_sha256: str

    def to_json(self) -> str:
        """The file's text; see the module."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["spec"]
        return json.dumps({"schema": SCHEMA, SPEC_KEY: json.loads(self.spec.to_json()), **values}, indent=1) + "\n"


def beside(om: Path) -> Path:
    """Where the description of ``om`` lies: ``x.om`` has ``x.json``."""
    return om.with_suffix(".json")


def is_description(path: Path) -> bool:
    """Whether there is a file at ``path`` that says what was compiled into an ``.om``."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as file:
            return json.dumps(SCHEMA).encode() in file.read(100)
    except OSError:
        return False


def read(om: Path) -> Compiled | None:
    """What was compiled into ``om``; None if nothing lies beside it, as with a file that ATC made without us.

    Raises ModelError if ``om`` is no compiled model, or what lies beside it is no description, or another file's.
    """
    try:
        data = om.read_bytes()
    except OSError as error:
        raise ModelError(f"{om}: cannot be read ({error.strerror})") from None
    if data[:4] != MAGIC:
        hint = "; compile it first: crnn compile" if om.suffix == ".onnx" else ""
        raise ModelError(f"{om}: not a compiled model (.om){hint}")
    path = beside(om)
    try:
        compiled = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ModelError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: {error}") from None
    if compiled.om_sha256 != hashlib.sha256(data).hexdigest():
        raise ModelError(f"{path}: describes another file than {om.name}; compile it again, or remove {path.name}")
    return compiled


def _parse(text: str) -> Compiled:
    try:
        values = json.loads(text)
        if values.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        spec = ModelSpec.from_json(json.dumps(values.pop(SPEC_KEY)))
        batches = values.pop("batches")
        if not batches or not all(type(size) is int and size > 0 for size in batches):
            raise ValueError("batches must be sizes of 1 or more")
        compiled = Compiled(spec=spec, batches=tuple(sorted(batches)), **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"not the description of a compiled model ({error})") from None
    for name in ("soc_version", "precision", "cann_version", "onnx_sha256", "om_sha256"):
        if not isinstance(getattr(compiled, name), str):
            raise ModelError(f"not the description of a compiled model ({name} must be text)")
    return compiled
