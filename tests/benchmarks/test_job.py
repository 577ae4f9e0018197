from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def test_job(tmp_path: Path) -> None:
    file, page = tmp_path / "job.json", tmp_path / "jobs.md"
    page.write_text((ROOT / "docs" / "jobs.md").read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--data", SAMPLE, "--count", 40, "--engine", "onnxruntime", "--light", 2000, "--real", 100]
    command = [sys.executable, ROOT / "benchmarks" / "job.py", *options, "--json", file, "--page", page]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert [row["input"] for row in found["inputs"]] == ["picture files", "tar archives", "Parquet", "LMDB"]
    assert all(row["alone"] > row["words_per_second"] > 0 for row in found["inputs"])
    assert (found["light"]["words"], len(found["light"]["held"])) == (2000, 10)
    assert found["real"]["words"] == 100 and found["cores_of_a_link"] > found["cores_of_a_prefix"] > 0
    written = page.read_text(encoding="utf-8")
    assert f"The Reader alone, on pictures in memory: {found['reader']:,.0f} words/s" in written
    assert "Memory over 2,000 words with no network" in written and "## The Reader in a job of your own" in written
