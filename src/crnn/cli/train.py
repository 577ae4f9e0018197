"""``crnn train``: a new run, a run continued, or a branch off another."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from crnn.training.trainer import Progress


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(train)


def train(
    run: Annotated[Path, typer.Argument(help="Folder of the run; one that exists is gone on with.")],
    train: Annotated[
        list[str] | None, typer.Option(help="Labelled LMDB, as PATH or PATH:SHARE of the samples (again for more).")
    ] = None,
    synthetic: Annotated[float | None, typer.Option(help="Share of synthetic words.")] = None,
    fonts: Annotated[
        list[str] | None, typer.Option(help="Folder of fonts, font file or font list (.tsv), as PLACE or PLACE:SHARE.")
    ] = None,
    words: Annotated[Path | None, typer.Option(help="Word list; English words by frequency where not given.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="LMDB of word-free photographs to draw words on.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Run to branch off, with its whole state.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights to begin with: .safetensors, a run, or an .onnx of `crnn export`.")
    ] = None,
    decay: Annotated[
        int | None, typer.Option(help="End the run by letting the rate fall to 0 over so many steps.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes; the run can be gone on with.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a step and process.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate after warm-up.")] = None,
    warm_up: Annotated[int | None, typer.Option(help="Steps of warm-up.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or no (float32).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw words.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and samples.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps from one validation to the next.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, kept in their spec.")] = None,
    save_every: Annotated[float | None, typer.Option(help="Seconds from one saved state to the next.")] = None,
) -> None:
    """Trains the network. Its state is saved every few minutes; the same command goes on where it stopped."""
    from crnn.training.config import CONFIG, TrainConfig
    from crnn.training.memory import keep_freed_memory
    from crnn.training.trainer import Trainer

    given: dict[str, Any] = {
        "train": tuple(_place_and_share(place) for place in train) if train else None,
        "fonts": tuple(fonts) if fonts else None,
        "words": str(words) if words else None,
        "backgrounds": str(backgrounds) if backgrounds else None,
        "synthetic": synthetic,
        "decay": decay,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "warm_up": warm_up,
        "average": average,
        "precision": precision,
        "workers": workers,
        "seed": seed,
        "validate_every": validate_every,
        "save_every": save_every,
        "licence": licence,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if (run / CONFIG).exists():
        config = _continued(TrainConfig.load(run), given, run)
    elif origin is not None:
        from dataclasses import replace

        folder = origin if origin.is_dir() else origin.parent
        config = replace(TrainConfig.load(folder), **{"decay": 0, "steps": 0, **given})
    else:
        config = TrainConfig(**given)

    from rich.console import Console

    from crnn.spec import ModelSpec
    from crnn.training.sources import open_sources

    console = Console()
    stream, real, notes = open_sources(config, ModelSpec())
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    if (run / CONFIG).exists() and (init or origin):
        console.print(f"{run} goes on from its own state; --init and --from are for a new run", highlight=False)
    weights = None
    if init is not None and not (run / CONFIG).exists():
        from crnn.training.initial import initial_weights

        weights = initial_weights(init, stream)
    lineage = (
        f"trained by crnn train on {', '.join(Path(path).name for path, _ in config.train) or 'no real words'}"
        + (" and synthetic words" if config.fonts else ""),
    )
    keep_freed_memory()
    with _Screen(console, config.steps) as screen:
        trainer = Trainer(
            run, config, stream, real, origin=origin, weights=weights, report=screen.show, lineage=lineage
        )
        # Ctrl-C and a job scheduler's SIGTERM end the run after the step under way, with its state saved.
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.signal(number, lambda *_: trainer.stop()) for number in numbers]
        try:
            end = trainer.train(minutes)
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    console.print(
        f"step {end.step}, {end.position} samples in all; {end.images} in this go at {end.speed:.1f} images/s, "
        f"{end.waited / max(end.seconds, 1e-9):.1%} of the time waiting for data; {end.skipped} steps skipped",
        highlight=False,
        soft_wrap=True,
    )


def _continued(config: Any, given: dict[str, Any], run: Path) -> Any:
    """A run's own configuration; of what is given anew, only its end and its use of the machine may differ from it."""
    from dataclasses import replace

    free = {"steps", "workers", "save_every", "validate_every", "licence"}
    changed = sorted(name for name, value in given.items() if name not in free and getattr(config, name) != value)
    if changed:
        names = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise OptionError(
            f"{run} was begun with another {names}: leave it out to go on, or branch off: crnn train NEW --from {run}"
        )
    return replace(config, **{name: value for name, value in given.items() if name in free})


def _place_and_share(text: str) -> tuple[str, float]:
    place, _, share = text.rpartition(":")
    try:
        return (place, float(share)) if place else (text, 1.0)
    except ValueError:
        return text, 1.0


class _Screen:
    """Progress: a live line on a terminal; elsewhere a plain line now and then, which a log file can keep."""

    def __init__(self, console: Any, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps or None)
        self._loss = 0.0

    def __enter__(self) -> _Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, now: Progress) -> None:
        self._loss = now.loss if not self._loss else 0.98 * self._loss + 0.02 * now.loss
        text = f"loss {self._loss:.3f}  {now.speed:.0f} images/s  rate {now.rate:.1e}"
        self._bar.update(self._task, completed=now.step, description=text)
        if now.validation:
            sets = "  ".join(f"{name} {accuracy:.1%} ({ned:.3f})" for name, accuracy, ned in now.validation.sets)
            self.console.print(f"step {now.step}: {text}  accuracy (1-NED): {sets}", highlight=False, soft_wrap=True)
        elif not self.console.is_terminal and now.step % 100 == 0:
            waiting = now.waited / max(now.seconds, 1e-9)
            self.console.print(f"step {now.step}: {text}  waiting {waiting:.1%}", highlight=False, soft_wrap=True)
