"""What a model's spec is, where no engine has to run it."""

from __future__ import annotations

from pathlib import Path

from crnn.engines import compiled, open_engine
from crnn.spec import DELIVERABLE, ModelSpec


def spec_of(model: Path) -> ModelSpec:
    """The spec of a model file. That of an ``.om`` lies beside it, so no Ascend device is needed; an ``.om`` that has
    none, compiled by somebody else, is taken to follow the deliverable's contract.

    Raises ModelError or EngineError if the model is missing or invalid.
    """
    if model.suffix == ".om":
        found = compiled.read(model)
        return DELIVERABLE if found is None else found.spec
    return open_engine(model).spec
