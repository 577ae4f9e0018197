from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from crnn.engines.toolkit import Toolkit, driver, find, has_auto_tune
from crnn.errors import OptionError
from crnn.export.atc import Job, explain, script
from crnn.spec import DELIVERABLE, ModelSpec

ONNX, OUT = Path("/a/crnn.onnx"), Path("/b/crnn_bs1")


def job(soc_version: str = "Ascend310", **changes: object) -> Job:
    return Job(ONNX, OUT, DELIVERABLE, soc_version, **changes)  # type: ignore[arg-type]


def flags(line: str) -> dict[str, str]:
    words = shlex.split(line.rpartition(" && ")[2])
    assert words[0].endswith("atc")
    return dict(word.removeprefix("--").split("=", 1) for word in words[1:])


def test_the_deliverables_command() -> None:
    line = script(job(log="info"), None, "20.2")
    assert flags(line) == {
        "model": "/a/crnn.onnx",
        "framework": "5",
        "output": "/b/crnn_bs1",
        "input_format": "NCHW",
        "input_shape": "actual_input_1:1,1,32,100",
        "auto_tune_mode": "GA,RL",
        "log": "info",
        "soc_version": "Ascend310",
    }
    root = "/usr/local/Ascend/ascend-toolkit/latest"
    for part in (
        f"PATH={root}/atc/ccec_compiler/bin:{root}/atc/bin",
        f"ASCEND_OPP_PATH={root}/opp",
        "REPEAT_TUNE=true",
    ):
        assert part in line
    assert "\n" not in line


@pytest.mark.parametrize("version", ["6.0.1", "6.3.RC2", "7.0.0", "8.0.RC3", "8.5.0", ""])
def test_auto_tune_is_gone(version: str) -> None:
    line = script(job(), None, version)
    assert "auto_tune" not in line and "aoe" not in line
    assert line.startswith(
        ". /usr/local/Ascend/ascend-toolkit/set_env.sh && export ASCEND_SLOG_PRINT_TO_STDOUT=1 && atc "
    )
    tuned = script(job(), None, version, tune=True).split(" && ")
    assert tuned[-2].startswith("aoe --job_type=2 ") and "--soc_version" not in tuned[-2]
    assert flags(tuned[-1]) == flags(line)


@pytest.mark.parametrize("has", [True, False])
def test_which_versions_have_auto_tune(has: bool) -> None:
    with_it = ("3.2.0", "20.2", "V100R020C20", "21.0.2", "5.0.5.alpha001", "5.1.RC2")
    without = ("6.0", "8.0.RC3", "9.0", "22.0", "V100R001C17", "", "unknown")
    for version in with_it if has else without:
        assert has_auto_tune(version) is has
        assert ("auto_tune_mode" in script(job(), None, version)) is has
        assert "auto_tune_mode" not in script(job(), None, version, tune=False)


def test_gears_aipp_and_precision() -> None:
    line = script(job(batches=(4, 1, 16), aipp=Path("/b/x.cfg"), precision="cube_fp16in_fp32out"), None, "8.0")
    found = flags(line)
    assert found["input_shape"] == "actual_input_1:-1,1,32,100" and found["dynamic_batch_size"] == "1,4,16"
    assert (found["insert_op_conf"], found["enable_small_channel"]) == ("/b/x.cfg", "1")
    assert found["precision_mode"] == "cube_fp16in_fp32out" and "precision_mode_v2" not in found
    assert flags(script(job(precision="origin"), None, "8.0"))["precision_mode_v2"] == "origin"
    spec = ModelSpec(input_name="x", width=160, steps=41)
    other = Job(ONNX, OUT, spec, "Ascend310P3", (8,))
    assert flags(script(other, None, "8.0"))["input_shape"] == "x:8,1,32,160"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"soc_version": "310P3"}, "like Ascend310P3"),
        ({"soc_version": "ascend 310"}, "npu-smi info"),
        ({"precision": "fp8"}, "choose one of force_fp16"),
        ({"precision": "mixed_bfloat16"}, "does not compute in bfloat16"),
        ({"log": "loud"}, "choose one of debug"),
        ({"batches": (0,)}, "1 or more"),
        ({"batches": (1, 1)}, "named once"),
        ({"batches": (1, 4096)}, "at most 2048"),
        ({"batches": tuple(range(1, 102))}, "2 to 100 gears"),
    ],
)
def test_what_atc_would_refuse_is_refused_before(changes: dict[str, object], part: str) -> None:
    with pytest.raises(OptionError, match=part):
        job(**changes)  # type: ignore[arg-type]


def test_bfloat16_and_old_versions() -> None:
    assert "mixed_bfloat16" in script(job("Ascend910B3", precision="mixed_bfloat16"), None, "8.0")
    with pytest.raises(OptionError, match=r"CANN 5\.1 has no --precision_mode_v2"):
        script(job(precision="origin"), None, "5.1")


@pytest.mark.parametrize(
    ("log", "parts"),
    [
        (
            ["E10001: [PID: 200452] 2025-06-16-13:02:36.801.136 Value is wrong.", "E19999: x"],
            ["E10001, ", "(Value is wrong.)"],
        ),
        (["E10001: Value [-1] for parameter [Inputs] is invalid. Reason: r"], ["E10001, ", "(Value [-1] for"]),
        (["EZ3002: no kernel"], ["EZ3002, an operator does not compile", "(no kernel)"]),
        (["E77777: what"], ["does not know"]),
        (["atc: error while loading", ""], ["no error code", "atc: error while loading"]),
        ([], ["it said nothing"]),
    ],
)
def test_errors_are_explained_in_a_line(log: list[str], parts: list[str]) -> None:
    text = explain(log)
    assert all(part in text for part in parts) and "\n" not in text


def toolkit_at(root: Path, atc: str = "bin/atc") -> Path:
    (root / atc).parent.mkdir(parents=True)
    (root / atc).write_text("#!/bin/bash\n")
    (root / atc).chmod(0o755)
    return root


def test_where_a_toolkit_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", ())
    assert find({}) is None
    new = toolkit_at(tmp_path / "new" / "latest")
    (new.parent / "set_env.sh").touch()
    for variables in (
        {"ASCEND_TOOLKIT_HOME": str(new)},
        {"ASCEND_HOME_PATH": str(new)},
        {"ASCEND_OPP_PATH": f"{new}/opp"},
        {"PATH": f"/bin:{new}/bin"},
    ):
        assert find(variables) == Toolkit(new, new, "", new / "bin/atc", new.parent / "set_env.sh")
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", (str(tmp_path / "none"), str(new)))
    assert find({}) is not None
    old = toolkit_at(tmp_path / "old" / "20.2.rc1", "atc/bin/atc")
    found = find({"PATH": f"{old}/atc/bin"})
    assert found == Toolkit(old, old, "20.2.rc1", old / "atc/bin/atc", None)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    arm = toolkit_at(tmp_path / "arm", "aarch64-linux_gcc7.3.0/atc/bin/atc")
    toolkit_at(tmp_path / "arm2", "x86_64-linux/atc/bin/atc")
    found = find({"ASCEND_TOOLKIT_HOME": str(arm)})
    assert found is not None and found.base == arm / "aarch64-linux_gcc7.3.0"
    assert f"LD_LIBRARY_PATH={found.base}/atc/lib64:" in script(job(), found, "20.2")
    monkeypatch.setattr("crnn.engines.toolkit.ROOTS", ())
    assert find({"ASCEND_TOOLKIT_HOME": str(tmp_path / "arm2")}) is None  # the other processor's


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [
        ("x86_64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.0.RC3\n", "8.0.RC3"),
        ("version.cfg", "# version: 1.0\ntoolkit_running_version=[7.1.0.5.220:8.0.RC1]\n", "8.0.RC1"),
        ("version.cfg", "nonsense", ""),
    ],
)
def test_the_version_of_a_toolkit(tmp_path: Path, name: str, text: str, version: str) -> None:
    root = toolkit_at(tmp_path / "latest")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    found = find({"ASCEND_HOME_PATH": str(root)})
    assert found is not None and found.version == version


def test_the_driver(tmp_path: Path) -> None:
    folder = tmp_path / "Ascend" / "driver"
    (folder / "lib64" / "common").mkdir(parents=True)
    assert driver({"LD_LIBRARY_PATH": f"/nowhere:{folder}/lib64/common"}) == folder


def test_paths_with_spaces_survive_the_shell() -> None:
    spaced = Job(Path("/a b/c'd.onnx"), Path("/e f/g"), DELIVERABLE, "Ascend310")
    assert flags(script(spaced, None, "8.0"))["model"] == "/a b/c'd.onnx"
    assert not re.search(r"\s--output=/e f", script(spaced, None, "8.0"))
