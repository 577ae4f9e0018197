from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crnn.training.winograd import WinogradConv2d

Gradients = tuple[Tensor, Tensor, Tensor]


def pair(channels: int, filters: int, dtype: torch.dtype) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(channels)
    direct = nn.Conv2d(channels, filters, 3, padding=1).to(dtype)
    twin = WinogradConv2d(channels, filters, 3, padding=1).to(dtype)
    twin.load_state_dict(direct.state_dict())
    return direct, twin


def run(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, Gradients]:
    images = images.clone().requires_grad_()
    output = layer(images)
    assert layer.bias is not None
    weighted = (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)).sum()
    return output, torch.autograd.grad(weighted, (images, layer.weight, layer.bias))  # type: ignore[return-value]


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (4, 26), (8, 25), (5, 7), (16, 50), (3, 2)])
def test_it_is_the_direct_convolution(size: tuple[int, int]) -> None:
    images = torch.randn(3, 6, *size, dtype=torch.float64)
    (expected, gradients), (output, others) = (run(layer, images) for layer in pair(6, 5, torch.float64))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-10, atol=1e-10)


def test_rounding_in_float32_stays_small() -> None:
    images = torch.randn(8, 256, 8, 25).contiguous(memory_format=torch.channels_last)
    (expected, gradients), (output, others) = (run(layer, images) for layer in pair(256, 128, torch.float32))
    for wanted, got in zip((expected, *gradients), (output, *others), strict=True):
        assert float((got - wanted).detach().abs().max()) < 1e-4 * float(wanted.detach().abs().max())
