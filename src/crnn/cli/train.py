"""``crnn train``: a new run, a run continued, or a branch off another; and a learning rate for it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.training.config import TrainConfig
    from crnn.training.trainer import Progress, Trainer


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(train)


def train(
    run: Annotated[Path, typer.Argument(help="Folder of the run; one that exists is gone on with.")],
    train: Annotated[
        list[str] | None, typer.Option(help="Labelled LMDB, as PATH or PATH:SHARE of the samples (again for more).")
    ] = None,
    validate: Annotated[
        list[Path] | None,
        typer.Option(help="LMDB to validate on (again for more).", show_default="every tenth word of each --train"),
    ] = None,
    synthetic: Annotated[
        float | None, typer.Option(help="Share of synthetic words.", show_default="0.7 with --fonts, else none")
    ] = None,
    fonts: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of fonts, font file or font list (.tsv), as PLACE or PLACE:SHARE.",
            show_default="the system's, if --synthetic is given",
        ),
    ] = None,
    words: Annotated[Path | None, typer.Option(help="Word list; English words by frequency where not given.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="LMDB of word-free photographs to draw words on.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Run to branch off, with its whole state.")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: bundled, a .safetensors, a run, or an .onnx of `crnn export`."),
    ] = None,
    charset: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_TEXT", help="Characters the network writes.", show_default="those of --init, or 0-9a-z"
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=16, help="Width of its input, a time step every 4 pixels.", show_default="that of --init, or 100"
        ),
    ] = None,
    freeze: Annotated[
        int | None, typer.Option(min=0, help="Leave the convolutions as they are for the first so many steps.")
    ] = None,
    decay: Annotated[
        int | None, typer.Option(help="End the run by letting the rate fall to 0 over so many steps.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="End the run by letting the rate fall to 0 over so many minutes of training.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after N validations without a gain.")
    ] = None,
    pause: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Stop after so many minutes; the same command goes on.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of a batch.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches of an update, of each process.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate after warm-up.")] = None,
    warm_up: Annotated[int | None, typer.Option(help="Steps of warm-up.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or no (float32).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw words.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and samples.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps from one validation to the next.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, kept in their spec.")] = None,
    save_every: Annotated[float | None, typer.Option(help="Seconds from one saved state to the next.")] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Do not train: try learning rates, and suggest one. Writes nothing.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Of --find-rate: write the curve.")
    ] = None,
) -> None:
    """Trains the network. Its state is saved every few minutes; the same command goes on where it stopped.

    The averaged weights are RUN/weights.safetensors; those of the best validation RUN/best.safetensors.
    """
    from rich.console import Console

    from crnn.charset import read_charset
    from crnn.training.checkpoints import STATE
    from crnn.training.config import CONFIG, TrainConfig
    from crnn.training.memory import keep_freed_memory
    from crnn.training.processes import launched_alone, start
    from crnn.training.sources import open_sources
    from crnn.training.trainer import Trainer

    if json_file is not None and not find_rate:
        raise OptionError("--json belongs to --find-rate")
    given: dict[str, Any] = {
        "train": tuple(_place_and_share(place) for place in train) if train else None,
        "validate": tuple(map(str, validate)) if validate else None,
        "fonts": tuple(fonts) if fonts else None,
        "words": str(words) if words else None,
        "backgrounds": str(backgrounds) if backgrounds else None,
        "charset": read_charset(charset).symbols if charset else None,
        "synthetic": synthetic,
        "width": width,
        "freeze": freeze,
        "decay": decay,
        "minutes": minutes,
        "steps": steps,
        "stop_after": stop_after,
        "batch": batch,
        "accumulate": accumulate,
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
    processes = start()
    with processes.one_voice():
        out, err = (Console(stderr=stderr, quiet=not processes.main, highlight=False) for stderr in (False, True))
        if note := launched_alone():
            err.print(f"crnn: {note}", style="yellow", markup=False, soft_wrap=True)
        has_config, has_state = (processes.from_main((run / name).exists) for name in (CONFIG, STATE))
        if has_config:
            config = _continued(processes.from_main(lambda: TrainConfig.load(run)), given, run)
            if config.lineage and not (has_state or init or origin):
                raise OptionError(f"{run} was stopped before its first state was saved: give --init or --from again")
            if has_state and (init or origin):
                _say(out, f"{run} goes on from its own state; --init and --from are for a new run")
        elif origin is not None:
            config = _branched(origin, given)
        elif init is not None:
            config = _fine_tuned(init, given, out)
        else:
            config = TrainConfig(**_with_fonts(given))
        with err.status("opening data sets"):
            stream, real, notes = open_sources(config, config.spec)
        for note in notes:
            _say(out, note)
        weights = None
        if init is not None and origin is None and not has_state:
            from crnn.training.initial import initial_path, initial_weights

            with err.status("measuring batch normalisation on training words"):
                weights = processes.from_main(lambda: initial_weights(initial_path(init), stream))
        lineage = (
            f"trained by crnn train on {', '.join(Path(path).name for path, _ in config.train) or 'no real words'}"
            + (" and synthetic words" if config.fonts else ""),
        )
        keep_freed_memory()
        trainer = Trainer(run, config, stream, real, origin=origin, weights=weights, lineage=lineage)
        if find_rate:
            _find_rate(trainer, json_file, out, err)
        else:
            _train(trainer, pause, out, err)


def _train(trainer: Trainer, pause: float | None, out: Console, err: Console) -> None:
    from crnn.training.stopping import BEST

    if trainer.samples > trainer.batch:
        processes, each = trainer.processes.count, trainer.accumulate
        _say(out, f"{trainer.samples} samples a step: {processes} processes, each {each} batches of {trainer.batch}")
    with _Screen(out, err, trainer) as screen:
        trainer.report = screen.show
        # Ctrl-C and a job scheduler's SIGTERM end the run after the step under way, with its state saved.
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.signal(number, lambda *_: trainer.stop()) for number in numbers]
        try:
            end = trainer.train(pause)
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    _say(
        out,
        f"step {end.step}, {end.position} samples in all; {end.images} in this go at {end.speed:.1f} images/s, "
        f"{end.waited / max(end.seconds, 1e-9):.1%} of the time waiting for data; {end.skipped} steps skipped",
    )
    best = trainer.best
    if best.step:
        since = f"; {best.since} validations since without a gain" if best.since else ""
        where = trainer.run / BEST
        _say(out, f"best validation: {best.accuracy:.1%} ({best.ned:.3f}) at step {best.step}, kept in {where}{since}")


def _find_rate(trainer: Trainer, json_file: Path | None, out: Console, err: Console) -> None:
    import json
    from dataclasses import asdict, replace

    from crnn.evaluation.tables import progress_bar
    from crnn.files import write_whole
    from crnn.training import finder

    trainer.config = replace(trainer.config, freeze=0)  # the rate is for the whole network
    with progress_bar(err) as bar:
        task = bar.add_task("rates", total=finder.STEPS)

        def show(step: int, rate: float, loss: float) -> None:
            bar.update(task, completed=step, description=f"rate {rate:.1e}  loss {loss:.3f}")

        finding = finder.find_rate(trainer.losses, steps=finder.STEPS, report=show)
    if json_file is not None and trainer.processes.main:
        write_whole(json_file, json.dumps(asdict(finding), indent=1) + "\n")
    _say(out, "    rate     loss")
    for line in finding.lines():
        _say(out, line)
    if finding.suggestion is None:
        _say(out, "the loss fell at no rate: look at the data (crnn data check), or begin with other weights")
        raise typer.Exit(1)
    _say(out, f"the loss is lowest at a rate of {finding.lowest:.1e}; try --rate {finding.suggestion:.1e}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _continued(config: TrainConfig, given: dict[str, Any], run: Path) -> TrainConfig:
    """A run's own configuration; of what is given anew, only its end and its use of the machine may differ from it."""
    from dataclasses import replace

    free = {"steps", "stop_after", "workers", "save_every", "validate_every", "licence"}
    changed = sorted(name for name, value in given.items() if name not in free and getattr(config, name) != value)
    if changed:
        names = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise OptionError(
            f"{run} was begun with another {names}: leave it out to go on, or branch off: crnn train NEW --from {run}"
        )
    return replace(config, **{name: value for name, value in given.items() if name in free})


def _branched(origin: Path, given: dict[str, Any]) -> TrainConfig:
    """The configuration of the run that is branched off, without its end, and with what is given."""
    from dataclasses import replace

    from crnn.training.config import TrainConfig

    config = TrainConfig.load(origin if origin.is_dir() else origin.parent)
    if given.get("charset", config.charset) != config.charset:
        raise OptionError(f"--from goes on with the characters of {origin}; for others: --init {origin} --charset")
    anew: dict[str, Any] = {"decay": 0, "minutes": 0.0, "steps": 0, "freeze": 0, "stop_after": 0}
    return replace(config, **{**anew, **given})


def _fine_tuned(init: str, given: dict[str, Any], out: Console) -> TrainConfig:
    """The configuration of a run that begins with trained weights; what becomes of their characters is printed."""
    from crnn.charset import Charset
    from crnn.training.adaptation import FINE_TUNING, CharsetChange
    from crnn.training.config import TrainConfig
    from crnn.training.initial import initial_path, read_weights

    path = initial_path(init)
    _, spec = read_weights(path)
    own = {"charset": spec.charset.symbols, "width": spec.width, "licence": spec.licence}
    lineage = (*spec.lineage, f"begun with {path.name}")
    config = TrainConfig(**{**FINE_TUNING, **own, "lineage": lineage, **_with_fonts(given)})
    change = CharsetChange.between(spec.charset, Charset(config.charset))
    if config.charset != spec.charset.symbols:
        _say(out, f"characters of {path.name}: {change}")
    return config


def _with_fonts(given: dict[str, Any]) -> dict[str, Any]:
    """What is given, with the system's fonts if synthetic words are asked for without saying which."""
    if not given.get("synthetic") or "fonts" in given:
        return given
    from crnn.cli.synth import system_fonts

    return {**given, "fonts": system_fonts()}


def _place_and_share(text: str) -> tuple[str, float]:
    place, _, share = text.rpartition(":")
    try:
        return (place, float(share)) if place else (text, 1.0)
    except ValueError:
        return text, 1.0


class _Screen:
    """Progress: a live line on a terminal; elsewhere a plain line now and then, which a log file can keep."""

    def __init__(self, out: Console, err: Console, trainer: Trainer) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._out, self._live = out, err.is_terminal
        config = trainer.config
        self._ends = trainer.first_step + config.decay if config.decay else config.steps
        self._minutes = config.minutes
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=err,
            disable=not self._live,
            redirect_stdout=out.is_terminal,  # lines go above the bar; into a file they go as they are
        )
        self._task = self._bar.add_task("", total=None)
        self._loss = 0.0

    def __enter__(self) -> _Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, now: Progress) -> None:
        self._loss = now.loss if not self._loss else 0.98 * self._loss + 0.02 * now.loss
        text = f"loss {self._loss:.3f}  {now.speed:.0f} images/s  rate {now.rate:.1e}"
        done, total = (now.elapsed, 60 * self._minutes) if self._minutes else (now.step, self._ends)
        self._bar.update(self._task, completed=done, total=total or None, description=f"step {now.step}  {text}")
        if now.validation:
            sets = "  ".join(f"{name} {accuracy:.1%} ({ned:.3f})" for name, accuracy, ned in now.validation.sets)
            _say(self._out, f"step {now.step}: {text}  accuracy (1-NED): {sets}")
        elif not self._live and now.step % 100 == 0:
            waiting = now.waited / max(now.seconds, 1e-9)
            _say(self._out, f"step {now.step}: {text}  waiting {waiting:.1%}")
