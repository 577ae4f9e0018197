from __future__ import annotations

import pytest
import torch

from crnn.training.network import CRNN, BidirectionalLSTM


def test_it_is_the_contracts_network() -> None:
    network = CRNN(batch_norm=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 8_331_301 - 2 * (256 + 512 + 512)
    names = {name.rsplit(".", 1)[0] for name in network.state_dict()}
    assert names == {f"cnn.conv{i}" for i in range(7)} | {
        f"rnn.{i}.{part}" for i in range(2) for part in ("fw_rnn", "bw_rnn", "embedding")
    }


@pytest.mark.parametrize(("width", "steps"), [(100, 26), (160, 41), (32, 9)])
def test_width_sets_the_time_steps(width: int, steps: int) -> None:
    with torch.no_grad():
        logp = CRNN().eval()(torch.zeros(2, 1, 32, width))
    assert logp.shape == (steps, 2, 37)
    assert torch.allclose(logp.exp().sum(2), torch.ones(steps, 2), atol=1e-5)


def test_the_backward_lstm_reads_from_the_end() -> None:
    """It is the reverse direction of torch's own bidirectional LSTM."""
    torch.manual_seed(0)
    layer = CRNN().rnn[0]
    assert isinstance(layer, BidirectionalLSTM)
    both = torch.nn.LSTM(512, 256, bidirectional=True)
    both.load_state_dict(
        {name: tensor for name, tensor in layer.fw_rnn.state_dict().items()}
        | {f"{name}_reverse": tensor for name, tensor in layer.bw_rnn.state_dict().items()}
    )
    columns = torch.randn(26, 3, 512)
    with torch.no_grad():
        assert torch.allclose(layer(columns), layer.embedding(both(columns)[0]), atol=1e-5)


def test_convolutions_get_the_gradient_in_their_own_order() -> None:
    """That of the LSTMs' columns makes batch normalisation slow; the values are the same."""
    network = CRNN().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: list[torch.Tensor] = []

    def watch(module: torch.nn.Module, given: object, output: torch.Tensor) -> None:
        output.register_hook(seen.append)  # type: ignore[no-untyped-call]

    network.cnn.get_submodule("batchnorm6").register_forward_hook(watch)
    images = torch.randn(4, 1, 32, 100).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(26, 4, 512)
    columns = network.features(images)
    (columns * weights).sum().backward()
    assert seen[0].stride() == (26 * 512, 1, 26 * 512, 512)  # that of a height of 1 counts too: it is looked at
    pictures = weights.permute(1, 2, 0).unsqueeze(2) * (columns.detach().permute(1, 2, 0).unsqueeze(2) > 0)
    assert torch.allclose(seen[0], pictures)
