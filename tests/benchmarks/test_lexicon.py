from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def test_lexicon(tmp_path: Path) -> None:
    file, known = tmp_path / "lexicon.json", tmp_path / "words.txt"
    known.write_text("\n".join(f"word{k}" for k in range(300)))
    options = ["--data", SAMPLE, "--count", 64, "--checked", 16, "--words", known, "--sizes", 20, 300]
    command = [sys.executable, ROOT / "benchmarks" / "lexicon.py", *options, "--seconds", 0.01, "--json", file]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    small, large = found["rows"]
    assert (small["words"], large["words"]) == (20, 300)
    assert small["recall"] == large["recall"] == 1.0  # the search is exact
    assert small["in_lexicon"] == 0 < large["in_lexicon"] and large["accuracy"] > found["accuracy"] > 0.5
    recalls = [each["recall"] for each in large["candidates"]]
    assert recalls == sorted(recalls) and recalls[0] < 1
    assert "20 words: " in done.stdout and "within 3 edits" in done.stdout
