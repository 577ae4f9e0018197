"""``crnn compile`` against the double of ATC, and the whole way to a word read on the double of the device."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.doubles.acl import Acl
from tests.doubles.cann import FakeCann, FakeCannFactory
from tests.engines.twin import linear, pictures
from typer.testing import CliRunner, Result

from crnn.cli import app
from crnn.engines import bundled_model, compiled, open_engine, pyacl
from crnn.export import ascend
from crnn.images import normalise


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compile", *map(str, arguments)])


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """use(cann, way) makes the toolkit this process's; ``way`` is how its ATC goes wrong."""

    def choose(cann: FakeCann, way: str = "") -> None:
        for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "ASCEND_OPP_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", f"{cann.atc.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("ATC_DOUBLE", way)

    return choose


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return linear(tmp_path / "twin.onnx")


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("version", ["20.2", "3.2.0", "5.1.RC2", "6.3.RC2", "8.0.RC3"])
@pytest.mark.parametrize("driver", [True, False])
def test_every_version_of_cann(
    fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path, version: str, driver: bool
) -> None:
    use(fake_cann(version, driver=driver))
    out = tmp_path / "out"
    out.mkdir()
    result = run(twin, out / "crnn_bs4", "--soc-version", "Ascend310", "--batch", 4, "--cann-version", version)
    assert result.exit_code == 0, result.stderr
    assert left(out) == {"crnn_bs4.om", "crnn_bs4.json"}
    known = compiled.read(out / "crnn_bs4.om")
    assert known is not None and (known.soc_version, known.batches, known.precision) == (
        "Ascend310",
        (4,),
        "force_fp16",
    )
    assert known.cann_version == version
    assert "for Ascend310, batch 4" in result.stdout and "Not yet run on hardware" in result.stdout
    assert "ATC run success" in result.stderr  # its log is shown


def test_from_the_bundled_weights_to_words(acl: Acl, fake_cann: FakeCannFactory, use: Any, tmp_path: Path) -> None:
    use(fake_cann(files={"x86_64-linux/ascend_toolkit_install.info": "version=8.0.RC3\n"}))
    out = tmp_path / "crnn.om"
    reference = open_engine(None, "onnxruntime")
    words = pictures(3)
    assert run(bundled_model(), out, "--soc-version", "Ascend310", "--gears", "4,1").exit_code == 0
    engine = open_engine(out)
    assert engine.spec == reference.spec and engine.version == "CANN 8.0.RC3"
    np.testing.assert_allclose(engine.run(words), reference.run(words), atol=1e-3)
    pyacl.runtime().shutdown()


def test_from_an_onnx_file_to_pixels(
    acl: Acl, fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path
) -> None:
    use(fake_cann())
    out = tmp_path / "crnn.om"
    for kind in ("gray", "rgb", "bgr"):
        assert run(twin, out, "--soc-version", "Ascend310", "--aipp", kind, "--gears", "1,2").exit_code == 0
        engine = open_engine(out)
        assert engine.spec.aipp == kind
        pixels = np.random.default_rng(1).integers(0, 256, (3, *engine.spec.picture_shape), np.uint8)
        assert engine.run(normalise(pixels, engine.spec)).shape == (26, 3, 37)
        del engine
    pyacl.runtime().shutdown()


def test_dry_run_needs_no_cann_and_writes_nothing(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", ("/usr/local/Ascend/ascend-toolkit/latest",))
    monkeypatch.setenv("COLUMNS", "40")
    before = left(tmp_path)
    result = run(twin, tmp_path / "crnn_bs1", "--soc-version", "Ascend310", "--dry-run")
    assert result.exit_code == 0 and left(tmp_path) == before
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith(". /usr/local/Ascend/ascend-toolkit/set_env.sh && export ")
    assert "--input_shape=actual_input_1:1,1,32,100" in shlex.split(result.stdout)
    old = run(twin, tmp_path / "x", "--soc-version", "Ascend310", "--dry-run", "--cann-version", "20.2")
    assert "--auto_tune_mode=GA,RL" in shlex.split(old.stdout)


def test_the_command_of_a_dry_run_runs_by_hand(
    fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path
) -> None:
    use(fake_cann())
    arguments = (twin, tmp_path / "my words", "--soc-version", "Ascend310", "--aipp", "bgr", "--dry-run", "--keep")
    result = run(*arguments)
    assert {"my words.plain.onnx", "my words.aipp.cfg"} <= left(tmp_path)
    done = subprocess.run(["bash", "-c", result.stdout], capture_output=True, text=True, check=True)
    assert "ATC run success" in done.stdout
    assert (tmp_path / "my words.om").read_bytes().startswith(compiled.MAGIC)


@pytest.mark.parametrize(
    ("way", "part"),
    [
        ("failed", "ATC failed (exit status 255): E19999, internal error"),
        ("liar", "ATC failed (exit status 0): E19999"),
        ("killed", "ATC was stopped by SIGKILL"),
        ("half", "ATC was stopped by SIGKILL"),
        ("nofile", "wrote no crnn.om"),
        ("empty", "no compiled model"),
        ("error:E20001", "E20001, an operator does not compile"),
        ("error:E16002", "E16002, ATC has no parser"),
        ("error:E99999", "E99999, an error that crnn does not know (Compilation of the model went wrong.)"),
    ],
)
def test_when_atc_goes_wrong_nothing_is_written(
    fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path, way: str, part: str
) -> None:
    use(fake_cann(), way)
    out = tmp_path / "out"
    out.mkdir()
    (out / "crnn.om").write_text("the last one")
    result = run(twin, out / "crnn", "--soc-version", "Ascend310")
    assert result.exit_code == 2
    assert part in result.stderr.splitlines()[-1] and result.stderr.splitlines()[-1].startswith("crnn: ")
    assert left(out) == {"crnn.om"} and (out / "crnn.om").read_text() == "the last one"


def test_warnings_are_passed_on(fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path) -> None:
    use(fake_cann(), "warnings")
    result = run(twin, tmp_path / "crnn", "--soc-version", "Ascend310")
    assert result.exit_code == 0 and "crnn: ATC warns: W11001: " in result.stderr


def test_interrupting_stops_atc(fake_cann: FakeCannFactory, twin: Path, tmp_path: Path) -> None:
    cann = fake_cann()
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "crnn", "compile", str(twin), str(out / "crnn"), "--soc-version", "Ascend310"]
    environment = {**cann.environment, "ATC_DOUBLE": "hang", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("ATC start working" in line for line in process.stderr)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert process.returncode != 0 and left(out) == set()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)


def test_without_atc(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", ())
    before = left(tmp_path)
    result = run(twin, tmp_path / "crnn", "--soc-version", "Ascend310")
    assert result.exit_code == 2 and "there is no ATC here" in result.stderr and "--dry-run" in result.stderr
    assert left(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--batch", "1", "--gears", "1,2"), "either --batch or --gears"),
        (("--gears", "4"), "two batch sizes or more"),
        (("--gears", "1,x"), "two batch sizes or more"),
        (("--gears", "1,1"), "named once"),
        (("--aipp", "yuv"), "choose gray, rgb or bgr"),
        (("--precision", "int8"), "choose one of force_fp16"),
        (("--soc-version", "310P3"), "like Ascend310P3"),
    ],
)
def test_wrong_options(twin: Path, tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    result = run(twin, tmp_path / "x", "--soc-version", "Ascend310", *options, "--dry-run")
    assert result.exit_code == 2 and part in result.stderr and len(result.stderr.splitlines()) == 1


def test_no_torch_is_needed(twin: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['cv2'] = None\n"
    code += f"sys.argv = ['crnn', 'compile', {str(twin)!r}, 'x', '--soc-version', 'Ascend310', '--dry-run']\n"
    code += "from crnn.__main__ import main; main()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The weights of a network stored as float16, each behind a Cast, as ``crnn export --fp16`` stores them."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            name, array = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, f"{name}.f16"))
            casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=TensorProto.FLOAT))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    graph.ClearField("node")
    graph.node.extend([*casts, *nodes])
    return model


def test_what_atc_gets_is_plain(twin: Path, tmp_path: Path) -> None:
    onnx.save(half(onnx.load(twin)), tmp_path / "half.onnx")
    for path in (bundled_model(), tmp_path / "half.onnx"):
        model = onnx.load(path)
        assert any(node.op_type == "Cast" for node in model.graph.node)
        plain = ascend.plain_copy(model)
        assert not any(node.op_type == "Cast" for node in plain.graph.node)
        assert {tensor.data_type for tensor in plain.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
        assert (plain.ir_version, plain.opset_import[0].version) == (6, 11)
        onnx.save(plain, tmp_path / "plain.onnx")
        words = pictures(2)
        before, after = (open_engine(each, "onnxruntime").run(words) for each in (path, tmp_path / "plain.onnx"))
        np.testing.assert_allclose(after, before, atol=1e-5)


def changed(twin: Path, change: Callable[[onnx.ModelProto], Any]) -> Path:
    model = onnx.load(twin)
    change(model)
    path = twin.with_name("changed.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def insert(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    model.graph.node.insert(0, node)


def test_networks_that_no_atc_takes(twin: Path, tmp_path: Path) -> None:
    to_half = helper.make_node("Cast", ["actual_input_1"], ["cast"], to=TensorProto.FLOAT16)
    lstm = helper.make_node("LSTM", ["actual_input_1", "actual_input_1", "weights"], ["y"], hidden_size=4)
    changes: list[tuple[Callable[[onnx.ModelProto], Any], str]] = [
        (lambda model: insert(model, to_half), "it changes types while it runs"),
        (lambda model: insert(model, lstm), "are not constants"),
        (lambda model: setattr(model.opset_import[0], "version", 17), "its operators are of ai.onnx 17"),
        (lambda model: model.graph.ClearField("node"), "not an ONNX file"),
        (lambda model: setattr(model.graph.input[0], "name", "x"), "changed.onnx"),
    ]
    for change, part in changes:
        result = run(changed(twin, change), tmp_path / "x", "--soc-version", "Ascend310", "--dry-run")
        assert result.exit_code == 2 and part in result.stderr, part
        assert len(result.stderr.splitlines()) == 1
    fixed = changed(twin, lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1))
    result = run(fixed, tmp_path / "x", "--soc-version", "Ascend310", "--batch", 2, "--dry-run")
    assert result.exit_code == 2 and "its batch size is fixed at 1" in result.stderr
    for name, data in (("text.onnx", b"hello"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(data)
        result = run(tmp_path / name, tmp_path / "x", "--soc-version", "Ascend310", "--dry-run")
        assert result.exit_code == 2 and f"{name}: not an ONNX file" in result.stderr
    result = run(tmp_path / "none.onnx", tmp_path / "x", "--soc-version", "Ascend310", "--dry-run")
    assert result.exit_code == 2 and "none.onnx: cannot be read" in result.stderr
    result = run(twin, tmp_path / "none" / "x", "--soc-version", "Ascend310", "--dry-run")
    assert result.exit_code == 2 and "no such folder" in result.stderr


def test_weights_in_a_second_file(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "crnn.onnx"
    whole = len(ascend.plan(twin, tmp_path / "x", "Ascend310").plain)
    for model in (onnx.load(twin), half(onnx.load(twin))):
        onnx.save(model, apart, save_as_external_data=True, location="crnn.data", size_threshold=1024)
        for folder in (tmp_path, apart.parent):
            monkeypatch.chdir(folder)
            assert len(ascend.plan(apart, tmp_path / "x", "Ascend310").plain) == pytest.approx(whole, rel=0.01)
        (apart.parent / "crnn.data").unlink()
        result = run(apart, tmp_path / "x", "--soc-version", "Ascend310", "--dry-run")
        assert result.exit_code == 2 and "crnn.onnx: the file that holds its weights cannot be read" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_foreign_network_is_taken_by_the_contract_and_said_so(twin: Path, tmp_path: Path) -> None:
    foreign = changed(twin, lambda model: model.ClearField("metadata_props"))
    result = run(foreign, tmp_path / "x", "--soc-version", "Ascend310", "--dry-run")
    assert result.exit_code == 0 and "carries no crnn.spec" in result.stderr


def test_the_description_is_json_one_can_read(fake_cann: FakeCannFactory, use: Any, twin: Path, tmp_path: Path) -> None:
    use(fake_cann())
    options = ("--soc-version", "Ascend310P3", "--gears", "1,8", "--aipp", "bgr")
    assert run(twin, tmp_path / "crnn", *options).exit_code == 0
    values = json.loads((tmp_path / "crnn.json").read_text())
    assert values["crnn.spec"]["aipp"] == "bgr" and values["batches"] == [1, 8]
    assert values["soc_version"] == "Ascend310P3"
