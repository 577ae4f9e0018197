from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from crnn.bench.cost import multiply_adds
from crnn.spec import DELIVERABLE, ModelSpec
from crnn.training.network import CRNN


def counted(spec: ModelSpec) -> int:
    """Each weight of a layer is used once for every position of its output."""
    network = CRNN(spec.charset.classes, spec.channels, batch_norm=False, **trunk(spec)).eval()
    total = 0

    def count(module: nn.Module, _: object, output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Linear):
            total += module.weight.numel() * output.shape[0]
        elif isinstance(module, nn.LSTM):
            weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
            total += weights * output[0].shape[0]

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, spec.channels, spec.height, spec.width))
    return total


def trunk(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.trunk == "crnn" else {"trunk": spec.trunk}


@pytest.mark.parametrize(
    "spec",
    [
        DELIVERABLE,
        dataclasses.replace(DELIVERABLE, width=160, steps=41),
        dataclasses.replace(DELIVERABLE, channels=3),
        dataclasses.replace(DELIVERABLE, trunk="dtrb", steps=24),
    ],
)
def test_multiply_adds_are_those_of_the_network(spec: ModelSpec) -> None:
    assert multiply_adds(spec) == counted(spec)
