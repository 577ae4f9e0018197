"""The engine against the double of pyACL, which fails a test on any misuse and any leak."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.doubles.acl import Acl
from tests.doubles.cann import FakeCannFactory
from tests.doubles.om import write_om
from tests.engines.twin import linear, pictures
from typer.testing import CliRunner

from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import bundled_model, compiled, open_engine, pyacl
from crnn.engines.ascend import AscendEngine
from crnn.errors import CrnnError, EngineError, ModelError, OptionError
from crnn.export import aipp
from crnn.images import normalise, prepare
from crnn.spec import DELIVERABLE, ModelSpec

SAMPLE = Path(compiled.__file__).parents[1] / "samples" / "words_lmdb"


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return linear(tmp_path / "twin.onnx")


@pytest.fixture
def acl(acl: Acl) -> Iterator[Acl]:
    """The double, given back as at the end of a process."""
    yield acl
    pyacl.runtime().shutdown()


def describe(om: Path, **changes: Any) -> compiled.Compiled:
    """Write the description beside ``om``."""
    known = compiled.Compiled(
        spec=DELIVERABLE,
        soc_version="Ascend310",
        batches=(1,),
        precision="force_fp16",
        cann_version="8.0.RC3",
        onnx_sha256="",
        om_sha256=hashlib.sha256(om.read_bytes()).hexdigest(),
    )
    known = dataclasses.replace(known, **changes)
    compiled.beside(om).write_text(known.to_json())
    return known


@pytest.mark.parametrize("kind", [{"batch": 1}, {"batch": 4}, {"gears": (1, 4, 16)}, {"gears": (2, 8)}], ids=str)
def test_any_number_of_words_is_read_as_by_onnxruntime(acl: Acl, twin: Path, tmp_path: Path, kind: Any) -> None:
    om = write_om(tmp_path / "x.om", twin, **kind)
    reference, engine = open_engine(twin, "onnxruntime"), open_engine(om)
    assert (engine.name, engine.device, engine.precision) == ("ascend", "Ascend310, device 0", "float16")
    for count in (1, 2, 3, 4, 5, 16, 17, 33):
        words = pictures(count, count)
        output = engine.run(words)
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, reference.run(words), rtol=1e-5, atol=1e-4)


def test_float16_answers_are_understood(acl: Acl, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, batch=2, output_type="FP16")
    output = open_engine(om).run(pictures(3))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, open_engine(twin, "onnxruntime").run(pictures(3)), atol=0.02)


def test_the_smallest_gear_that_holds_the_rest(acl: Acl, twin: Path, tmp_path: Path, monkeypatch: Any) -> None:
    chosen: list[int] = []
    original = acl.mdl.set_dynamic_batch_size

    def spy(model: int, dataset: int, index: int, size: int) -> int:
        chosen.append(size)
        return int(original(model, dataset, index, size))

    monkeypatch.setattr(acl.mdl, "set_dynamic_batch_size", spy)
    engine = open_engine(write_om(tmp_path / "x.om", twin, gears=(1, 4, 16)))
    for count in (1, 3, 5, 16, 18):
        engine.run(pictures(count))
    assert chosen == [1, 4, 16, 16, 16, 4]


def test_threads_share_an_engine(acl: Acl, twin: Path, tmp_path: Path) -> None:
    engine = open_engine(write_om(tmp_path / "x.om", twin, gears=(1, 4)))
    batches = [pictures(1 + seed % 5, seed) for seed in range(40)]
    expected = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for result, wanted in zip(pool.map(engine.run, batches), expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


def test_closing(acl: Acl, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, batch=2)
    first, second = AscendEngine(om), AscendEngine(om)
    with ThreadPoolExecutor(1) as pool:  # a thread without a context
        pool.submit(first.close).result()
    first.close()
    with pytest.raises(EngineError, match="closed"):
        first.run(pictures(1))
    assert second.run(pictures(3)).shape == (26, 3, 37)  # the device was not taken away from it
    second.close()
    third = AscendEngine(om)  # the device can be had again
    assert third.run(pictures(1)).shape == (26, 1, 37)


def test_garbage_collection_closes(acl: Acl, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, batch=2)
    open_engine(om).run(pictures(1))
    gc.collect()
    assert acl.calls.count("rt.reset_device") == 1
    assert acl.problems() == ["leak: init without finalize"]


def scenario(om: Path) -> None:
    try:
        engine = AscendEngine(om)
        engine.run(pictures(3))
        engine.close()
    finally:
        pyacl.runtime().shutdown()


@pytest.mark.parametrize("kind", [{"batch": 2}, {"gears": (1, 2)}], ids=str)
def test_whichever_call_fails_nothing_is_leaked_and_it_is_named(twin: Path, tmp_path: Path, kind: Any) -> None:
    om = write_om(tmp_path / "x.om", twin, **kind)
    with Acl().installed() as acl:
        scenario(om)
        names = list(acl.calls)
        acl.check()
    assert len(names) > 30
    for index, name in enumerate(names):
        with Acl().installed() as acl:
            acl.fail_call(index)
            if name == "get_soc_name":  # the device is then called by its number
                scenario(om)
            else:
                # Where a size or a shape fails, the bare 0 or -1 shows in what the model is said to be
                with pytest.raises(CrnnError) as caught:
                    scenario(om)
                named = f"acl.{name} failed" in str(caught.value)
                questions = ("mdl.get_num_inputs", "mdl.get_num_outputs", "mdl.get_input_data_type")
                assert named or name in (*questions, "mdl.get_output_data_type"), (name, str(caught.value))
                assert "\n" not in str(caught.value)
            acl.check(injected=True)


def test_codes_are_said_in_words(twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, batch=2)
    for call, code, words in [
        ("rt.set_device", 107001, "no such device"),
        ("rt.malloc", 207001, "no memory left"),
        ("mdl.execute", 507011, "failed on the device"),
        ("mdl.execute", 999999, "does not know"),
    ]:
        with Acl().installed() as acl:
            acl.fail_at(call, code=code)
            with pytest.raises(EngineError, match=rf"x\.om: acl\.{call} failed with {code}: .*{words}"):
                scenario(om)
            acl.check(injected=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"without": ["util.bytes_to_ptr"]},
        {"without": ["util.ptr_to_bytes"]},
        {"initialised": True},
        {"hidden_bytes": 4},
    ],
    ids=str,
)
def test_other_pyacls(twin: Path, tmp_path: Path, changes: Any) -> None:
    om = write_om(tmp_path / "x.om", twin, gears=(1, 2))
    with Acl(**changes).installed() as acl:
        scenario(om)
        acl.check()


def test_another_chip(twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, soc="Ascend310P3")
    describe(om, soc_version="Ascend310P3")
    with Acl(soc="Ascend310").installed() as acl:
        with pytest.raises(EngineError, match=r"507008: .*another chip.*; it was compiled for Ascend310P3"):
            scenario(om)
        acl.check()


def test_devices(acl: Acl, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    om = write_om(tmp_path / "x.om", twin)
    monkeypatch.setenv("ASCEND_DEVICE_ID", "7")
    with pytest.raises(EngineError, match="107001"):
        open_engine(om)
    monkeypatch.setenv("ASCEND_DEVICE_ID", "first")
    with pytest.raises(OptionError, match="ASCEND_DEVICE_ID must be the number of a device, not 'first'"):
        open_engine(om)


def test_what_is_no_compiled_model(acl: Acl, twin: Path, tmp_path: Path) -> None:
    (tmp_path / "text.om").write_text("hello")
    (tmp_path / "empty.om").touch()
    for name in ("text.om", "empty.om", "none.om"):
        with pytest.raises(ModelError, match=name):
            open_engine(tmp_path / name)
    with pytest.raises(ModelError, match=r"crnn compile"):
        open_engine(twin, "ascend")
    om = write_om(tmp_path / "cut.om", twin)
    om.write_bytes(om.read_bytes()[:500])
    with pytest.raises(EngineError, match=r"cut\.om: acl\.mdl\.load_from_file failed"):
        open_engine(om)


def test_the_description_beside_the_file(acl: Acl, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin)
    assert any("x.json does not lie beside x.om" in note for note in open_engine(om).notes)
    spec = ModelSpec(temperature=1.5, licence="CC0")
    assert compiled.read(om) is None
    known = describe(om, spec=spec, precision="origin")
    assert compiled.read(om) == known
    engine = open_engine(om)
    assert (engine.spec, engine.precision) == (spec, "float32")
    assert [note for note in engine.notes if "x.json" in note] == []
    assert any("not yet been run on hardware" in note for note in engine.notes)
    assert open_engine(om, precision="float32").precision == "float32"
    with pytest.raises(OptionError, match="computes in float32, not in int8"):
        open_engine(om, precision="int8")

    describe(om, om_sha256="0" * 64)
    with pytest.raises(ModelError, match=r"x\.json: describes another file than x\.om"):
        open_engine(om)
    whole = json.loads(compiled.beside(om).read_text())
    harms: list[dict[str, Any]] = [
        {"schema": "?"},
        {"crnn.spec": {}},
        {"batches": []},
        {"batches": "1"},
        {"more": 1},
        {"precision": 1},
    ]
    for harm in harms:
        compiled.beside(om).write_text(json.dumps({**whole, **harm}))
        with pytest.raises(ModelError, match=r"x\.json: "):
            open_engine(om)
    compiled.beside(om).write_text("{")
    with pytest.raises(ModelError, match=r"x\.json: not the description of a compiled model"):
        open_engine(om)


def test_a_model_that_does_not_fit_its_spec(acl: Acl, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin)
    wide = ModelSpec(width=120, steps=31)
    describe(om, spec=wide)
    with pytest.raises(
        ModelError, match=r"takes pictures of the shape \[1, 1, 32, 100\] instead of \['N', 1, 32, 120\]"
    ):
        open_engine(om)
    few = dataclasses.replace(DELIVERABLE, charset=type(DELIVERABLE.charset)("abc"))
    describe(om, spec=few)
    with pytest.raises(ModelError, match=r"3,848 out where its spec needs .* 416 for 1 words"):
        open_engine(om)
    pixels = dataclasses.replace(DELIVERABLE, aipp="gray")
    om = write_om(tmp_path / "pixels.om", twin, aipp=aipp.configuration(pixels))
    with pytest.raises(ModelError, match="takes uint8 where its spec says float32; it was compiled with AIPP"):
        open_engine(om)


@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr"])
def test_aipp_takes_pixels(acl: Acl, tmp_path: Path, kind: str) -> None:
    spec = dataclasses.replace(open_engine(None, "onnxruntime").spec, aipp=kind)
    om = write_om(tmp_path / "x.om", bundled_model(), batch=4, aipp=aipp.configuration(spec))
    describe(om, spec=spec, batches=(4,))
    words = LmdbReader(SAMPLE)
    pixels = np.stack([prepare(words.image_bytes(i), spec) for i in range(6)])
    batch = normalise(pixels, spec)
    assert batch.dtype == np.uint8 and batch.shape == (6, 32, 100, 1 if kind == "gray" else 3)
    expected = open_engine(None, "onnxruntime").run(aipp.emulate(batch, spec))
    np.testing.assert_allclose(open_engine(om).run(batch), expected, atol=0.05)
    with pytest.raises(ModelError, match="must be uint8"):
        open_engine(om).run(pictures(1))


def test_evaluate_and_read_take_an_om(acl: Acl, tmp_path: Path) -> None:
    om = write_om(tmp_path / "crnn_bs4.om", bundled_model(), batch=4)
    describe(om, spec=open_engine(None, "onnxruntime").spec, batches=(4,))
    reports = []
    for model, engine in ((om, "ascend"), (bundled_model(), "onnxruntime")):
        out = tmp_path / f"{engine}.json"
        arguments = ["evaluate", str(SAMPLE), "--model", str(model), "--engine", engine, "--json", str(out)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        reports.append(json.loads(out.read_text()))
    texts = [[word["text"] for word in report["datasets"][0]["words"]] for report in reports]
    assert texts[0] == texts[1] and len(texts[0]) == len(LmdbReader(SAMPLE))
    assert reports[0]["engine"]["name"] == "ascend" and reports[0]["engine"]["precision"] == "float16"
    picture = tmp_path / "word.png"
    picture.write_bytes(LmdbReader(SAMPLE).image_bytes(0))
    result = CliRunner().invoke(app, ["read", str(picture), "--model", str(om)])
    assert result.exit_code == 0 and texts[0][0] in result.stdout
    assert "not yet been run on hardware" in result.stderr
    gc.collect()


def test_a_process_that_just_ends_gives_everything_back(fake_cann: FakeCannFactory, twin: Path, tmp_path: Path) -> None:
    om = write_om(tmp_path / "x.om", twin, batch=2)
    code = "import numpy as np, sys\nfrom crnn.engines import open_engine\n"
    code += "engine = open_engine(sys.argv[1])\n"
    code += "print(engine.version, engine.run(np.zeros((3, 1, 32, 100), np.float32)).shape)"
    cann = fake_cann("8.0.RC3", files={"x86_64-linux/ascend_toolkit_install.info": "version=8.0.RC3\n"})
    done = subprocess.run(
        [sys.executable, "-c", code, str(om)], env=cann.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "CANN 8.0.RC3 (26, 3, 37)\n"


@pytest.mark.parametrize("module", [None, ModuleType("acl")], ids=["missing", "another package"])
def test_without_pyacl(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "acl", module)
    with pytest.raises(EngineError, match=r"set_env\.sh"):
        open_engine(write_om(tmp_path / "x.om", twin))


def test_auto_takes_ascend_for_an_om(acl: Acl, twin: Path, tmp_path: Path) -> None:
    make: Callable[..., Any] = open_engine
    assert make(write_om(tmp_path / "x.om", twin), "auto").name == "ascend"
