"""Batch normalisation written into the convolutions it follows, and put back.

Batch normalisation (Ioffe and Szegedy, 2015) computes, per channel, ``(x - mean) / sqrt(variance + eps) * scale +
shift``. Once its mean and variance are fixed that is one more linear step after a linear one, so a convolution can do
both: what is exported has the paper's layers alone (:func:`fold`). Training, though, wants the normalisation of each
batch, so weights that were folded get it back before they are trained further (:func:`unfold`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn.errors import CheckpointError
from crnn.training import convolutions
from crnn.training.network import CRNN, LAYERS

MIN_IMAGES = 2000
_EPS = nn.BatchNorm2d(1).eps  # the network takes PyTorch's default; a state dict does not say


def is_folded(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the weights hold no batch normalisation."""
    return not any(key.startswith("cnn.batchnorm") for key in state_dict)


def network_of(state_dict: Mapping[str, Tensor], trunk: str = "crnn") -> CRNN:
    """The network these weights belong to (sizes read off the tensors), loaded with them and in evaluation mode.

    The ``trunk`` is their spec's: no tensor tells one from the other.

    Raises CheckpointError where a tensor is missing, unknown or of the wrong shape.
    """
    try:
        network = CRNN(
            classes=state_dict["rnn.1.embedding.weight"].shape[0],
            channels=state_dict["cnn.conv0.weight"].shape[1],
            hidden=state_dict["rnn.0.fw_rnn.weight_hh_l0"].shape[1],
            batch_norm=not is_folded(state_dict),
            trunk=trunk,
        )
        network.load_state_dict(state_dict)
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"these are not the weights of a CRNN: {' '.join(str(error).split())}") from error
    return network.eval()


def fold(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without batch normalisation: ``batchnorm{i}`` goes into ``conv{i}``, wherever there is one.

    Tensors that stay the same are shared, not copied. The arithmetic is done in float64 and rounded once to the
    weights' own dtype.
    Raises CheckpointError if a batch normalisation has no convolution before it or lacks one of its tensors.
    """
    folded = {key: value for key, value in state_dict.items() if not key.startswith("cnn.batchnorm")}
    names = {key.split(".")[1] for key in state_dict if key.startswith("cnn.batchnorm")}
    for norm in sorted(names):
        conv = norm.replace("batchnorm", "conv")
        try:
            scale, shift, mean, variance = (
                state_dict[f"cnn.{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
            )
            weight = state_dict[f"cnn.{conv}.weight"]
        except KeyError as error:
            raise CheckpointError(f"cannot fold cnn.{norm}: the weights have no {error.args[0]}") from error
        bias = state_dict.get(f"cnn.{conv}.bias", torch.zeros_like(mean, dtype=weight.dtype))
        factor = scale / torch.sqrt(variance + _EPS)
        folded[f"cnn.{conv}.weight"] = (weight.double() * factor[:, None, None, None]).to(weight.dtype)
        folded[f"cnn.{conv}.bias"] = ((bias.double() - mean) * factor + shift).to(bias.dtype)
    return folded


def unfold(state_dict: Mapping[str, Tensor], images: Iterable[Tensor | NDArray[np.float32]]) -> dict[str, Tensor]:
    """Folded weights with batch normalisation put back after every convolution but the first, ready to be trained on.

    ``images``: batches float32[N, channels, 32, W], network input, all of them read once; at least 2,000 images, best
    such as the training will see. The statistics are those of each convolution's output over them. Scale and shift are
    set to undo the normalisation (``scale = sqrt(variance + eps)``, ``shift = mean``), so the evaluated output stays
    as it was, and one pass through the folded network measures every layer. The convolutions' weights come back as
    large as those of a new network (He et al. 2015), which the scale undoes as well, so that a rate means the same for
    both. In training mode, where the statistics are each batch's own, the output moves only as far as the batch is
    unlike the images measured: no jump in the loss.

    Raises CheckpointError if the weights already have batch normalisation or there are too few images.
    """
    if not is_folded(state_dict):
        raise CheckpointError("the weights already have batch normalisation: fold them first")
    network = network_of(state_dict)
    convolutions.use(network)
    moments = {i: _Moments() for i in range(1, len(LAYERS))}
    hooks = [
        network.cnn.get_submodule(f"conv{i}").register_forward_hook(lambda _m, _i, output, to=each: to.add(output))
        for i, each in moments.items()
    ]
    count = 0
    with torch.no_grad():
        for batch in images:
            network.features(torch.as_tensor(batch))
            count += len(batch)
    for hook in hooks:
        hook.remove()
    if count < MIN_IMAGES:
        raise CheckpointError(
            f"batch normalisation is measured on at least {MIN_IMAGES} training images, and there were only {count}"
        )

    unfolded = dict(state_dict)
    for i, measured in moments.items():
        mean, variance = measured.mean, measured.variance()
        conv, norm = f"cnn.conv{i}", f"cnn.batchnorm{i}"
        size = _to_initial_size(state_dict[f"{conv}.weight"])
        unfolded[f"{conv}.weight"] = (state_dict[f"{conv}.weight"] * size[:, None, None, None]).float()
        unfolded[f"{conv}.bias"] = (state_dict[f"{conv}.bias"] * size).float()
        unfolded[f"{norm}.weight"] = (torch.sqrt(variance * size**2 + _EPS) / size).float()
        unfolded[f"{norm}.bias"] = mean.float()
        unfolded[f"{norm}.running_mean"] = (mean * size).float()
        unfolded[f"{norm}.running_var"] = (variance * size**2).float()
        unfolded[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return unfolded


def _to_initial_size(weight: Tensor) -> Tensor:
    """float64[channels], what brings each channel of a convolution to the size that it has in a new network.

    Normalisation takes the size out again, so that what is computed stays the same; but an update turns weights by as
    much as it is large beside them. Folding has left them small: updates of a usual rate would turn them several times
    as far as those of a new network, and undo what was learnt.
    """
    squares = weight.double().flatten(1).square().mean(1)
    fan_in = weight[0].numel()
    return torch.where(squares > 0, torch.sqrt(2 / fan_in / squares), 1.0)


class _Moments:
    """Mean and variance per channel over many batches, merged as Chan, Golub and LeVeque (1983) do, in float64.

    Sums of squares would lose the variance of a channel whose mean is large; merging centred moments does not.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(1, dtype=torch.float64)
        self.squares = torch.zeros(1, dtype=torch.float64)  # summed squared distances from the mean

    def add(self, output: Tensor) -> None:
        """Take in one batch, float32[N, channels, H, W]."""
        variance, mean = torch.var_mean(output, dim=(0, 2, 3), correction=0)
        count = output.numel() // output.shape[1]
        total = self.count + count
        step = mean.double() - self.mean
        self.squares = self.squares + variance.double() * count + step**2 * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    def variance(self) -> Tensor:
        """float64[channels], unbiased, as PyTorch keeps its running variance."""
        return self.squares / (self.count - 1)
