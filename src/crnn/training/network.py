"""The network of "An End-to-End Trainable Neural Network for Image-based Sequence Recognition" (Shi, Bai, Yao 2015).

Seven convolutions turn a 32-pixel-high gray picture into one row of 512-channel columns; two bidirectional LSTM layers
read the columns; a linear layer scores every class at every column (time step).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Table 1 of the paper, from the input up: output channels, kernel size, padding, and the max pooling that follows as
# (kernel, stride, padding). Pools at stride (2, 1) halve the height alone, so that narrow letters keep their columns.
HIDDEN = 256  # units of an LSTM
_HALVE = (2, 2, 0)
_HALVE_HEIGHT = (2, (2, 1), (0, 1))
LAYERS = (
    (64, 3, 1, _HALVE),
    (128, 3, 1, _HALVE),
    (256, 3, 1, None),
    (256, 3, 1, _HALVE_HEIGHT),
    (512, 3, 1, None),
    (512, 3, 1, _HALVE_HEIGHT),
    (512, 2, 0, None),
)
_HALVE_HEIGHT_ALONE = ((2, 1), (2, 1), 0)
Layer: TypeAlias = tuple[int, int, int, Any]


def layers(trunk: str = "crnn") -> tuple[Layer, ...]:
    """The seven layers of a trunk (:data:`crnn.spec.TRUNKS`), described as :data:`LAYERS` describes the paper's."""
    if trunk == "crnn":
        return LAYERS
    return tuple((*layer[:3], _HALVE_HEIGHT_ALONE if layer[3] is _HALVE_HEIGHT else layer[3]) for layer in LAYERS)


def _channels_last(gradient: Tensor) -> Tensor:
    """The columns' gradient, in the order of the convolutions' pictures.

    In the LSTMs' own order the gradient of batch normalisation takes ten times as long.
    """
    return gradient.contiguous(memory_format=torch.channels_last)


class BidirectionalLSTM(nn.Module):
    """Two independent LSTMs, one reading the columns backwards, and a linear layer over their joined outputs.

    They are two modules, not one bidirectional ``nn.LSTM``, as in the exported graph and in the Ascend checkpoints
    (``fw_rnn``, ``bw_rnn``).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fw_rnn = nn.LSTM(inputs, hidden)
        self.bw_rnn = nn.LSTM(inputs, hidden)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, columns: Tensor) -> Tensor:
        """float[T, N, inputs] -> float[T, N, outputs]."""
        forward, _ = self.fw_rnn(columns)
        backward, _ = self.bw_rnn(columns.flip(0))
        joined: Tensor = self.embedding(torch.cat((forward, backward.flip(0)), 2))
        return joined


class CRNN(nn.Module):
    """The paper's network; input 32 pixels high, ``width // 4 + 1`` time steps, 2 fewer with the trunk ``dtrb``.

    ``batch_norm`` adds batch normalisation after every convolution but the first, where it would halve the speed. It
    exists for training alone: :func:`crnn.training.folding.fold` writes it into the convolutions, and what is exported
    has the paper's layers and nothing else.
    """

    def __init__(
        self, classes: int = 37, channels: int = 1, hidden: int = HIDDEN, batch_norm: bool = True, trunk: str = "crnn"
    ) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.layers = layers(trunk)
        self.cnn = nn.Module()
        for i, (width, kernel, padding, _) in enumerate(self.layers):
            self.cnn.add_module(f"conv{i}", nn.Conv2d(channels, width, kernel, padding=padding))
            if batch_norm and i > 0:
                self.cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(width))
            channels = width
        self.rnn = nn.Sequential(BidirectionalLSTM(512, hidden, hidden), BidirectionalLSTM(hidden, hidden, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def features(self, images: Tensor) -> Tensor:
        """float[N, channels, 32, W] -> float[T, N, 512], the columns the LSTMs read."""
        x = images
        for i, (_, _, _, pool) in enumerate(self.layers):
            x = self.cnn.get_submodule(f"conv{i}")(x)
            if self.batch_norm and i > 0:
                x = self.cnn.get_submodule(f"batchnorm{i}")(x)
            if pool:  # before the ReLU: the result is the same, and only what is left has to go through it
                x = F.max_pool2d(x, *pool)
            x = F.relu(x)
        if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
            x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return x.squeeze(2).permute(2, 0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float32[N, channels, 32, W] -> float32[T, N, classes], log-probabilities (class 0 is the CTC blank)."""
        logits = self.rnn(self.features(images))
        return F.log_softmax(logits.float(), 2)
