"""What a training run is asked to do. Frozen beside the run as ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from crnn.charset import ALNUM36, Charset
from crnn.errors import OptionError
from crnn.files import write_whole
from crnn.spec import FRAME_PITCH, ModelSpec

CONFIG = "config.json"
# What older files lack; they mean the defaults.
_LATER = ("resampling", "mean", "std", "guide", "optimizer", "importance", "consistency")
_AMOUNTS = ("synthetic", "guide", "consistency", "weight_decay")
_NUMBERS = ("warm_up", "decay", "minutes", "steps", "freeze", "stop_after", "workers")
_NOT_NEGATIVE = (*_AMOUNTS, *_NUMBERS)


@dataclass(frozen=True)
class TrainConfig:
    """The frozen configuration of a run; the CLI's defaults are these.

    Attributes:
        train: real training sets (LMDB) as ``(path, share)``; every tenth word of each is held out for validation.
        validate: LMDBs to validate on instead, all their words.
        synthetic: share of synthetic words; needs ``fonts``. Shares are relative to each other.
        fonts, words, backgrounds: what synthetic words are made of (see ``crnn synth``).
        charset: the characters the network writes, in the order of its classes.
        width: of the network's input, in pixels.
        resampling, mean, std: how pictures are prepared (see :class:`crnn.spec.ModelSpec`): as for the weights that a
            run begins with.
        seed: of the weights' first values and of the sample stream.
        batch: words of a batch; each process takes ``accumulate`` batches a step.
        accumulate: batches whose gradients make up one update. BatchNorm sees each batch by itself.
        optimizer: ``adamw``, or ``muon``, which moves the large matrices (:mod:`crnn.training.optimizers`).
        rate: learning rate after warm-up.
        warm_up: steps of linear warm-up, counted from the run's first step.
        decay: 0 for a constant rate; else the rate falls linearly to nothing over so many steps, and the run ends.
        minutes: 0, or the rate falls linearly to nothing over so many minutes of training, and the run ends.
        steps: end after so many steps in all (0: no end).
        freeze: leave the convolutions as they are for the run's first so many steps.
        stop_after: end after so many validations in a row that were no better than the best one (0: go on).
        guide: weight of the loss of an attention branch that is thrown away after training
            (:mod:`crnn.training.guide`); 0 for none.
        importance: ONNX file of the weights whose loss chooses the words (:mod:`crnn.training.importance`), or
            ``bundled``; empty: all words alike.
        consistency: weight of what two views of each word are read differently (:mod:`crnn.training.consistency`);
            0: each word is seen once.
        weight_decay, clip: the optimiser's weight decay; the largest norm of the gradient.
        average: decay of the exponential moving average of the weights, which is what a run releases.
        precision: ``bf16``, ``fp16``, ``no`` (float32), or ``auto``: bf16 where the device computes faster in
            it, settled at the start of a run.
        workers: processes that draw words.
        validate_every: steps from one validation to the next.
        save_every: seconds from one saved state to the next.
        licence: of the weights, kept in their spec.
        lineage: what the weights were before this run, kept in their spec.
    """

    train: tuple[tuple[str, float], ...] = ()
    validate: tuple[str, ...] = ()
    synthetic: float = 0.7
    fonts: tuple[str, ...] = ()
    words: str = ""
    backgrounds: str = ""
    charset: str = ALNUM36.symbols
    width: int = 100
    resampling: str = "bicubic"
    mean: float = 0.5
    std: float = 0.5
    seed: int = 0
    batch: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    rate: float = 8e-4
    warm_up: int = 400
    decay: int = 0
    minutes: float = 0.0
    steps: int = 0
    freeze: int = 0
    stop_after: int = 0
    guide: float = 0.0
    importance: str = ""
    consistency: float = 0.0
    weight_decay: float = 0.01
    clip: float = 5.0
    average: float = 0.999
    precision: str = "auto"
    workers: int = 1
    validate_every: int = 500
    save_every: float = 180.0
    licence: str = ""
    lineage: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.train and not self.fonts:
            raise OptionError("nothing to train on: give --train LMDB, or --fonts for synthetic words, or both")
        if self.precision not in ("auto", "bf16", "fp16", "no"):
            raise OptionError(f"precision {self.precision!r} is unknown: choose auto, bf16, fp16 or no")
        if self.optimizer not in ("adamw", "muon"):
            raise OptionError(f"optimizer {self.optimizer!r} is unknown: choose adamw or muon")
        for name in ("batch", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width < 16:
            raise OptionError(f"width must be at least 16, not {self.width}")
        for name in ("rate", "clip"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name} must not be negative")
        if not 0 <= self.average < 1:
            raise OptionError(f"average must be from 0 to below 1, not {self.average}")
        if self.decay and self.minutes:
            raise OptionError("decay and minutes both say when the rate has fallen to nothing: give one of them")
        if self.stop_after and not (self.train or self.validate):
            raise OptionError("stop_after needs words to validate on: give --train or --validate LMDB")
        _ = self.spec  # raises where the charset or the width cannot be a network's

    @property
    def spec(self) -> ModelSpec:
        """The spec of the network that is trained. Raises ModelError."""
        return ModelSpec(
            charset=Charset(self.charset),
            width=self.width,
            steps=self.width // FRAME_PITCH + 1,
            resampling=self.resampling,
            mean=self.mean,
            std=self.std,
            licence=self.licence,
            lineage=self.lineage,
        )

    def save(self, run: Path) -> None:
        """Writes ``run/config.json``."""
        write_whole(run / CONFIG, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, run: Path) -> TrainConfig:
        """Reads ``run/config.json``; a missing, unknown or malformed entry raises OptionError."""
        path = run / CONFIG
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise OptionError(f"{run} is no training run: it has no {CONFIG}") from None
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise OptionError(f"{path} is no configuration of a run: it holds no JSON object")
        types = {field.name: str(field.type) for field in fields(cls)}
        values = {**{name: getattr(cls, name) for name in _LATER}, **values}
        for what, names in (("unknown", values.keys() - types), ("missing", types.keys() - values)):
            if names:
                raise OptionError(f"{path} has {what} entries: {', '.join(sorted(names))}")
        for name, kind in types.items():
            if not _FITS[kind](values[name]):
                raise OptionError(f"{path}: {name} cannot be {json.dumps(values[name], ensure_ascii=False)}")
        entries: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        entries["train"] = tuple((place, share) for place, share in values["train"])
        return cls(**entries)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_shares(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1])
        for pair in values
    )


_FITS: dict[str, Callable[[Any], bool]] = {  # by the type of an entry: whether JSON holds such a value
    "int": lambda value: type(value) is int,
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "tuple[str, ...]": _are_texts,
    "tuple[tuple[str, float], ...]": _are_shares,
}
