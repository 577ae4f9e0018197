"""The networks of other projects, written here from their published layer lists, with the names of their tensors.

They are what imported weights are compared with, so nothing in them comes from the package.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 256, 512, 512, 512)
KERNELS = (3, 3, 3, 3, 3, 3, 2)


def named_convolutions(colours: int, bias_before_norm: bool = True) -> nn.Sequential:
    """The trunk of meijieru, Ascend, MMOCR and PARSeq: BatchNorm behind convolutions 2, 4 and 6."""
    cnn = nn.Sequential()
    before = colours
    for i, (width, kernel) in enumerate(zip(CHANNELS, KERNELS, strict=True)):
        norm = i in (2, 4, 6)
        padding = 0 if i == 6 else 1
        cnn.add_module(f"conv{i}", nn.Conv2d(before, width, kernel, 1, padding, bias=bias_before_norm or not norm))
        if norm:
            cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(width))
        cnn.add_module(f"relu{i}", nn.ReLU())
        if i in (0, 1):
            cnn.add_module(f"pooling{i}", nn.MaxPool2d(2, 2))
        if i in (3, 5):
            cnn.add_module(f"pooling{(i + 1) // 2}", nn.MaxPool2d((2, 2), (2, 1), (0, 1)))
        before = width
    return cnn


class OneWayPair(nn.Module):
    """Ascend: the second LSTM reads the flipped sequence."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fw_rnn = nn.LSTM(inputs, hidden)
        self.bw_rnn = nn.LSTM(inputs, hidden)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Any:
        forward = self.fw_rnn(x)[0]
        backward = torch.flip(self.bw_rnn(torch.flip(x, [0]))[0], [0])
        return self.embedding(torch.cat([forward, backward], dim=-1))


class TwoWay(nn.Module):
    """The others: one bidirectional LSTM, time first or batch first, and a linear layer called ``name``."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, name: str = "embedding", batch_first: bool = False
    ) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=batch_first)
        self.name = name
        self.add_module(name, nn.Linear(2 * hidden, outputs))

    def forward(self, x: Tensor) -> Any:
        return self.get_submodule(self.name)(self.rnn(x)[0])


class Ascend(nn.Module):
    """-> log-probabilities [T, N, classes]."""

    def __init__(self, classes: int = 37, hidden: int = 256) -> None:
        super().__init__()
        self.cnn = named_convolutions(1)
        self.rnn = nn.Sequential(OneWayPair(512, hidden, hidden), OneWayPair(hidden, hidden, classes))

    def forward(self, images: Tensor) -> Any:
        return torch.log_softmax(self.rnn(self.cnn(images).squeeze(2).permute(2, 0, 1)), 2)


class Meijieru(nn.Module):
    """-> logits [T, N, classes]."""

    def __init__(self, classes: int = 37, hidden: int = 256) -> None:
        super().__init__()
        self.cnn = named_convolutions(1)
        self.rnn = nn.Sequential(TwoWay(512, hidden, hidden), TwoWay(hidden, hidden, classes))

    def forward(self, images: Tensor) -> Any:
        return self.rnn(self.cnn(images).squeeze(2).permute(2, 0, 1))


class Dtrb(nn.Module):
    """None-VGG-BiLSTM-CTC -> logits [N, T, classes]."""

    def __init__(self, classes: int = 37, colours: int = 1, hidden: int = 256) -> None:
        super().__init__()
        self.FeatureExtraction = nn.Module()
        self.FeatureExtraction.ConvNet = nn.Sequential(
            nn.Conv2d(colours, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(64, 128, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(128, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(256, 512, 3, 1, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(),
            nn.Conv2d(512, 512, 3, 1, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(512, 512, 2, 1, 0), nn.ReLU(),
        )  # fmt: skip
        self.SequenceModeling = nn.Sequential(
            TwoWay(512, hidden, hidden, "linear", batch_first=True),
            TwoWay(hidden, hidden, hidden, "linear", batch_first=True),
        )
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Any:
        features = self.FeatureExtraction.ConvNet(images)  # type: ignore[operator]
        return self.Prediction(self.SequenceModeling(features.squeeze(2).permute(0, 2, 1)))


class Mmocr(nn.Module):
    """-> logits [N, T, classes], the blank last."""

    def __init__(self, classes: int = 37) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.cnn = named_convolutions(1)
        self.decoder = nn.Module()
        self.decoder.decoder = nn.Sequential(TwoWay(512, 256, 256), TwoWay(256, 256, classes))

    def forward(self, images: Tensor) -> Any:
        features = self.backbone.cnn(images)  # type: ignore[operator]
        return self.decoder.decoder(features.squeeze(2).permute(2, 0, 1)).permute(1, 0, 2)  # type: ignore[operator]


class Parseq(nn.Module):
    """-> logits [N, T, classes], of RGB pictures."""

    def __init__(self, classes: int = 95) -> None:
        super().__init__()
        self.cnn = named_convolutions(3, bias_before_norm=False)
        self.rnn = nn.Sequential(
            TwoWay(512, 256, 256, "linear", batch_first=True), TwoWay(256, 256, classes, "linear", batch_first=True)
        )

    def forward(self, images: Tensor) -> Any:
        return self.rnn(self.cnn(images).squeeze(2).transpose(1, 2))


def lively(network: nn.Module, images: Tensor, seed: int = 1) -> nn.Module:
    """Random weights that tell pictures apart, BatchNorm as training leaves it: no statistic or scale is trivial."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean over batches
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
            if isinstance(module, nn.LSTM | nn.Linear):
                for parameter in module.parameters():
                    parameter.uniform_(-0.12, 0.12)
        network.train()(images)
    return network.eval()
