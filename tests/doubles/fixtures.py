"""Pytest fixtures: the ``acl`` double in ``sys.modules``, and toolkits with an ``atc``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.acl import Acl
from tests.doubles.cann import FakeCannFactory


@pytest.fixture
def acl() -> Iterator[Acl]:
    """pyACL's double, importable as ``acl``; the test fails on misuse and leaks."""
    with Acl().installed() as module:
        yield module
    module.check()


@pytest.fixture
def fake_cann(tmp_path: Path) -> FakeCannFactory:
    """Makes toolkits under the test's own folder."""
    return FakeCannFactory(tmp_path)
