from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def run(name: str, folder: Path, *options: object) -> tuple[dict[str, Any], str]:
    """What a benchmark measures, and a copy of the page that it writes its figures into."""
    file, page = folder / "figures.json", folder / "jobs.md"
    page.write_text((ROOT / "docs" / "jobs.md").read_text(encoding="utf-8"), encoding="utf-8")
    always = ("--data", SAMPLE, "--engine", "onnxruntime", "--json", file, "--page", page)
    command = [str(each) for each in (sys.executable, ROOT / "benchmarks" / name, *always, *options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text()), page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "block"), [("job", "job"), ("job_memory", "memory")])
def test_the_page_says_what_its_figures_say(
    name: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whether the machine was idle."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
    figures = json.loads((ROOT / "docs" / "performance" / f"{name}.json").read_text())
    page, copy = ROOT / "docs" / "jobs.md", tmp_path / "jobs.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    benchmark["write_block"](copy, block, benchmark["in_words"](figures), figures["others"])
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    for others, told in ((0.06, True), (0.05, False), (None, False)):
        benchmark["write_block"](copy, block, ["figures"], others)
        assert ("figures\n\n**Other processes took 6% of" in copy.read_text(encoding="utf-8")) == told


def test_speed(tmp_path: Path) -> None:
    found, page = run("job.py", tmp_path, "--count", 40)
    assert [row["input"] for row in found["inputs"]] == ["picture files", "tar archives", "Parquet", "LMDB"]
    assert all(row["alone"] > row["words_per_second"] > 0 for row in found["inputs"])
    assert found["cores_of_a_link"] > found["cores_of_a_prefix"] > 0
    assert f"The Reader alone, on pictures in memory: {found['reader']:,.0f} words/s" in page
    assert "## The Reader in a job of your own" in page


def test_memory(tmp_path: Path) -> None:
    found, page = run("job_memory.py", tmp_path, "--light", 2000, "--real", 100)
    assert (found["light"]["words"], len(found["light"]["held"]), found["real"]["words"]) == (2000, 10, 100)
    assert all(size > 50 << 20 for size in found["light"]["held"] + found["real"]["held"])
    assert "- over 2,000 words with no network: " in page and "- over 100 words with the network: " in page
    assert "1,000,000 words" not in page and "## The Reader in a job of your own" in page
