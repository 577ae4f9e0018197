from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.export.parity import CheckSet, load_check_set
from crnn.spec import ModelSpec
from crnn.training.network import CRNN

SPEC = ModelSpec(licence="for tests", lineage=("random weights",))


@pytest.fixture(scope="session")
def words_lmdb(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 real words: more than one batch of 64."""
    path = tmp_path_factory.mktemp("words") / "lmdb"
    reader = LmdbReader(data_dir / "IIIT5K_train_lmdb")
    with LmdbWriter(path) as writer:
        for i in range(70):
            writer.add(reader.image_bytes(i), reader.label(i))
    return path


@pytest.fixture(scope="session")
def words(words_lmdb: Path) -> CheckSet:
    return load_check_set(words_lmdb, SPEC)


@pytest.fixture(scope="session")
def weights(words: CheckSet) -> dict[str, Tensor]:
    """Random weights with batch normalisation as training leaves it: no statistic, scale or shift is trivial.

    The LSTMs and the last layer are scaled up until different words read as different strings; weights fresh from
    initialisation read every word alike, and a wrong graph would pass.
    """
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = CRNN()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # the plain mean over batches
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
            network.train()(torch.from_numpy(words.images))
            for name, parameter in network.rnn.named_parameters():
                parameter.mul_(10 if name.startswith("1.embedding") else 2)
    return network.state_dict()
