"""The training loop that public repositories of this network have, written for the comparison in training.py.

The usual recipe: float32, a DataLoader over an LMDB that decodes and stretches pictures with Pillow, BatchNorm after
three convolutions, one bidirectional LSTM module a layer, CTC loss, Adam.
``python benchmarks/training_reference.py LMDB BATCH WORKERS SECONDS`` prints its images/s.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from crnn.charset import ALNUM36
from crnn.protocols import alnum36

WARM = 10
"""Steps that do not count, of each turn."""


class Reference(nn.Module):
    """The network as it is usually written down for training: BatchNorm after three convolutions, two joined LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        pools = {0: nn.MaxPool2d(2), 1: nn.MaxPool2d(2)}
        pools |= {i: nn.MaxPool2d((2, 2), (2, 1), (0, 1)) for i in (3, 5)}
        inputs = 1
        for i, outputs in enumerate((64, 128, 256, 256, 512, 512, 512)):
            layers.append(nn.Conv2d(inputs, outputs, 2 if i == 6 else 3, padding=0 if i == 6 else 1))
            if i in (2, 4, 6):
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
            if i in pools:
                layers.append(pools[i])
            inputs = outputs
        self.cnn = nn.Sequential(*layers)
        self.lower, self.join = nn.LSTM(512, 256, bidirectional=True), nn.Linear(512, 256)
        self.upper, self.classes = nn.LSTM(256, 256, bidirectional=True), nn.Linear(512, 37)

    def forward(self, images: Tensor) -> Tensor:
        """float32[N, 1, 32, 100] -> float32[26, N, 37], log-probabilities."""
        columns = self.cnn(images).squeeze(2).permute(2, 0, 1)
        columns = self.join(self.lower(columns)[0])
        return F.log_softmax(self.classes(self.upper(columns)[0]), 2)


class Words(Dataset[tuple[Tensor, str]]):
    """The words of an LMDB, opened in the worker that reads them."""

    def __init__(self, path: Path) -> None:
        self.path, self.env = str(path), None
        with lmdb.open(self.path, readonly=True, lock=False) as env, env.begin() as entries:
            self.count = int(entries.get(b"num-samples"))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        if self.env is None:
            self.env = lmdb.open(self.path, readonly=True, lock=False, readahead=False, meminit=False)
        with self.env.begin() as entries:
            data, label = (bytes(entries.get(f"{kind}-{i + 1:09d}".encode())) for kind in ("image", "label"))
        gray = Image.open(io.BytesIO(data)).convert("L").resize((100, 32), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(gray, dtype=np.uint8)).float().div(255).sub(0.5).div(0.5)
        return pixels.unsqueeze(0), alnum36(label.decode())


def reference(data: Path, batch: int, workers: int) -> Iterator[None]:
    """Updates of the reference loop without end; yields after each."""
    network = Reference()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    loss_of = nn.CTCLoss(zero_infinity=True)
    loader = DataLoader(Words(data), batch, shuffle=True, num_workers=workers, drop_last=True)
    while True:
        for images, labels in loader:
            logp = network(images)
            targets = torch.tensor([code for label in labels for code in ALNUM36.encode(label)])
            lengths = torch.tensor([len(label) for label in labels])
            loss = loss_of(logp, targets, torch.full((len(images),), len(logp)), lengths)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            yield


def speed(steps: Iterator[None], batch: int, seconds: float) -> float:
    """Images/s of warm steps."""
    for _ in range(WARM):
        next(steps)
    began, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() < began + seconds:
        next(steps)
        done += 1
    return done * batch / (time.perf_counter() - began)


if __name__ == "__main__":
    path, batch, workers, seconds = sys.argv[1:]
    print(speed(reference(Path(path), int(batch), int(workers)), int(batch), float(seconds)))
