"""What a training run leaves on disk: weights with their spec, and the whole state that a run goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crnn.errors import CheckpointError, ModelError
from crnn.files import replaced, write_whole
from crnn.spec import SPEC_KEY, ModelSpec

WEIGHTS = "weights.safetensors"  # in a run folder: the averaged weights
BEST = "best.safetensors"  # in a run folder: the averaged weights of the best validation
STATE = "state.pt"  # in a run folder: everything
LOCK = ".lock"  # in a run folder: locked by the process that trains in it


def save_weights(path: Path, state_dict: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Writes a state dict as safetensors, the spec's JSON in the header; the file appears whole or not at all.

    Raises OptionError if it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    # Its own save_file writes to a name of its own choosing first, with a mode that lets nobody else read the file.
    write_whole(path, save(tensors, {SPEC_KEY: spec.to_json()}))


def holds_weights(run: Path, *, begun: bool) -> bool:
    """Whether a folder without a state has weights that a new run must not replace.

    A run that was ``begun`` in it may have validated before it was killed without having saved: those of its best
    validation do not count.
    """
    return (run / WEIGHTS).exists() or ((run / BEST).exists() and not begun)


def load_weights(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """(state dict, spec) from a ``.safetensors`` file or a run folder. Raises CheckpointError or ModelError."""
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a .safetensors file or the folder of a training run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    if SPEC_KEY not in metadata:
        raise ModelError(
            f"{path} has no {SPEC_KEY} in its header, so its charset and preparation are unknown: `crnn import` it"
        )
    return state_dict, ModelSpec.from_json(metadata[SPEC_KEY])


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a run's whole state (tensors and plain values) whole or not at all."""
    with replaced(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # before it replaces the state there is


def load_state(path: Path) -> dict[str, Any]:
    """The state that :func:`save_state` wrote, from its file or its run folder; tensors and plain values only."""
    if path.is_dir():
        path = path / STATE
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: there is no state to go on from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no exception of its own for a bad file
        raise CheckpointError(f"{path} is no state of a training run: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or "network" not in state or "position" not in state:
        raise CheckpointError(f"{path} is no state of a training run")
    return state
