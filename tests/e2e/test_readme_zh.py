"""The Chinese README says what the English one says: same blocks, same figures, same places."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:^<!-- [a-z ]+ -->\n)?^```.*?^```$", flags=re.MULTILINE | re.DOTALL)

PATTERNS = {
    "heading levels": r"^#+(?= )",
    "inline code": r"`[^`]+`",
    "figures": r"\d[\d,.]*\d|\d",
    "links": r"\]\((?!README)([^)]+)\)",  # but for those from one language to the other
}


def test_the_blocks_are_the_same() -> None:
    assert len(BLOCK.findall(ENGLISH)) > 5
    assert BLOCK.findall(CHINESE) == BLOCK.findall(ENGLISH)


@pytest.mark.parametrize("what", PATTERNS)
def test_the_prose_names_the_same_things(what: str) -> None:
    """As often as in English, but in an order that Chinese may choose."""

    def found(text: str) -> Counter[str]:
        return Counter(re.findall(PATTERNS[what], BLOCK.sub("", text), flags=re.MULTILINE))

    english, chinese = found(ENGLISH), found(CHINESE)
    assert english == chinese, f"in README.md alone: {english - chinese}; in README.zh-CN.md alone: {chinese - english}"


def test_every_link_leads_somewhere() -> None:
    assert "](README.zh-CN.md)" in ENGLISH and "](README.md)" in CHINESE
    for text in (ENGLISH, CHINESE):
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert link.startswith("http") or (ROOT / link.partition("#")[0]).exists(), link
