"""The quickest convolutions for training in float32 on a processor, in the place of a network's own.

Where matrix hardware computes in bf16, the direct convolution is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.training.winograd import WinogradConv2d

_LEAST_CHANNELS = 64  # with fewer input channels Winograd's transforms cost more than they save


class ProductConv2d(nn.Conv2d):
    """``nn.Conv2d`` of stride 1 without padding, as one product of matrices if its kernel is as high as the pictures.

    The same parameters, the same result but for rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """float[N, C, H, W] -> float[N, K, H', W']; fastest on ``torch.channels_last``."""
        height, width = self.kernel_size
        if input.shape[2] != height:
            return super().forward(input)
        rows = input.permute(0, 2, 3, 1)
        steps = input.shape[3] - width + 1
        columns = torch.cat([rows[:, i, j : j + steps] for i in range(height) for j in range(width)], 2)
        output = F.linear(columns, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return output.unsqueeze(1).permute(0, 3, 1, 2)


_FASTER = (((3, 3), (1, 1), WinogradConv2d), ((2, 2), (0, 0), ProductConv2d))
"""By kernel and padding."""


def use(network: nn.Module) -> None:
    """Turns every convolution of ``network`` that there is a faster one for into that; it keeps its parameters."""
    for module in network.modules():
        for name, child in module.named_children():
            if not isinstance(child, nn.Conv2d) or not _is_plain(child):
                continue
            for kernel, padding, kind in _FASTER:
                if (child.kernel_size, child.padding) == (kernel, padding):
                    twin = kind(child.in_channels, child.out_channels, kernel, padding=padding, device="meta")
                    twin.weight, twin.bias = child.weight, child.bias
                    setattr(module, name, twin)


def _is_plain(layer: nn.Conv2d) -> bool:
    plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1 and layer.bias is not None
    return plain and layer.in_channels >= _LEAST_CHANNELS
