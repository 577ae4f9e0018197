"""The weights that come with the package: one file, of the contract's form, and as accurate as the README says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from crnn.cli import app
from crnn.engines import bundled_model
from crnn.spec import SPEC_KEY, ModelSpec

ROOT = Path(__file__).resolve().parents[2]
FLOOR = 0.793  # the original deliverable's checkpoint reads 79.23 %


def test_there_is_one_small_file() -> None:
    path = bundled_model()
    assert [found.name for found in path.parent.glob("*.onnx")] == [path.name]
    assert path.stat().st_size <= 17_500_000


def test_it_has_the_contracts_form() -> None:
    model = onnx.load(bundled_model())
    assert model.ir_version == 6
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 11)]
    assert [value.name for value in model.graph.input] == ["actual_input_1"]
    assert [value.name for value in model.graph.output] == ["output1"]
    assert sum(node.op_type == "LSTM" for node in model.graph.node) == 4
    spec = ModelSpec.from_json({entry.key: entry.value for entry in model.metadata_props}[SPEC_KEY])
    assert spec.lineage and spec.licence


def test_it_reads_iiit5k_as_the_readme_says(data_dir: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(data_dir / "IIIT5K_lmdb"), "--json", str(tmp_path / "r.json")])
    assert result.exit_code == 0, result.output
    [report] = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["datasets"]
    assert report["used"] == report["total"] == 3000
    assert report["accuracy"] >= FLOOR
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"IIIT5K.*?(\d\d\.\d\d) %", readme)
    assert stated is not None
    # Other processors round otherwise in the last bits, which may turn a word or two.
    assert report["accuracy"] * 100 == pytest.approx(float(stated[1]), abs=0.2)
