"""The original's whole way on real words: data set, prepared words, results, score. It must read as `crnn evaluate`."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter

ENGINE = ("--engine", "onnxruntime")


def crnn(*arguments: str | Path) -> None:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output


def read(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


@pytest.fixture
def subset(data_dir: Path, tmp_path: Path) -> Any:
    """subset(name, count): ``count`` words of a data set (None: all), drawn with a seed, as a data set."""

    def make(name: str, count: int | None) -> Path:
        reader = LmdbReader(data_dir / name)
        if count is None:
            return reader.path
        with LmdbWriter(tmp_path / name) as writer:
            for i in sorted(random.Random(0).sample(range(len(reader)), count)):
                writer.add(reader.image_bytes(i), reader.label(i))
        return tmp_path / name

    return make


def same_words(mine: dict[str, Any], whole: dict[str, Any], confidence: float) -> None:
    """The same words in the same order, read alike, and the same figures."""
    assert mine["overall"]["accuracy"] == whole["overall"]["accuracy"]
    assert mine["overall"]["used"] == whole["overall"]["used"]
    for word, other in zip(mine["datasets"][0]["words"], whole["datasets"][0]["words"], strict=True):
        assert word["key"].removeprefix("test_").partition(".")[0] == other["key"].removeprefix("image-").lstrip("0")
        assert (word["label"], word["text"]) == (other["label"], other["text"])
        assert word["confidence"] == pytest.approx(other["confidence"], abs=confidence)


@pytest.mark.parametrize(("name", "count"), [("SVT_train_lmdb", None), ("IC15_train_lmdb", 100)])
def test_the_chain_reads_as_evaluate(name: str, count: int | None, subset: Any, tmp_path: Path) -> None:
    dataset, labels = subset(name, count), tmp_path / "label.txt"
    crnn("evaluate", dataset, *ENGINE, "--json", tmp_path / "whole")
    crnn("prepare", dataset, tmp_path / "bins", "--labels", labels)
    crnn("infer", tmp_path / "bins", *ENGINE, "--out", tmp_path / "result")  # 16 in a call, the last one not full
    crnn("score", tmp_path / "result", labels, "--json", tmp_path / "scored")
    whole = read(tmp_path / "whole.json")
    assert whole["overall"]["used"] % 16
    same_words(read(tmp_path / "scored.json"), whole, 1e-4)


def test_every_naming_format_and_batch(subset: Any, tmp_path: Path) -> None:
    """21 words: batches of 1, and of 16 with a last one of 5."""
    dataset, labels = subset("SVT_train_lmdb", 21), tmp_path / "label.txt"
    crnn("evaluate", dataset, *ENGINE, "--json", tmp_path / "whole")
    whole = read(tmp_path / "whole.json")
    crnn("prepare", dataset, tmp_path / "bins", "--labels", labels)
    crnn("prepare", dataset, tmp_path / "npys", "--labels", tmp_path / "npy.txt", "--npy")
    for naming, form, batch in itertools.product(("benchmark", "ais_bench"), ("bin", "txt", "npy"), (1, 16)):
        out = tmp_path / f"{naming}_{form}_{batch}"
        words = "bins" if form == "bin" else "npys"
        arguments = ("--naming", naming, "--format", form, "--batch", str(batch))
        crnn("infer", tmp_path / words, *ENGINE, "--out", out, *arguments)
        crnn("score", out, labels, "--json", tmp_path / "scored.json")
        same_words(read(tmp_path / "scored.json"), whole, 1e-4)
