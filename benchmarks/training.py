"""The trainer against its own network: images/s of ``crnn train`` with synthetic words drawn as it goes, beside the
same updates on one batch that lies ready, in one run. ``python benchmarks/training.py --fonts DIR``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from crnn.spec import ModelSpec
from crnn.training.config import TrainConfig
from crnn.training.network import CRNN
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer, precision


def bare(batch: int, steps: int) -> float:
    """Images/s of forward, CTC loss, backward and AdamW on one batch of noise: what the machine gives at most."""
    network = CRNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    images = torch.randn(batch, 1, 32, 100).contiguous(memory_format=torch.channels_last)
    targets, lengths = torch.randint(1, 37, (batch * 6,)), torch.full((batch,), 6)
    mixed = precision("auto") == "bf16"
    start = 0.0
    for step in range(steps + 3):
        if step == 3:
            start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            logp = network(images)
        loss = F.ctc_loss(logp.float(), targets, torch.full((batch,), len(logp)), lengths, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return steps * batch / (time.perf_counter() - start)


def main() -> None:
    """Prints both speeds, their ratio, and the share of time the trainer waited for data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fonts", action="append", required=True)
    parser.add_argument("--backgrounds", default="")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    config = TrainConfig(
        fonts=tuple(options.fonts), backgrounds=options.backgrounds, batch=options.batch, validate_every=10**9
    )
    stream, real, _ = open_sources(config, ModelSpec())
    most = bare(options.batch, 15)
    with tempfile.TemporaryDirectory() as folder:
        end = Trainer(Path(folder) / "run", config, stream, real).train(options.minutes)
    most = (most + bare(options.batch, 15)) / 2  # before and after: the machine's own drift
    print(f"network alone, {precision('auto')}, batch {options.batch}: {most:.1f} images/s")
    print(f"crnn train, synthetic stream on: {end.speed:.1f} images/s, {end.speed / most:.2f} of it")
    print(f"waiting for data: {end.waited / end.seconds:.2%} of the time")


if __name__ == "__main__":
    main()
