"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.doubles.fixtures"]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real word images: $CRNN_DATA, or shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CRNN_DATA", default))
    if not folder.is_dir():
        pytest.fail(f"no real word images in {folder}; set CRNN_DATA to the folder that holds IIIT5K_lmdb")
    return folder
