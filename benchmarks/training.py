"""``crnn train`` with synthetic words drawn as it goes, beside the loop that public repositories of this network have.

``python benchmarks/training.py --fonts DIR [--data LMDB]``. The reference loop is in training_reference.py; it has a
process of its own. The network alone, on one batch that lies ready, shows what the trainer could reach.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from common import ROOT, Report, parser
from torch.nn import functional as F
from training_reference import WARM, speed

from crnn.training import convolutions
from crnn.training.config import TrainConfig
from crnn.training.memory import keep_freed_memory
from crnn.training.network import CRNN
from crnn.training.progress import Progress
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer


def bare(batch: int, kind: str) -> Iterator[None]:
    """Updates of our network on one batch of noise: ``float32``, ``Winograd`` (as it trains) or ``bfloat16``."""
    mixed, network = kind == "bfloat16", CRNN()
    if kind == "Winograd":
        convolutions.use(network)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    images = torch.randn(batch, 1, 32, 100).contiguous(memory_format=torch.channels_last)
    targets, lengths = torch.randint(1, 37, (batch * 6,)), torch.full((batch,), 6)
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            logp = network(images)
        loss = F.ctc_loss(logp.float(), targets, torch.full((batch,), len(logp)), lengths, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


def reference(data: Path, batch: int, workers: int, seconds: float) -> float:
    """Images/s of the reference loop."""
    script = Path(__file__).with_name("training_reference.py")
    command = [sys.executable, str(script), *map(str, (data, batch, workers, seconds))]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


class Ours:
    """Turns of one training run."""

    def __init__(self, run: Path, config: TrainConfig) -> None:
        stream, real, _ = open_sources(config)
        self.times: list[float] = []
        self.waited: list[float] = []
        self.trainer = Trainer(run, config, stream, real, report=self._note)
        self.batch = config.batch

    def speed(self, seconds: float) -> tuple[float, float]:
        """(images/s of warm steps, the share of their time that was spent waiting for data)."""
        self.times.clear()
        self.waited.clear()
        self._seconds = seconds
        self.trainer._stopped = False
        self.trainer.train()
        taken = self.times[-1] - self.times[WARM]
        return (
            self.batch * (len(self.times) - 1 - WARM) / taken,
            (self.waited[-1] - self.waited[WARM]) / taken,
        )

    def _note(self, progress: Progress) -> None:
        self.times.append(time.perf_counter())
        self.waited.append(progress.waited)
        if len(self.times) > WARM + 1 and self.times[-1] - self.times[WARM] > self._seconds:
            self.trainer.stop()


def main() -> None:
    """Prints images/s of each, the trainer's ratio to the reference loop, and its share of time without data."""
    options = parser(__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--fonts", action="append", required=True)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "IIIT5K_train_lmdb")
    options.add_argument("--backgrounds", default="")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--workers", type=int, default=1, help="processes that load data, for both")
    options.add_argument("--precision", default="auto", help="of crnn train: auto, no or bf16")
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--seconds", type=float, default=15.0, help="a turn")
    chosen = options.parse_args()
    batch, seconds = chosen.batch, chosen.seconds
    config = TrainConfig(
        train=((str(chosen.data), 0.3),),
        fonts=tuple(chosen.fonts),
        backgrounds=chosen.backgrounds,
        batch=batch,
        workers=chosen.workers,
        precision=chosen.precision,
        validate_every=10**9,
    )
    keep_freed_memory()  # as the command does
    report = Report("training", chosen.json)
    kinds = ["float32", "Winograd"]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere it is emulated, and takes minutes
        kinds.append("bfloat16")
    names = ("reference", *(f"network alone, {kind}" for kind in kinds), "crnn train")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    waited = []
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(Path(folder) / "run", config)
        for _ in range(chosen.turns):
            speeds["reference"].append(reference(chosen.data, batch, chosen.workers, seconds))
            for kind in kinds:
                speeds[f"network alone, {kind}"].append(speed(bare(batch, kind), batch, seconds / 2))
            of_turn, share = ours.speed(seconds)
            speeds["crnn train"].append(of_turn)
            waited.append(share)
    ratios = sorted(a / b for a, b in zip(speeds["crnn train"], speeds["reference"], strict=True))
    kind = ours.trainer.accelerator.mixed_precision
    used = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[kind]
    for name, of_turns in speeds.items():
        print(f"{name}: {median(of_turns):.1f} images/s ({min(of_turns):.1f}-{max(of_turns):.1f})")
    print(f"crnn train computes in {used} and waits for data {median(waited):.2%} of the time")
    print(f"{median(ratios):.2f} times the reference loop ({ratios[0]:.2f}-{ratios[-1]:.2f}; at least 3 is the aim)")
    rows = [{"what": name, "images_per_second": median(of), "turns": of} for name, of in speeds.items()]
    figures = {"batch": batch, "workers": chosen.workers, "precision": used, "waited": median(waited)}
    report.write({**figures, "ratio": median(ratios), "ratios": [ratios[0], ratios[-1]], "rows": rows})


if __name__ == "__main__":
    main()
