"""The configuration of a run, from what ``crnn train`` is given. ``given`` holds entries of TrainConfig."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn.charset import Charset
from crnn.errors import OptionError

if TYPE_CHECKING:
    from crnn.training.config import TrainConfig


def continued(config: TrainConfig, given: dict[str, Any], run: Path) -> TrainConfig:
    """A run's own configuration; of what is given anew, only its end and its use of the machine may differ from it."""
    free = {"steps", "stop_after", "workers", "save_every", "validate_every", "licence"}
    changed = sorted(name for name, value in given.items() if name not in free and getattr(config, name) != value)
    if changed:
        names = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise OptionError(
            f"{run} was begun with another {names}: leave it out to go on, or branch off: crnn train NEW --from {run}"
        )
    return replace(config, **{name: value for name, value in given.items() if name in free})


def begun_again(config: TrainConfig, given: dict[str, Any], run: Path) -> TrainConfig:
    """The configuration of a run that ended before its first state was saved, with what is given anew."""
    from crnn.training.checkpoints import STATE, WEIGHTS

    if (run / WEIGHTS).exists():
        raise OptionError(f"{run} has weights and no {STATE}, without which it cannot go on: give another folder")
    if config.lineage:
        raise OptionError(
            f"{run} was stopped before its first state was saved: give the whole command again, with --init or --from"
        )
    other_end = given.get("decay") or given.get("minutes")
    return _changed(config, {"decay": 0, "minutes": 0.0} if other_end else {}, given)


def branched(origin: Path, given: dict[str, Any]) -> TrainConfig:
    """The configuration of the run that is branched off, without its end, and with what is given."""
    from crnn.training.config import TrainConfig

    folder = origin if origin.is_dir() else origin.parent
    config = TrainConfig.load(folder)
    if given.get("charset", config.charset) != config.charset:
        raise OptionError(f"--from goes on with the characters of {origin}; for others: --init {origin} --charset")
    anew: dict[str, Any] = {"decay": 0, "minutes": 0.0, "steps": 0, "freeze": 0, "stop_after": 0}
    anew["lineage"] = (*config.lineage, trained_by(config), f"branched off {folder.name}")
    return _changed(config, anew, given)


def fine_tuned(init: str, given: dict[str, Any]) -> tuple[TrainConfig, list[str]]:
    """The configuration of a run that begins with trained weights; what to say of their characters."""
    from crnn.training.adaptation import FINE_TUNING, CharsetChange
    from crnn.training.config import TrainConfig
    from crnn.training.initial import initial_path, read_weights

    path = initial_path(init)
    _, spec = read_weights(path)
    own: dict[str, Any] = {name: getattr(spec, name) for name in ("width", "resampling", "mean", "std", "licence")}
    own["charset"] = spec.charset.symbols
    lineage = (*spec.lineage, f"begun with {path.name}")
    config = _of_use(TrainConfig(**{**FINE_TUNING, **own, "lineage": lineage, **_with_fonts(given)}))
    if config.charset == spec.charset.symbols:
        return config, []
    return config, [f"characters of {path.name}: {CharsetChange.between(spec.charset, Charset(config.charset))}"]


def new(given: dict[str, Any]) -> TrainConfig:
    """The configuration of a run that begins with nothing."""
    from crnn.training.config import TrainConfig

    return _of_use(TrainConfig(**_with_fonts(given)))


def trained_by(config: TrainConfig) -> str:
    """What the lineage of a run's weights says of the run itself."""
    words = ", ".join(Path(path).name for path, _ in config.train) or "no real words"
    return f"trained by crnn train on {words}" + (" and synthetic words" if config.fonts else "")


def _changed(config: TrainConfig, anew: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """A configuration with what is ``anew`` and ``given``.

    Without synthetic words it has no use for what they were made of.
    """
    if not given.get("synthetic", config.synthetic) or not config.fonts:
        anew = {**anew, "fonts": (), "words": "", "backgrounds": ""}
    return _of_use(replace(config, **{**anew, **(given if config.fonts else _with_fonts(given))}))


def _with_fonts(given: dict[str, Any]) -> dict[str, Any]:
    """What is given, with the system's fonts if synthetic words are asked for without saying which."""
    if not given.get("synthetic") or "fonts" in given:
        return given
    from crnn.cli.synth import system_fonts

    return {**given, "fonts": system_fonts()}


def _of_use(config: TrainConfig) -> TrainConfig:
    """The configuration. Raises OptionError if it says what synthetic words are made of, and there are none."""
    if not config.fonts and (config.words or config.backgrounds):
        raise OptionError("--words and --backgrounds are for synthetic words: give --synthetic or --fonts as well")
    return config
