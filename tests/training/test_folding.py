from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.charset import ALNUM36
from crnn.ctc import required_steps
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import bundled_model
from crnn.errors import CheckpointError
from crnn.export.onnx import weights_from_onnx
from crnn.images import normalise, prepare
from crnn.protocols import alnum36
from crnn.spec import ModelSpec
from crnn.training import folding
from crnn.training.folding import MIN_IMAGES, fold, is_folded, network_of, unfold
from crnn.training.network import CRNN

Weights = dict[str, Tensor]
Batch = tuple[Tensor, list[list[int]]]


SPEC = ModelSpec(width=48, steps=13)  # half as wide as usual, to be twice as quick
FEW = 500  # images that batch normalisation is measured on here; statistics of more are only better


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """The least number of images is lowered to 500."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "MIN_IMAGES", FEW)
        yield


@pytest.fixture(scope="module")
def reader(data_dir: Path) -> LmdbReader:
    return LmdbReader(data_dir / "IIIT5K_train_lmdb")


@pytest.fixture(scope="module")
def images(reader: LmdbReader) -> NDArray[np.float32]:
    """500 real training words."""
    pictures = [reader.image_bytes(i) for i in range(FEW)]
    return normalise(np.stack([prepare(picture, SPEC) for picture in pictures]), SPEC)


@pytest.fixture(scope="module")
def batch(images: NDArray[np.float32], reader: LmdbReader) -> Batch:
    """128 of them that fit into 13 steps, with their labels."""
    labels = [alnum36(reader.label(i)) for i in range(200)]
    fitting = [i for i, label in enumerate(labels) if 0 < required_steps(label) <= SPEC.steps][:128]
    return torch.from_numpy(images[fitting]), [ALNUM36.encode(labels[i]) for i in fitting]


@pytest.fixture(scope="module")
def trained(batch: Batch) -> Weights:
    """Weights as training leaves them in all that matters here: no statistic, scale or shift is trivial, and the loss
    on the batch depends on what the convolutions see. For that it is enough to train the last layer.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CRNN(hidden=64).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean over batches
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        last = network.rnn.get_submodule("1.embedding")
        inputs: list[Tensor] = []
        with torch.no_grad():
            network(batch[0])
            hook = last.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments[0]))
            network.eval()(batch[0])
        hook.remove()
        optimiser = torch.optim.Adam(last.parameters(), lr=0.1)
        for _ in range(150):
            optimiser.zero_grad()
            loss_of_batch = ctc_loss(F.log_softmax(last(inputs[0]), 2), batch[1])
            torch.autograd.backward(loss_of_batch)
            optimiser.step()
    return network.state_dict()


def ctc_loss(log_probabilities: Tensor, labels: list[list[int]]) -> Tensor:
    targets = torch.tensor([index for label in labels for index in label])
    lengths = torch.tensor([len(label) for label in labels])
    return F.ctc_loss(log_probabilities, targets, torch.full((len(labels),), SPEC.steps), lengths)


def loss(weights: Weights, batch: Batch, *, training: bool) -> float:
    with torch.no_grad():
        return float(ctc_loss(network_of(weights).train(training)(batch[0]), batch[1]))


def output(weights: Weights, images: Tensor) -> Tensor:
    with torch.no_grad():
        log_probabilities: Tensor = network_of(weights)(images)
    return log_probabilities


@pytest.fixture(scope="module")
def unfolded(trained: Weights, images: NDArray[np.float32]) -> Weights:
    return unfold(fold(trained), np.split(images, 5))


def test_folding_changes_the_layers_and_not_the_function(trained: Weights, batch: Batch) -> None:
    folded = fold(trained)
    assert not is_folded(trained)
    assert is_folded(folded)
    assert folded.keys() == CRNN(hidden=64, batch_norm=False).state_dict().keys()
    assert (output(folded, batch[0]) - output(trained, batch[0])).abs().max() < 1e-4


def test_folding_folded_weights_leaves_them(trained: Weights) -> None:
    once = fold(trained)
    assert all(torch.equal(value, once[key]) for key, value in fold(once).items())


def test_unfolding_leaves_the_evaluated_output(trained: Weights, unfolded: Weights, batch: Batch) -> None:
    assert unfolded.keys() == trained.keys()
    assert (output(unfolded, batch[0]) - output(fold(trained), batch[0])).abs().max() < 1e-3


def test_unfolding_does_not_make_the_training_loss_jump(trained: Weights, unfolded: Weights, batch: Batch) -> None:
    before = loss(fold(trained), batch, training=False)
    assert before < 3  # something was learnt: a network that reads nothing has about 3.7
    assert loss(unfolded, batch, training=True) == pytest.approx(before, rel=0.06)

    # The same measure does see a jump: batch normalisation put back as a new network has it.
    new = {**CRNN(hidden=64).state_dict(), **fold(trained)}
    assert loss(new, batch, training=True) > 1.3 * before


def test_folding_undoes_unfolding(trained: Weights, unfolded: Weights) -> None:
    back = fold(unfolded)
    for key, value in fold(trained).items():
        assert torch.allclose(back[key], value, rtol=1e-5, atol=1e-6), key


@pytest.fixture(scope="module")
def narrow() -> NDArray[np.float32]:
    """500 images that differ in brightness; 8 pixels wide, so that they are quick."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(FEW, 1, 32, 8)) + generator.normal(size=(FEW, 1, 1, 1))
    return noise.astype(np.float32)


def test_statistics_are_those_of_each_convolutions_output(trained: Weights, narrow: NDArray[np.float32]) -> None:
    unfolded = unfold(fold(trained), np.split(narrow, 10))
    network = network_of(fold(trained))
    with torch.no_grad():
        x = F.max_pool2d(F.relu(network.cnn.get_submodule("conv0")(torch.from_numpy(narrow))), 2)
        x = network.cnn.get_submodule("conv1")(x).double()
    x *= (unfolded["cnn.conv1.weight"] / fold(trained)["cnn.conv1.weight"]).flatten(1).median(1)[0][:, None, None]
    assert torch.allclose(unfolded["cnn.batchnorm1.running_mean"].double(), x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.allclose(unfolded["cnn.batchnorm1.running_var"].double(), x.var((0, 2, 3)), rtol=1e-4)


def test_convolutions_come_back_as_large_as_new_ones(unfolded: Weights) -> None:
    """So that an update turns them as far, whatever folding has multiplied them by."""
    for i in range(1, 7):
        weight = unfolded[f"cnn.conv{i}.weight"]
        size = weight.square().mean((1, 2, 3)).sqrt()
        assert torch.allclose(size, torch.full_like(size, (2 / weight[0].numel()) ** 0.5), rtol=1e-4)


def test_a_channel_without_weights_stays_one(trained: Weights, narrow: NDArray[np.float32]) -> None:
    folded = {key: value.clone() for key, value in fold(trained).items()}
    folded["cnn.conv2.weight"][3] = 0
    unfolded = unfold(folded, [narrow])
    assert all(torch.isfinite(value).all() for value in unfolded.values())
    assert not unfolded["cnn.conv2.weight"][3].any()


def test_how_the_images_are_batched_does_not_matter(trained: Weights, narrow: NDArray[np.float32]) -> None:
    one, other = (unfold(fold(trained), np.split(narrow, at)) for at in ([3, 120, 121, FEW - 1], range(50, FEW, 50)))
    for key, value in one.items():
        assert torch.allclose(value, other[key], rtol=1e-4, atol=1e-5), key


def test_too_few_images_and_weights_that_have_it_already_are_refused(
    trained: Weights, images: NDArray[np.float32]
) -> None:
    assert MIN_IMAGES == 2000
    with pytest.raises(CheckpointError, match=f"at least {FEW} training images, and there were only 128"):
        unfold(fold(trained), np.split(images[:128], 2))
    with pytest.raises(CheckpointError, match="already"):
        unfold(trained, [images])


def test_batch_normalisation_after_some_convolutions_only_is_folded(trained: Weights, batch: Batch) -> None:
    """The layout of the Ascend checkpoints: after convolutions 2, 4 and 6."""
    some = {
        key: value
        for key, value in trained.items()
        if not key.startswith(tuple(f"cnn.batchnorm{i}" for i in (1, 3, 5)))
    }
    network = CRNN(hidden=64)
    network.load_state_dict(trained)
    for i in (1, 3, 5):
        network.cnn.add_module(f"batchnorm{i}", nn.Identity())
    with torch.no_grad():
        expected = network.eval()(batch[0])
    assert (output(fold(some), batch[0]) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("lost", ["cnn.batchnorm3.running_mean", "cnn.conv3.weight"])
def test_half_a_batch_normalisation_is_refused(trained: Weights, lost: str) -> None:
    state = {key: value for key, value in trained.items() if key != lost}
    with pytest.raises(CheckpointError, match=f"cannot fold cnn.batchnorm3: the weights have no {lost}"):
        fold(state)


def test_the_bundled_weights_can_be_trained_on(data_dir: Path) -> None:
    """Weights that took hours, unfolded on a quarter of the least images: read the same, without a jump in loss."""
    folded, spec = weights_from_onnx(bundled_model())
    sets = [LmdbReader(data_dir / name) for name in ("IIIT5K_train_lmdb", "IC03_train_lmdb")]
    words = [(each.image_bytes(i), alnum36(each.label(i))) for each in sets for i in range(len(each))]
    words = [word for word in words if 0 < required_steps(word[1]) <= spec.steps]
    words = np.random.default_rng(0).permutation(np.array(words, dtype=object))[:FEW].tolist()
    images = torch.from_numpy(normalise(np.stack([prepare(picture, spec) for picture, _ in words]), spec))
    unfolded = unfold(folded, (images[i : i + 100] for i in range(0, len(images), 100)))

    evaluated, training = [], []
    for start in (0, 128):
        some = slice(start, start + 128)
        codes = [spec.charset.encode(label) for _, label in words[some]]

        def read(weights: Weights, train: bool, some: slice = some) -> Tensor:
            with torch.no_grad():
                logp: Tensor = network_of(weights).train(train)(images[some])
            return logp

        def loss(logp: Tensor, codes: list[list[int]] = codes) -> float:
            targets = torch.tensor([code for word in codes for code in word])
            lengths = torch.tensor([len(word) for word in codes])
            return float(F.ctc_loss(logp, targets, torch.full((len(codes),), len(logp)), lengths))

        before = read(folded, False)
        assert torch.allclose(before, read(unfolded, False), atol=1e-3)
        evaluated.append(loss(before))
        training.append(loss(read(unfolded, True)))
    jump = sum(training) / sum(evaluated)
    print(f"loss {sum(evaluated) / 2:.4f} evaluated, {sum(training) / 2:.4f} in training mode: {jump:.3f}")
    assert jump < 1.1
