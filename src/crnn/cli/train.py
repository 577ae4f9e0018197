"""``crnn train``: a new run, a run continued, or a branch off another; and a learning rate for it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli._options import place_and_share
from crnn.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from crnn.training.trainer import Trainer


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
        float | None,
        typer.Option(
            help="Share of synthetic words, relative to those of --train.", show_default="0.7 with --fonts, else none"
        ),
    ] = None,
    fonts: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of fonts, font file or font list (.tsv), as PLACE or PLACE:SHARE of the synthetic words.",
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
        typer.Option(help="Width of its input, a time step every 4 pixels.", show_default="that of --init, or 100"),
    ] = None,
    freeze: Annotated[
        int | None, typer.Option(help="Leave the convolutions as they are for the first so many steps.")
    ] = None,
    decay: Annotated[
        int | None,
        typer.Option(help="End the run by letting the rate fall to 0 over so many steps (a tenth at most of warm-up)."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="End the run by letting the rate fall to 0 over so many minutes of training.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(metavar="N", help="End after N validations without a gain; 0 for no such end.")
    ] = None,
    pause: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", min=0, help="Stop after so many minutes; the same command goes on."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of a batch.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches of an update, of each process.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw, or muon: learns more from as many words, in a fifth more time on a CPU.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate after warm-up.")] = None,
    warm_up: Annotated[int | None, typer.Option(help="Steps of warm-up of a run that is not branched off.")] = None,
    guide: Annotated[
        float | None,
        typer.Option(help="Weight of an attention branch that guides training and is thrown away after it; 0: none."),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Choose words by the loss of these weights: bundled, an .onnx, or none."),
    ] = None,
    consistency: Annotated[
        float | None,
        typer.Option(help="See each word in two views, and weigh so much what is read differently (0.2); 0: once."),
    ] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or no (float32).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw words.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Seed of weights and samples.")] = None,
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
    from rich.markup import escape

    from crnn.charset import read_charset
    from crnn.cli._train_config import begun_again, branched, continued, fine_tuned, new, trained_by
    from crnn.cli._train_screen import say
    from crnn.training.checkpoints import STATE, holds_weights
    from crnn.training.config import CONFIG, TrainConfig
    from crnn.training.memory import keep_freed_memory
    from crnn.training.processes import launched_alone, start
    from crnn.training.sources import open_sources
    from crnn.training.trainer import Trainer

    if json_file is not None and not find_rate:
        raise OptionError("--json belongs to --find-rate")
    if init is not None and origin is not None:
        raise OptionError("--init and --from are two ways to begin: give one of them")
    given: dict[str, Any] = {
        "train": tuple(place_and_share(place) for place in train) if train else None,
        "validate": tuple(map(str, validate)) if validate else None,
        "fonts": tuple(fonts) if fonts else None,
        "words": str(words) if words else None,
        "backgrounds": str(backgrounds) if backgrounds else None,
        "charset": read_charset(charset).symbols if charset is not None else None,
        "synthetic": synthetic,
        "width": width,
        "freeze": freeze,
        "decay": decay,
        "minutes": minutes,
        "steps": steps,
        "stop_after": stop_after,
        "batch": batch,
        "accumulate": accumulate,
        "optimizer": optimizer,
        "rate": rate,
        "warm_up": warm_up,
        "guide": guide,
        "importance": "" if importance == "none" else importance,
        "consistency": consistency,
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
        options: dict[str, Any] = {"quiet": not processes.main, "highlight": False, "emoji": False}
        out, err = (Console(stderr=stderr, **options) for stderr in (False, True))
        if note := launched_alone():
            err.print(f"crnn: {note}", style="yellow", markup=False, soft_wrap=True)
        if processes.main and not find_rate:
            _check_place(run)
        has_config, has_state = (processes.from_main((run / name).exists) for name in (CONFIG, STATE))
        if has_config and has_state:
            config = continued(processes.from_main(lambda: TrainConfig.load(run)), given, run)
            if init or origin:
                say(out, f"{run} goes on from its own state; --init and --from are for a new run")
        elif has_config and not (init or origin):
            config = begun_again(processes.from_main(lambda: TrainConfig.load(run)), given, run)
        elif processes.from_main(lambda: holds_weights(run, begun=has_config)) and not find_rate:
            raise OptionError(
                f"{run} holds trained weights and no state to go on from; they would be replaced: give another folder"
            )
        elif origin is not None:
            config = branched(origin, given)
        elif init is not None:
            config, lines = fine_tuned(init, given)
            for line in lines:
                say(out, line)
        else:
            config = new(given)
        with err.status("opening data sets") as status:
            stream, real, notes = open_sources(config, lambda text: status.update(escape(text)))
        for note in notes:
            say(out, note)
        weights = None
        if init is not None and not has_state:
            from crnn.training.initial import initial_path, initial_weights

            with err.status("measuring batch normalisation on training words"):
                weights = processes.from_main(lambda: initial_weights(initial_path(init), stream))
        keep_freed_memory()
        lineage = (trained_by(config),)
        trainer = Trainer(run, config, stream, real, origin=origin, weights=weights, lineage=lineage)
        if find_rate:
            _find_rate(trainer, json_file, out, err)
        else:
            _train(trainer, pause, out, err)


def _check_place(run: Path) -> None:
    """Raises OptionError where the run's folder cannot be made or written to, before hours go into data sets."""
    import os

    there = next(path for path in (run, *run.absolute().parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is no folder"
        raise OptionError(f"a run cannot be kept in {run}: {there} {what}")


def _train(trainer: Trainer, pause: float | None, out: Console, err: Console) -> None:
    from crnn.cli._train_screen import Screen, say
    from crnn.training.checkpoints import BEST

    say(out, f"computing on {trainer.device}")
    if lost := trainer.held_out.unreadable:
        say(out, f"{lost:,} words to validate on cannot be decoded and are left out: crnn data check")
    if trainer.samples > trainer.batch:
        count, each = trainer.processes.count, trainer.accumulate
        batches = f"{each} {'batch' if each == 1 else 'batches'} of {trainer.batch}"
        say(out, f"{trainer.samples} samples a step: {f'{count} processes, each ' if count > 1 else ''}{batches}")
    with Screen(out, err, trainer) as screen:
        trainer.report = screen.show
        # Ctrl-C and a job scheduler's SIGTERM end the run after the step under way, with its state saved.
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.signal(number, lambda *_: trainer.stop()) for number in numbers]
        try:
            end = trainer.train(pause)
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    go = "none in this go"
    if end.images:
        waiting = f"{end.waited / end.seconds:.1%} of the time waiting for data"
        chosen = f" of {end.candidates} drawn" if trainer.stream.importance else ""
        go = f"{end.images} in this go{chosen} at {end.speed:.1f} images/s, {waiting}"
    say(out, f"step {end.step}, {end.position} samples in all; {go}; {end.skipped} steps skipped")
    if end.unreadable:
        say(
            out,
            f"{end.unreadable:,} pictures that were drawn cannot be decoded, and others were taken: crnn data check",
        )
    best = trainer.best
    if best.step:
        since = f"; {best.since} validations since without a gain" if best.since else ""
        where = trainer.run / BEST
        say(out, f"best validation: {best.accuracy:.1%} ({best.ned:.3f}) at step {best.step}, kept in {where}{since}")


def _find_rate(trainer: Trainer, json_file: Path | None, out: Console, err: Console) -> None:
    import json
    from dataclasses import asdict, replace

    from crnn.cli._train_screen import say
    from crnn.evaluation.tables import progress_bar
    from crnn.files import write_whole
    from crnn.training import finder

    trainer.config = replace(trainer.config, freeze=0)  # the rate is for the whole network
    with progress_bar(err) as bar:
        task = bar.add_task("rates", total=finder.STEPS)

        def show(step: int, rate: float, loss: float) -> None:
            bar.update(task, completed=step, description=f"rate {rate:.1e}  loss {loss:.3f}")

        finding = finder.find_rate(trainer.losses, steps=finder.STEPS, report=show)
    say(out, "    rate     loss")
    for line in finding.lines():
        say(out, line)
    if json_file is not None and trainer.processes.main:
        write_whole(json_file, json.dumps(asdict(finding), indent=1) + "\n")
    if finding.suggestion is None:
        say(out, "the loss fell at no rate: look at the data (crnn data check), or begin with other weights")
        raise typer.Exit(1)
    say(out, f"the loss is lowest at a rate of {finding.lowest:.1e}; try --rate {finding.suggestion:.1e}")
