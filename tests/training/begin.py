"""Small runs on the words of a fixture, for tests of what a run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crnn.training.checkpoints import load_state
from crnn.training.config import TrainConfig
from crnn.training.progress import LOG
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer


def trainer(run: Path, words: Path, origin: Path | None = None, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {"batch": 4, "workers": 0, "warm_up": 0, "precision": "no", "validate_every": 1000}
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, **(settings | changes))
    stream, real, _ = open_sources(config)
    return Trainer(run, config, stream, real, origin=origin)


def losses(run: Path) -> list[float]:
    """Of each step of a run."""
    return [json.loads(line)["loss"] for line in (run / LOG).read_text(encoding="utf-8").splitlines()]


def stopped_is_as_whole(whole: Path, parts: Path, words: Path, **options: Any) -> None:
    """Asserts that a run that is stopped after step 2 and gone on with is, bit for bit, the one in ``whole``."""
    first = trainer(parts, words, **options)
    first.report = lambda progress: first.stop() if progress.step == 2 else None
    first.train()
    trainer(parts, words, **options).train()
    assert losses(parts) == losses(whole)
    one, other = (load_state(folder)["network"] for folder in (parts, whole))
    assert all(value.equal(other[key]) for key, value in one.items())
