"""The training loop: a run in a folder that can be stopped at any moment and goes on from its last saved state."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from crnn.errors import CheckpointError, CrnnError, OptionError
from crnn.files import lock, make_folder, modified
from crnn.spec import ModelSpec
from crnn.training import convolutions, optimizers
from crnn.training.adaptation import freeze
from crnn.training.checkpoints import BEST, LOCK, STATE, WEIGHTS, load_state, save_state, save_weights
from crnn.training.config import TrainConfig
from crnn.training.consistency import apart
from crnn.training.data import Batch, RealWords, SampleStream, batches, joined
from crnn.training.guide import CLIP, Guide
from crnn.training.network import CRNN
from crnn.training.precision import precision
from crnn.training.processes import batch_and_accumulate, device_type, start
from crnn.training.progress import LOG, Progress, TensorBoard, open_log
from crnn.training.schedule import finished, learning_rate
from crnn.training.stopping import Best
from crnn.training.validation import HeldOut, Validation, validate

HOPELESS = 1.0  # nats a character: a word of five letters at 0.7 % probability
PATIENCE = 30  # steps in a row whose loss or gradient is not finite, after which a run gives up


class Trainer:
    """One training run.

    Args:
        run: its folder; made where missing.
        config: what to do. A run that has a saved state goes on from it.
        origin: a state of another run to branch off (its folder or ``state.pt``), or None.
        weights: first values of a new run, with BatchNorm (see :func:`crnn.training.folding.unfold`), or None.
        report: called after every step.
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        stream: SampleStream,
        held_out: list[RealWords],
        *,
        origin: Path | None = None,
        weights: dict[str, Tensor] | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        lineage: tuple[str, ...] = (),
    ) -> None:
        self.run, self.config, self.stream, self.report = run, config, stream, report
        self.spec = replace(config.spec, lineage=config.lineage + lineage)
        if stream.twice != (config.consistency > 0):
            raise OptionError("consistency needs a stream that gives each word twice, and nothing else does")
        self.processes = start()
        self.processes.check_same(config)
        self._state_read = 0  # when the state that this object goes on from was written; of process 0
        state, own = self.processes.from_main(lambda: self._saved_state(origin))
        so_far = state.get("precision", "") if own else ""
        kind = self.processes.from_main(lambda: precision(config.precision, so_far))
        try:
            # Processors have to be asked for: accelerate would take each of several processes for one alone, and on a
            # Mac its graphics, which has no CTC loss in torch.
            self.accelerator = Accelerator(mixed_precision=kind, cpu=device_type() == "cpu")
        except ValueError as error:  # not with this device; or another run of this process computes in another one
            raise OptionError(f"precision {kind} is not to be had here: {error}") from error
        torch.manual_seed(config.seed)
        network = CRNN(self.spec.charset.classes, self.spec.channels)
        if weights is not None:
            network.load_state_dict(weights)
        network.load_state_dict(self.processes.from_main(network.state_dict))  # alike to the last bit everywhere
        if self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "no":
            convolutions.use(network)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = optimizers.optimizer(network, config, self.accelerator.device.type, kind)
        self.guide: Guide | None = None
        if config.guide:
            self.guide = Guide(network, self.spec, config.seed)
            self.guide.load_state_dict(self.processes.from_main(self.guide.state_dict))
            self.guide.to(self.accelerator.device)
            optimizer.add_param_group(self.guide.group(config.rate))
        # As for evaluation: not wrapped for several processes, as _gradients sums over them itself.
        self.network = self.accelerator.prepare_model(network, evaluation_mode=True)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.average = {name: tensor.detach().clone() for name, tensor in self._state_dict().items()}
        self.step = self.first_step = self.position = self.skipped = self._in_a_row = 0
        self.seconds, self.best = 0.0, Best()  # of training, by the clock; of validations
        self._stopped = False
        if state:
            if own:
                self._check_sources(state.get("sources"))
            self._restore(state)
            if own:
                self.seconds, self.best = float(state.get("seconds", 0)), Best(**state.get("best", {}))
            else:
                self.first_step = self.step
        self.batch, self.accumulate = batch_and_accumulate(
            config, self.processes.count, state.get("samples") if own else None
        )
        self.samples = self.batch * self.accumulate * self.processes.count
        self.held_out = HeldOut(held_out, self.spec)
        if config.stop_after and not self.held_out.labels:
            raise OptionError("--stop-after needs words to validate on, and no word of these data sets can be used")

    @property
    def device(self) -> str:
        """What computes, and in what: ``cpu (2 threads) in float32``."""
        kind = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.accelerator.mixed_precision]
        device = self.accelerator.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        threads = torch.get_num_threads()
        if device.type == "cpu":
            name = f"{threads} thread{'s' * (threads != 1)}"
        return f"{device}{f' ({name})' if name else ''} in {kind}"

    def train(self, minutes: float | None = None) -> Progress:
        """Trains until the configuration's end, or for ``minutes`` of this process; saves; returns where the run is.

        Raises CrnnError where the loss stays non-finite; the saved state is then the one from before.
        """
        with self._own() if self.processes.main else nullcontext():
            return self._steps(minutes)

    def _steps(self, minutes: float | None) -> Progress:
        main = self.processes.main
        log = open_log(self.run / LOG, self.step) if main else None
        board = TensorBoard(self.run, self.step) if main else None
        started = saved = time.monotonic()
        before = self.seconds
        progress = Progress(self.step, self.position, math.nan, 0.0, self.skipped, 0.0, 0.0, 0)
        supply = self._supply()
        try:
            end = math.inf if minutes is None else started + minutes * 60
            while not self._finished():
                waiting = time.monotonic()
                share = [next(supply) for _ in range(self.accumulate)]
                progress.waited += time.monotonic() - waiting
                ids, candidates, unreadable, stop = self._agreed(share, self._stopped or time.monotonic() >= end)
                if stop:  # somewhere, so everywhere: what was drawn for this step is drawn again by whoever goes on
                    break
                progress.rate = self._rate()
                progress.loss, norm = self._one_step(share, progress.rate)
                if log:
                    self._note(log, ids, progress.loss)
                progress.step, progress.position, progress.skipped = self.step, self.position, self.skipped
                progress.images += self.samples
                progress.candidates += candidates
                progress.unreadable += unreadable
                progress.seconds = time.monotonic() - started
                self.seconds = before + progress.seconds
                if self.config.minutes:  # by which the rate falls: everywhere to the same value
                    self.seconds = self.processes.from_main(lambda: self.seconds)
                progress.elapsed, progress.validation = self.seconds, None
                if self.step % self.config.validate_every == 0 or self._finished():
                    self._level()
                    progress.validation = self.validate()
                    if self.best.note(progress.validation, self.step) and main:
                        save_weights(self.run / BEST, self.average, self.spec)
                if board:
                    board.write(progress, norm)
                self.report(progress)
                if main and not self._in_a_row and time.monotonic() - saved > self.config.save_every:
                    self._save(log)
                    saved = time.monotonic()
        finally:
            if log:
                if self._in_a_row < PATIENCE:
                    self._save(log)
                with suppress(OSError):  # of a line that could not be written, which has been said
                    log.close()
            if board:
                board.close()
        return progress

    def _level(self) -> None:
        """Gives all processes the weights of process 0.

        They are the same already where AdamW moves them, whatever the processor. Muon's products of matrices round as
        each processor does.
        """
        if self.processes.count > 1 and self.config.optimizer == "muon":
            self.accelerator.unwrap_model(self.network).load_state_dict(self.processes.from_main(self._state_dict))

    def _own(self) -> IO[str]:
        """The run's folder, made where missing, and locked as long as what is returned is open.

        Raises OptionError where another process trains in it: each would write over the other's state.
        """
        make_folder(self.run)
        try:
            owned = (self.run / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"{self.run}: cannot be written to ({error.strerror})") from None
        if not lock(owned):
            owned.close()
            raise OptionError(f"{self.run}: another process trains in it: stop that one, or give another folder")
        if modified(self.run / STATE) != self._state_read:
            owned.close()
            raise OptionError(f"{self.run}: another process has trained on in it meanwhile: give the command again")
        self.config.save(self.run)
        return owned

    def _note(self, log: IO[str], ids: list[int], loss: float) -> None:
        try:
            log.write(json.dumps({"step": self.step, "loss": loss, "ids": ids}) + "\n")
        except OSError as error:
            raise OptionError(f"{self.run / LOG}: cannot be written ({error.strerror})") from None

    def stop(self) -> None:
        """Makes :meth:`train` save and return after the step under way, in all processes after the same one.

        May be called from a signal handler.
        """
        self._stopped = True

    def validate(self) -> Validation:
        """Accuracy of the averaged weights on the held-out words."""
        network = CRNN(self.spec.charset.classes, self.spec.channels).to(self.accelerator.device)
        network.load_state_dict(self.average)
        network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        with self.accelerator.autocast():
            return validate(network, self.held_out, self.accelerator.device, self.processes)

    def _one_step(self, share: list[Batch], rate: float) -> tuple[float, float]:
        """One update; (loss, norm of the gradient). An update that is not finite is left out and counted."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        self.network.train()
        freeze(self.accelerator.unwrap_model(self.network), self.step - self.first_step < self.config.freeze)
        before = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        loss = self._gradients(share)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        guided: Tensor | float = 0.0
        if self.guide is not None:
            guided = torch.nn.utils.clip_grad_norm_(self.guide.parameters(), CLIP)
            self.guide.steps += 1
        finite = bool(torch.isfinite(loss + norm + guided))
        if finite or self.accelerator.scaler:  # fp16's scaler leaves such an update out itself, and lowers its scale
            self.optimizer.step()
        if finite:
            self._in_a_row = 0
        else:
            self.skipped += 1
            self._in_a_row += 1
            for buffer, value in before:  # the forward pass has moved the running statistics, to NaN perhaps
                buffer.copy_(value)
        self.optimizer.zero_grad()
        self.step += 1
        self.position += self.samples
        if finite:
            self._follow()
        elif self._in_a_row >= PATIENCE:
            saved = (self.run / STATE).exists()
            begin = f"branch off the state before them (crnn train NEW --from {self.run})" if saved else "begin again"
            raise CrnnError(
                f"the loss was not finite for {PATIENCE} steps in a row (step {self.step}): {begin} "
                "with a lower --rate, or with --precision no"
            )
        return float(loss), float(norm)

    def _gradients(self, share: list[Batch]) -> Tensor:
        """Leaves in the network the mean gradient of this step's batches, of all processes.

        Returns their mean CTC loss (of words with two views, that of the first).

        Each batch is normalised by itself, and begins with the running statistics there were before the step. These
        move by the mean of what each batch alone would have moved them. So it makes no difference which process, or in
        which order, computes a batch. Until all processes have exchanged theirs, they stay as they were: where one has
        ended, the others hold the state after the last whole step.
        """
        device = self.accelerator.device
        several = len(share) * self.processes.count > 1
        before = [(buffer, buffer.clone()) for buffer in self.network.buffers()] if several else []
        moved = [(buffer, value, torch.zeros_like(value)) for buffer, value in before if value.dtype.is_floating_point]
        mean = torch.zeros((), device=device)
        for batch in share:
            for buffer, value in before:
                buffer.copy_(value)
            logp = self.network(to_input(batch.images.to(device), self.spec))
            steps = torch.full((logp.shape[1],), logp.shape[0], dtype=torch.long)
            each = F.ctc_loss(
                logp.float(), batch.targets.to(device), steps, batch.lengths, reduction="none", zero_infinity=True
            )
            lengths, weights = batch.lengths.to(device), batch.weights.to(device)
            each = each / lengths
            loss = (weights * bounded(each)).mean()
            words = len(batch.ids)  # fewer than images, where each has two views
            if self.config.consistency:
                between = bounded(apart(logp.float()) / lengths[:words])
                loss = loss + self.config.consistency * (weights[:words] * between).mean()
            if self.guide is not None:
                with self.accelerator.autocast():
                    more = self.guide.losses(batch.targets, batch.lengths, int(batch.ids[0]))
                loss = loss + self.config.guide * (weights * bounded(more)).mean()
            self.accelerator.backward(loss / len(share))
            mean += (weights * each.detach())[:words].mean() / len(share)
            for buffer, value, way in moved:
                way += (buffer - value) / len(share)
        for buffer, value, _ in moved:
            buffer.copy_(value)
        learning = [*self.network.parameters(), *(self.guide.parameters() if self.guide is not None else [])]
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        self.processes.average([mean, *gradients, *(way for _, _, way in moved)])
        for buffer, value, way in moved:
            buffer.copy_(value + way)
        return mean

    def _agreed(self, share: list[Batch], stop: bool) -> tuple[list[int], int, int, bool]:
        """What all processes hold for this step together.

        (ids of the samples, as first, last of each run; words they were chosen among; pictures that could not be
        decoded; whether one stops).
        """
        ends = [int(end) for batch in share for end in (batch.ids[0], batch.ids[-1])]
        counts = [sum(batch.candidates for batch in share), sum(batch.unreadable for batch in share)]
        rows = self.processes.rows([stop, *counts, *ends])
        ranges = [pair for row in rows for pair in zip(row[3::2], row[4::2], strict=True)]
        return joined(ranges), sum(row[1] for row in rows), sum(row[2] for row in rows), any(row[0] for row in rows)

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average towards the weights; early on it follows faster, as it holds little yet."""
        keep = min(self.config.average, (1 + self.step) / (10 + self.step))
        mine, theirs = [], []
        for name, tensor in self._state_dict().items():
            if tensor.dtype.is_floating_point:
                mine.append(self.average[name])
                theirs.append(tensor)
            else:
                self.average[name].copy_(tensor)
        torch._foreach_lerp_(mine, theirs, 1 - keep)

    def _rate(self) -> float:
        return learning_rate(self.config, self.step, self.first_step, self.seconds)

    def losses(self, rates: Iterable[float]) -> Iterator[float]:
        """The loss before each of as many updates, at these rates: of this object's weights, nothing is written."""
        supply = self._supply()
        for rate in rates:
            share = [next(supply) for _ in range(self.accumulate)]
            yield self._one_step(share, rate)[0]

    def _finished(self) -> bool:
        return finished(self.config, self.step, self.first_step, self.seconds, self.best)

    def _supply(self) -> Iterator[Batch]:
        rank, processes = self.processes.rank, self.processes.count
        return batches(
            self.stream, self.position, self.batch, workers=self.config.workers, rank=rank, processes=processes
        )

    def _state_dict(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.accelerator.unwrap_model(self.network).state_dict()
        return state

    def _save(self, log: IO[str] | None) -> None:
        """The log, the whole state, then the weights, each whole or not at all."""
        if log:
            with suppress(OSError):  # which the next line to be written says; the state may find room
                log.flush()
        state: dict[str, Any] = {
            "network": self._state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "guide": self.guide.state_dict() if self.guide is not None else None,
            "random": torch.get_rng_state(),
            "step": self.step,
            "first_step": self.first_step,
            "position": self.position,
            "samples": self.samples,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "best": asdict(self.best),
            "precision": self.accelerator.mixed_precision,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "sources": self.stream.sizes(),
        }
        save_state(self.run / STATE, state)
        self._state_read = modified(self.run / STATE)
        save_weights(self.run / WEIGHTS, self.average, self.spec)

    def _saved_state(self, origin: Path | None) -> tuple[dict[str, Any], bool]:
        """(the run's own state, or that of ``origin``, or none; whether it is its own)."""
        self._state_read = modified(self.run / STATE)
        if (self.run / STATE).exists():
            return load_state(self.run / STATE), True
        return (load_state(origin) if origin is not None else {}), False

    def _check_sources(self, before: dict[str, int] | None) -> None:
        """Raises CheckpointError where the stream is drawn from more or less than the run's saved state was."""
        now = self.stream.sizes()
        if before is None or before == now:  # states did not say it at first
            return
        changes = "; ".join(
            f"{what}: {before.get(what, 0)}, now {now.get(what, 0)}"
            for what in {**before, **now}
            if before.get(what) != now.get(what)
        )
        raise CheckpointError(
            f"{self.run} was trained on other data, or on words chosen otherwise, than now ({changes}): put it back, "
            f"or branch off: crnn train NEW --from {self.run}"
        )

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.accelerator.unwrap_model(self.network).load_state_dict(state["network"])
            if self.guide is not None and state.get("guide"):
                self.guide.load_state_dict(state["guide"])
            optimizers.restore(self.optimizer, state["optimizer"])
            for name, tensor in state["average"].items():
                self.average[name].copy_(tensor)
            if self.accelerator.scaler and state.get("scaler"):  # fp16, in this run and in that of the state
                self.accelerator.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["random"])
            self.step, self.first_step = int(state["step"]), int(state["first_step"])
            self.position, self.skipped = int(state["position"]), int(state["skipped"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the saved state is not one of this network: {error}") from error


def bounded(losses: Tensor) -> Tensor:
    """Losses per character, float32[N]; above :data:`HOPELESS` they grow as the logarithm of what they were.

    So each gradient is at most as long as that of a word at the bound, and the order of the losses stays. Without it
    the few words that nobody can read make most of the gradient of a network that reads well.
    """
    return torch.where(losses > HOPELESS, HOPELESS * (1 + torch.log(losses.clamp(min=HOPELESS) / HOPELESS)), losses)


def to_input(images: Tensor, spec: ModelSpec) -> Tensor:
    """uint8[N, height, width] -> float32[N, 1, height, width], normalised as :func:`crnn.images.normalise` does."""
    return ((images.unsqueeze(1).float() / 255 - spec.mean) / spec.std).contiguous(memory_format=torch.channels_last)
