"""Fixtures for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests import bars

from crnn.datasets.lmdb import LmdbWriter

pytest_plugins = ["tests.doubles.fixtures"]

# A shell that runs the suite in the background has it ignore interrupts, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real word images: $CRNN_DATA, or shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CRNN_DATA", default))
    if not folder.is_dir():
        pytest.fail(f"no real word images in {folder}; set CRNN_DATA to the folder that holds IIIT5K_lmdb")
    return folder


@pytest.fixture(scope="session")
def bar_code() -> Callable[..., bytes]:
    """bar_code(text, blur=0): see :func:`tests.bars.draw`."""
    return bars.draw


@pytest.fixture
def write_lmdb(tmp_path: Path) -> Callable[..., Path]:
    """write_lmdb([(picture, label), ...], name="words_lmdb") -> its path."""

    def write(words: Sequence[tuple[bytes, str]], name: str = "words_lmdb") -> Path:
        with LmdbWriter(tmp_path / name) as writer:
            for picture, label in words:
                writer.add(picture, label)
        return tmp_path / name

    return write
