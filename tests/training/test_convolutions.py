from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crnn.training import convolutions
from crnn.training.convolutions import ProductConv2d
from crnn.training.network import CRNN
from crnn.training.winograd import WinogradConv2d


@pytest.mark.parametrize(("kernel", "size"), [((2, 2), (2, 27)), ((2, 2), (2, 2)), ((3, 2), (3, 9)), ((2, 2), (4, 9))])
def test_one_product_is_the_direct_convolution(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    direct, twin = (kind(6, 5, kernel).double() for kind in (nn.Conv2d, ProductConv2d))
    twin.load_state_dict(direct.state_dict())
    images = torch.randn(3, 6, *size, dtype=torch.float64, requires_grad=True)
    (expected, gradients), (output, others) = (
        (made := layer(images), torch.autograd.grad(made.square().sum(), (images, *layer.parameters())))
        for layer in (direct, twin)
    )
    torch.testing.assert_close(output, expected)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient)


def test_a_network_keeps_its_parameters_and_its_output() -> None:
    torch.manual_seed(1)
    network = CRNN().eval()
    twin = copy.deepcopy(network)
    convolutions.use(twin)
    kinds = {name: type(module) for name, module in twin.named_modules() if isinstance(module, nn.Conv2d)}
    assert kinds.pop("cnn.conv0") is nn.Conv2d and kinds.pop("cnn.conv6") is ProductConv2d
    assert kinds == {f"cnn.conv{i}": WinogradConv2d for i in range(1, 6)}
    assert list(twin.state_dict()) == list(network.state_dict())
    images = torch.randn(5, 1, 32, 100)
    with torch.no_grad():
        torch.testing.assert_close(twin(images), network(images), rtol=0, atol=1e-4)
    for name in ("cnn.conv5.weight", "cnn.conv6.weight"):
        parameter = twin.get_parameter(name)
        assert parameter.requires_grad and parameter.is_leaf


def test_layers_that_none_suits_are_left_alone() -> None:
    layers = nn.Sequential(
        nn.Conv2d(8, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 2, padding=1),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
    )
    convolutions.use(layers)
    assert {type(layer) for layer in layers} == {nn.Conv2d}
