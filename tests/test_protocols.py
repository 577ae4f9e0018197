from __future__ import annotations

import pytest

from crnn.protocols import alnum36, dropped


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("Hello", "hello"),
        ("$5.50", "550"),
        ("don't STOP", "dontstop"),
        ("Café", "caf"),
        ("３７", ""),
        ("ß", ""),
    ],
)
def test_alnum36(text: str, kept: str) -> None:
    assert alnum36(text) == kept
    assert alnum36(kept) == kept


def test_what_is_dropped_is_counted_by_reason() -> None:
    counts = dropped(["Ab1", "a b\tc", "$5.50", "é３x", "!?", "", "e\u0301"])
    assert counts == {
        "space": 2,
        "punctuation or symbol": 4,
        "letter or digit outside 0-9a-z": 2,
        "other": 1,
        "empty label": 2,
    }
    assert not dropped(["All", "fine"])
