"""Each benchmark starts, measures a little, and prints and writes what it is there for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageFont

from crnn import Reader
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.evaluation.report import dataset_entry, report
from crnn.protocols import alnum36

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "src" / "crnn" / "samples" / "words_lmdb"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    # torch's threads spin while they wait for each other: two of them on a busy machine take minutes for seconds' work
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["machine"]["processor"]["usable"] >= 1
    return found


def test_decoding(tmp_path: Path) -> None:
    file = tmp_path / "decoding.json"
    printed = run("decoding.py", "--data", SAMPLE, "--count", 64, "--seconds", 0.01, "--json", file)
    rows = figures(file)["rows"]
    assert len(rows) == 4 and all(row["milliseconds"] > 0 and row["what"] in printed for row in rows)


def test_loss(tmp_path: Path) -> None:
    file, words = tmp_path / "loss.json", tmp_path / "words"
    sample = LmdbReader(SAMPLE)
    with LmdbWriter(words) as writer:
        for i in range(20):
            writer.add(sample.image_bytes(i), sample.label(i))
        writer.add(sample.image_bytes(0), "wrongwrong")
        writer.add(sample.image_bytes(0), "w" * 14)
    printed = run("loss.py", "--data", words, "--model", "bundled", "--engine", "onnxruntime", "--json", file)
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["words"], row["impossible"]) == (21, 1) and "(1 labels left out)" in printed
    read = list(Reader(engine="onnxruntime").read_many([sample.image_bytes(i) for i in range(20)]))
    right = [word.text == alnum36(sample.label(i)) for i, word in enumerate(read)]
    assert row["right"] == pytest.approx(sum(right) / 21) and 0.5 < sum(right) / 21 < 1
    assert 0.5 < row["probability"] < 20 / 21 and 0.05 < row["loss"] < 1


def test_lexicon(tmp_path: Path) -> None:
    file, known = tmp_path / "lexicon.json", tmp_path / "words.txt"
    known.write_text("\n".join(f"word{k}" for k in range(300)))
    options = ("--data", SAMPLE, "--count", 64, "--checked", 16, "--words", known, "--sizes", 20, 300)
    printed = run("lexicon.py", *options, "--seconds", 0.01, "--json", file)
    assert "20 words: " in printed and "within 3 edits" in printed
    found = figures(file)
    small, large = found["rows"]
    assert (small["words"], large["words"]) == (20, 300)
    assert small["recall"] == large["recall"] == 1.0  # the search is exact
    assert small["in_lexicon"] == 0 < large["in_lexicon"] and large["accuracy"] > found["accuracy"] > 0.5
    recalls = [each["recall"] for each in large["candidates"]]
    assert recalls == sorted(recalls) and recalls[0] < 1


def test_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    options = ("--data", SAMPLE, "--engine", "onnxruntime", "--count", 8, "--turns", 1, "--seconds", 0.05)
    assert "LMDB to words" in run("pipeline.py", *options, "--json", file)
    found = figures(file)
    assert found["engine"] == "onnxruntime" and found["share"] == found["words_per_second"] / found["network"]
    assert [row["words"] for row in found["growth"]] == [1, 4, 16]
    assert found["latency"] > 0 and len(found["cold"]) == 5


def test_precisions(tmp_path: Path) -> None:
    file = tmp_path / "precisions.json"
    run("precisions.py", "--data", SAMPLE, "--json", file)
    rows = figures(file)["rows"]
    assert (rows[0]["engine"], rows[0]["precision"], rows[0]["same"]) == ("onnxruntime", "float32", 1.0)
    torch = next(row for row in rows if row["engine"] == "torch")
    assert torch["same"] > 0.98 and abs(torch["accuracy"] - rows[0]["accuracy"]) < 0.02


def test_rivals(tmp_path: Path) -> None:
    file, loop = tmp_path / "rivals.json", "plain ONNX Runtime loop"
    run("rivals.py", "--data", SAMPLE, "--count", 12, "--turns", 3, "--threads", 1, "--only", loop, "--json", file)
    crnn, other = figures(file)["rows"]
    assert (crnn["reader"], crnn["ratio"], other["reader"]) == ("crnn", 1.0, loop)
    assert other["ratios"][0] <= other["ratio"] <= other["ratios"][1]
    assert other["accuracy"] > 0.5 and abs(crnn["accuracy"] - other["accuracy"]) < 0.1  # int8 may read one otherwise


def test_training(tmp_path: Path) -> None:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    (tmp_path / "font.ttf").write_bytes(font.path.getvalue())  # type: ignore[union-attr]
    file = tmp_path / "training.json"
    options = ("--data", SAMPLE, "--batch", 2, "--turns", 1, "--seconds", 0.1, "--precision", "no")
    assert "times the reference loop" in run("training.py", "--fonts", tmp_path, *options, "--json", file)
    found = figures(file)
    assert [row["what"] for row in found["rows"]][:: len(found["rows"]) - 1] == ["reference", "crnn train"]
    assert found["precision"] == "float32" and 0 <= found["waited"] <= 1 and found["ratio"] > 0


def test_the_page_says_what_its_figures_say(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    docs = ROOT / "docs"
    shutil.copytree(docs / "performance", tmp_path / "performance", ignore=shutil.ignore_patterns("*.svg"))
    shutil.copy(docs / "performance.md", tmp_path)
    run("document.py", tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text()
    assert page == (docs / "performance.md").read_text()
    shares = re.findall(r"\| (\d+)% \((\d+)%-(\d+)%\) \|", page)  # served of the network alone, least and most
    assert len(shares) == 3 and all(int(low) <= int(share) <= int(high) for share, low, high in shares)
    for plot in ("batch.svg", "threads.svg", "words.svg"):
        assert f"(performance/{plot})" in page
        assert (tmp_path / "performance" / plot).stat().st_size > 10_000


def test_the_page_on_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, result = tmp_path / "accuracy.md", tmp_path / "result.json"
    shutil.copy(ROOT / "docs" / "accuracy.md", page)
    shutil.copytree(ROOT / "docs" / "accuracy", tmp_path / "accuracy", ignore=shutil.ignore_patterns("*.svg"))
    words = [("able", "able", 0.9), ("oslo", "os1o", 0.6), ("tree", "tre", 0.2), ("tea", "tea", 0.8)] * 10
    entries = [
        {"key": f"image-{i:09d}", "label": label, "text": text, "confidence": confidence}
        for i, (label, text, confidence) in enumerate(words, 1)
    ]
    source = {"model": None, "engine": None, "temperature": 1.0}
    made = report([dataset_entry("some_lmdb", "0" * 64, entries, [], None)], source)
    result.write_text(json.dumps(made))
    run("accuracy.py", page, result, result)
    text = page.read_text()
    assert "| some | 40 | 50.0% | 35.2%-64.8% |" in text and "| some, held out | 40 | 50.0% |" in text
    assert "| 3 | 10 | 100.0% |" in text and "| 4 | 30 | 33.3% |" in text
    assert "| `l` read as `1` | 10 | oslo as os1o |" in text and "| `e` lost | 10 | tree as tre |" in text
    assert "| 0.8 | 50.0% | 100.0% |" in text
    for plot in ("length.svg", "confidence.svg", "curve.svg"):
        assert f"(accuracy/{plot})" in text and (tmp_path / "accuracy" / plot).stat().st_size > 5_000


def test_the_page_on_accuracy_is_of_the_bundled_weights() -> None:
    page, readme = ((ROOT / name).read_text() for name in ("docs/accuracy.md", "README.md"))
    [told] = re.findall(r"\| IIIT5K test \| 3000 \| ([\d.]+) % \|", readme)
    [found] = re.findall(r"\| IIIT5K \| 3000 \| ([\d.]+)% \|", page)
    assert float(found) == round(float(told), 1)
