"""scripts/figures.py finds the place of every figure in the pages, and writes all of them or none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crnn.evaluation.report import dataset_entry, report

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("test", "test_again", "held_out", "cuts", "cuts_again", "list50", "list1000", "int8")
SETS = {"IC15_train_lmdb": 447, "IC15_rectified_train_lmdb": 447, "IC03_train_lmdb": 91, "SVT_train_lmdb": 26}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(sizes: dict[str, int], every: int) -> dict[str, Any]:
    """Words of 1 to 22 characters, of which each ``every``-th one is misread with a confidence of 0.3."""
    datasets = []
    for name, size in sizes.items():
        words = []
        for n in range(1, size + 1):
            label = "a" * (1 + n % 22)
            right = n % every > 0
            words.append(
                {
                    "key": f"image-{n:09d}",
                    "label": label,
                    "text": label if right else "b",
                    "confidence": 0.9 if right else 0.3,
                }
            )
        datasets.append(dataset_entry(f"data/{name}", "0" * 64, words, [], size / 123))
    source = {
        "model": {"path": "words.onnx", "sha256": "0" * 64},
        "engine": {"name": "onnxruntime", "version": "1", "precision": "float32"},
        "temperature": 1.2345,
    }
    return report(datasets, source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, name in enumerate(NAMES):
        sizes = {"IIIT5K_lmdb": 3000}
        if name in ("held_out", "cuts", "cuts_again"):
            sizes = SETS if name != "held_out" else {k: v for k, v in SETS.items() if "rectified" not in k}
        (tmp_path / f"{name}.json").write_text(json.dumps(result(sizes, 7 + n)), encoding="utf-8")
    return tmp_path


def test_every_figure_has_one_place(figures: ModuleType, folder: Path) -> None:
    found = figures.pages(figures.Results(folder), "904173\t0.1234\texamples/904173.png\nend", "0.123456")
    texts = {}
    for name, edits in found.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        texts[name] = figures.edited(name, text, edits)
        assert texts[name] != text
        assert figures.edited(name, texts[name], edits) == texts[name]  # the new figures are found again
    for name in ("README.md", "README.zh-CN.md"):
        assert "```text\n904173\t0.1234\texamples/904173.png\nend\n```" in texts[name]
        assert "| IIIT5K test | 3000 | 85.73 % | 84.4-86.9 |" in texts[name]  # 428 of them are misread
    assert "Of the 428 words of IIIT5K that are misread, 428 have" in texts["README.md"]
    assert "of the 2,572 that are read right, 0 have" in texts["README.md"]
    assert "在读对的 2,572 个中，这样的有 0 个" in texts["README.zh-CN.md"]
    card = texts["src/crnn/weights/README.md"]
    assert "temperature 1.2345, fitted" in card
    assert "The file read 92.87 % of IIIT5K test in int8" in card
    assert "of the 1360 longer ones" in card
    decoding = texts["docs/decoding.md"]
    assert "| IIIT5K test, 3,000 | 428 | 85.73 | 87.50 | " in decoding and " | 123 | 123 |\n" in decoding
    assert "| none | 85.73 | 84.4-86.9 | " in decoding and "| 50 words, our own | 91.67 | " in decoding
    assert '"airport", "confidence": 0.123456,' in texts["docs/service.md"]
    assert texts["docs/performance.md"].count("85.73 %") == 2


def test_a_page_that_changed_stops_all(figures: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"page\.md: 0 places for .*nothing was written"):
        figures.edited("page.md", "nothing of this kind", [(r"(?<=read )[\d.]+", "1")])
    with pytest.raises(SystemExit, match=r"page\.md: 2 places"):
        figures.edited("page.md", "read 1, read 2", [(r"(?<=read )[\d.]+", "1")])
