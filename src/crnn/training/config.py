"""What a training run is asked to do. Frozen beside the run as ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from crnn.errors import OptionError

CONFIG = "config.json"


@dataclass(frozen=True)
class TrainConfig:
    """The frozen configuration of a run; the CLI's defaults are these.

    Attributes:
        train: real training sets (LMDB) as ``(path, share)``; every tenth word of each is held out for validation.
        synthetic: share of synthetic words; needs ``fonts``. Shares are relative to each other.
        fonts, words, backgrounds: what synthetic words are made of (see ``crnn synth``).
        seed: of the weights' first values and of the sample stream.
        batch: words a step and process.
        rate: AdamW's learning rate after warm-up.
        warm_up: steps of linear warm-up, counted from the run's first step.
        decay: 0 for a constant rate; else the rate falls linearly to nothing over so many steps, and the run ends.
        steps: end after so many steps in all (0: no end).
        weight_decay, clip: AdamW's weight decay; the largest norm of the gradient.
        average: decay of the exponential moving average of the weights, which is what a run releases.
        precision: ``bf16``, ``fp16``, ``no`` (float32), or ``auto``: bf16 where the device computes faster in it.
        workers: processes that draw words.
        validate_every: steps from one validation to the next.
        save_every: seconds from one saved state to the next.
        licence: of the weights, kept in their spec.
    """

    train: tuple[tuple[str, float], ...] = ()
    synthetic: float = 0.7
    fonts: tuple[str, ...] = ()
    words: str = ""
    backgrounds: str = ""
    seed: int = 0
    batch: int = 64
    rate: float = 8e-4
    warm_up: int = 400
    decay: int = 0
    steps: int = 0
    weight_decay: float = 0.01
    clip: float = 5.0
    average: float = 0.999
    precision: str = "auto"
    workers: int = 1
    validate_every: int = 500
    save_every: float = 180.0
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.train and not self.fonts:
            raise OptionError("nothing to train on: give --train LMDB, or --fonts for synthetic words, or both")
        if self.precision not in ("auto", "bf16", "fp16", "no"):
            raise OptionError(f"precision {self.precision!r} is unknown: choose auto, bf16, fp16 or no")
        for name in ("batch", "validate_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("rate", "clip"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("warm_up", "decay", "steps", "workers", "weight_decay", "synthetic"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} must not be negative")
        if not 0 <= self.average < 1:
            raise OptionError(f"average must be from 0 to below 1, not {self.average}")

    def save(self, run: Path) -> None:
        """Writes ``run/config.json``."""
        (run / CONFIG).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, run: Path) -> TrainConfig:
        """Reads ``run/config.json``; a missing, unknown or malformed entry raises OptionError."""
        path = run / CONFIG
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise OptionError(f"{run} is no training run: it has no {CONFIG}") from None
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise OptionError(f"{path} has unknown entries: {', '.join(sorted(unknown))}")
        values["train"] = tuple((str(place), float(share)) for place, share in values.get("train", ()))
        values["fonts"] = tuple(values.get("fonts", ()))
        return cls(**values)
