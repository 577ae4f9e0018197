"""The atc double itself: each documented rule, provoked once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.doubles.acl import Acl
from tests.doubles.atc import Atc
from tests.doubles.cann import FakeCann, FakeCannFactory
from tests.doubles.om import unpack

Here = Callable[..., tuple[int, str]]
SHAPE = "actual_input_1:1,1,32,100"
SUCCESS = "ATC start working now, please wait for a moment.\n...\nATC run success, welcome to the next use.\n"
FAILURE = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"


def network(
    path: Path,
    *,
    batch: int | str = "batch",
    opset: int = 11,
    ir: int = 6,
    cast: bool = False,
    direction: str = "forward",
    operator: str = "Relu",
) -> Path:
    """A small network with an LSTM: float32[batch, 1, 32, 100] -> float32[26, batch, 37]."""
    rng, sides = np.random.default_rng(5), 2 if direction == "bidirectional" else 1

    def weight(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.1)

    lstm_inputs = ["columns", "w", "r.half" if cast else "r", "b"]
    nodes = [
        helper.make_node(
            "MaxPool", ["actual_input_1"], ["pooled"], kernel_shape=[32, 3], strides=[1, 4], pads=[0, 2, 0, 2]
        ),
        helper.make_node("Squeeze", ["pooled"], ["row"], axes=[2]),
        helper.make_node("Transpose", ["row"], ["columns"], perm=[2, 0, 1]),
        helper.make_node("LSTM", lstm_inputs, ["states"], name="lstm", direction=direction, hidden_size=8),
        helper.make_node("Slice", ["states", "zero", "one", "one"], ["side"]),
        helper.make_node("Squeeze", ["side"], ["squeezed"], axes=[1]),
        helper.make_node(operator, ["squeezed"], ["active"], name="active"),
        helper.make_node("MatMul", ["active", "m"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["output1"], axis=2),
    ]
    if cast:
        nodes.insert(0, helper.make_node("Cast", ["r"], ["r.half"], name="cast", to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, [batch, 1, 32, 100])],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [26, batch, 37])],
        [
            numpy_helper.from_array(weight(sides, 32, 1), "w"),
            numpy_helper.from_array(weight(sides, 32, 8), "r"),
            numpy_helper.from_array(weight(sides, 64), "b"),
            numpy_helper.from_array(weight(8, 37), "m"),
            numpy_helper.from_array(np.array([0]), "zero"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), path)
    return path


def atc(
    cann: FakeCann, *flags: str, way: str = "", environment: Mapping[str, str] | None = None, timeout: float = 60
) -> tuple[int, str]:
    """Exit status and standard output."""
    env = {**(environment if environment is not None else cann.environment), "ATC_DOUBLE": way}
    done = subprocess.run([cann.atc, *flags], env=env, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """As ``atc``, but in this process, which saves starting another."""

    def run(cann: FakeCann, *flags: str) -> tuple[int, str]:
        for name in cann.exports:
            monkeypatch.setenv(name, cann.environment[name])
        status = Atc(dict(cann.setup), "").run(list(flags))
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def cann(fake_cann: FakeCannFactory) -> FakeCann:
    return fake_cann("8.0.RC3")


@pytest.fixture
def plain(tmp_path: Path) -> list[str]:
    """Flags that make tmp_path/out.om."""
    model = network(tmp_path / "model.onnx")
    return [
        f"--model={model}",
        "--framework=5",
        f"--output={tmp_path / 'out'}",
        "--soc_version=Ascend310",
        f"--input_shape={SHAPE}",
    ]


def test_a_fixed_batch(cann: FakeCann, plain: list[str], tmp_path: Path) -> None:
    assert atc(cann, *plain, "--input_format=NCHW", "--log", "error") == (0, SUCCESS)
    data = (tmp_path / "out.om").read_bytes()
    assert data[:4] == b"IMOD"
    compiled, onnx_file = unpack(data)
    assert (compiled.batch, compiled.gears, compiled.soc, compiled.dynamic) == (1, (), "Ascend310", False)
    assert onnx_file == (tmp_path / "model.onnx").read_bytes()
    with Acl().installed() as acl:
        acl.init()
        acl.rt.set_device(0)
        model, ret = acl.mdl.load_from_file(str(tmp_path / "out.om"))
        assert ret == acl.mdl.unload(model) == acl.rt.reset_device(0) == acl.finalize() == 0
        acl.check()


def test_gears_and_aipp(cann: FakeCann, plain: list[str], tmp_path: Path) -> None:
    aipp = tmp_path / "aipp.config"
    aipp.write_text(
        "aipp_op {\n aipp_mode: static\n input_format: YUV400_U8\n csc_switch: false\n min_chn_0: 127.5\n}\n"
    )
    gears = [*plain[:4], "--input_shape=actual_input_1:-1,1,32,100", "--dynamic_batch_size=4,1"]
    assert atc(cann, *gears, f"--insert_op_conf={aipp}", "--enable_small_channel=1") == (0, SUCCESS)
    compiled, _ = unpack((tmp_path / "out.om").read_bytes())
    assert compiled.gears == (1, 4)
    assert compiled.input_dims(4) == [4, 32, 100, 1]
    assert compiled.input_bytes(4) == 12_800


def test_a_free_batch_gets_the_platforms_name(cann: FakeCann, plain: list[str], tmp_path: Path) -> None:
    assert atc(cann, *plain[:4], "--input_shape=actual_input_1:1~8,1,32,100")[0] == 0
    [made] = tmp_path.glob("*.om")
    assert made.name.startswith("out_linux_")


WRONG: dict[str, tuple[dict[str, str | None], str]] = {
    "no model": ({"model": None}, "E10054"),
    "empty model": ({"model": ""}, "E10004"),
    "missing model": ({"model": "none.onnx"}, "E13000"),
    "no framework": ({"framework": None}, "E10007"),
    "no chip": ({"soc_version": None}, "E10054"),
    "unknown chip": ({"soc_version": "Ascend999"}, "E10001"),
    "no folder": ({"output": "none/out"}, "E10001"),
    "auto tune": ({"auto_tune_mode": "GA,RL"}, "E10001"),
    "log": ({"log": "loud"}, "E10010"),
    "precision": ({"precision_mode": "fp16"}, "E10003"),
    "bf16 on 310": ({"precision_mode_v2": "mixed_bfloat16"}, "E10003"),
    "both precisions": ({"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}, "E10047"),
    "format": ({"input_format": "NHCW"}, "E10001"),
    "ND with AIPP": ({"input_format": "ND", "insert_op_conf": "aipp.config"}, "E10001"),
    "missing AIPP": ({"insert_op_conf": "none.config"}, "E10410"),
    "small channel": ({"enable_small_channel": "yes"}, "E10006"),
    "small channel without AIPP": ({"enable_small_channel": "1"}, "E10001"),
    "shape without a name": ({"input_shape": "1,1,32,100"}, "E10002"),
    "shape of another input": ({"input_shape": "images:1,1,32,100"}, "E10001"),
    "another height": ({"input_shape": "actual_input_1:1,1,48,100"}, "E10001"),
    "no shape": ({"input_shape": None}, "E10001"),
    "gears without -1": ({"dynamic_batch_size": "1,2"}, "E10012"),
    "gears with a free width": (
        {"dynamic_batch_size": "1,2", "input_shape": "actual_input_1:-1,1,32,-1"},
        "E10018",
    ),
    "one gear": ({"dynamic_batch_size": "4", "input_shape": "actual_input_1:-1,1,32,100"}, "E10035"),
    "101 gears": (
        {
            "dynamic_batch_size": ",".join(str(n) for n in range(1, 102)),
            "input_shape": "actual_input_1:-1,1,32,100",
        },
        "E10036",
    ),
    "gears that are no numbers": ({"dynamic_batch_size": "1;2"}, "E10001"),
    "gears two ways": ({"dynamic_batch_size": "1,2", "dynamic_dims": "1;2"}, "E10047"),
    "dims without ND": ({"dynamic_dims": "1;2", "input_shape": "actual_input_1:-1,1,32,100"}, "E10001"),
    "dims of another count": (
        {"dynamic_dims": "1,2;3,4", "input_shape": "actual_input_1:-1,1,32,100", "input_format": "ND"},
        "E10037",
    ),
    "broken AIPP": ({"insert_op_conf": "broken.config"}, "E10001"),
    "AIPP of another size": ({"insert_op_conf": "large.config"}, "E10001"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_flags_give_the_documented_code(
    name: str, cann: FakeCann, here: Here, plain: list[str], tmp_path: Path
) -> None:
    changes, code = WRONG[name]
    good = "aipp_op { aipp_mode: static input_format: YUV400_U8 min_chn_0: 127.5 }"
    (tmp_path / "aipp.config").write_text(good)
    (tmp_path / "broken.config").write_text(good.replace("min_chn_0", "min_chn_9"))
    (tmp_path / "large.config").write_text(good.replace("min", "src_image_size_h: 32 src_image_size_w: 200 min"))
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in plain)
    for key, value in changes.items():
        if value is None:
            del flags[key]
        else:
            flags[key] = str(tmp_path / value) if value.endswith(".config") else value
    status, printed = here(cann, *(f"--{key}={value}" for key, value in flags.items()))
    assert status == 255
    assert FAILURE in printed
    assert f"\n{code}: [PID: " in printed
    assert not list(tmp_path.glob("*.om"))


def test_unknown_flags_and_help(cann: FakeCann, plain: list[str]) -> None:
    assert atc(cann, *plain, "--sock_version=1")[0] == 1
    assert atc(cann, "--help")[0] == 0


def test_auto_tune_exists_in_old_toolkits_alone(fake_cann: FakeCannFactory, here: Here, plain: list[str]) -> None:
    for version, status in (("20.2", 0), ("3.2.0", 0), ("5.1.RC2", 0), ("6.0.1", 255), ("8.0.RC3", 255)):
        result, printed = here(fake_cann(version), *plain, "--auto_tune_mode=GA,RL")
        assert result == status, printed
        assert ("use AOE" in printed) is (status == 255)


def test_the_tree_of_2021_needs_its_exports(fake_cann: FakeCannFactory, plain: list[str]) -> None:
    cann = fake_cann("20.2")
    assert cann.atc == cann.toolkit / "atc/bin/atc"
    assert not (cann.toolkit / "set_env.sh").exists()
    assert atc(cann, *plain)[0] == 0
    for name, status in (("LD_LIBRARY_PATH", 127), ("ASCEND_OPP_PATH", 255), ("PYTHONPATH", 255)):
        lacking = {key: value for key, value in cann.environment.items() if key != name}
        assert atc(cann, *plain, environment=lacking)[0] == status, name


def test_set_env_makes_the_environment(cann: FakeCann, plain: list[str]) -> None:
    command = f'source {cann.toolkit}/set_env.sh && command -v atc && atc "$@"'
    done = subprocess.run(["bash", "-c", command, "-", *plain], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout == f"{cann.atc}\n{SUCCESS}"


def test_a_machine_without_a_driver_needs_the_stub_libraries(fake_cann: FakeCannFactory, plain: list[str]) -> None:
    cann = fake_cann(driver=False)
    assert atc(cann, *plain)[0] == 127
    [devlib] = cann.toolkit.glob("*-linux/devlib")
    assert atc(cann, *plain, environment={**cann.environment, "LD_LIBRARY_PATH": str(devlib)})[0] == 0


def test_chips_without_an_operator_package(fake_cann: FakeCannFactory, here: Here, plain: list[str]) -> None:
    assert here(fake_cann("8.5.0", chips=["Ascend310P3"]), *plain)[0] == 255
    assert here(fake_cann("8.5.0", chips=["Ascend310"]), *plain)[0] == 0


def test_log_goes_to_stdout_when_asked_to(cann: FakeCann, plain: list[str]) -> None:
    printing = {**cann.environment, "ASCEND_SLOG_PRINT_TO_STDOUT": "1"}
    assert "[INFO] GE(" in atc(cann, *plain, "--log=info", environment=printing)[1]
    assert atc(cann, *plain, environment=printing) == (0, SUCCESS)
    assert atc(cann, *plain, "--log=info") == (0, SUCCESS)


FILES: dict[str, tuple[dict[str, object], str, str]] = {
    "cast": ({"cast": True}, "8.0.RC3", "E16002"),
    "bidirectional": ({"direction": "bidirectional"}, "8.0.RC3", "E20001"),
    "unknown operator": ({"operator": "Erf"}, "8.0.RC3", "E16002"),
    "unknown operator, old": ({"operator": "Erf"}, "5.1.RC2", "E19010"),
    "opset 12 in 2021": ({"opset": 12}, "20.2", "E19010"),
    "IR 8 in 2021": ({"ir": 8}, "20.2", "E16004"),
    "another fixed batch": ({"batch": 4}, "8.0.RC3", "E10001"),
}


@pytest.mark.parametrize("name", FILES)
def test_onnx_files_it_cannot_compile(
    name: str, fake_cann: FakeCannFactory, here: Here, plain: list[str], tmp_path: Path
) -> None:
    changes, version, code = FILES[name]
    network(tmp_path / "model.onnx", **changes)  # type: ignore[arg-type]
    status, printed = here(fake_cann(version), *plain)
    assert status == 255
    assert f"\n{code}: " in printed
    assert ("[PID: " in printed) is version.startswith("8")


def test_lstm_weights_must_be_constants(cann: FakeCann, here: Here, plain: list[str], tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path / "model.onnx"))
    model.graph.node.insert(0, helper.make_node("Identity", ["r"], ["r.same"]))
    next(node for node in model.graph.node if node.op_type == "LSTM").input[2] = "r.same"
    onnx.save(model, tmp_path / "model.onnx")
    status, printed = here(cann, *plain)
    assert status == 255 and "E20001" in printed and "R of LSTM [lstm] must be a constant" in printed


def test_what_is_no_onnx_file(cann: FakeCann, here: Here, plain: list[str], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("hello")
    status, printed = here(cann, *plain)
    assert status == 255 and "E16004" in printed


@pytest.mark.parametrize(
    ("way", "status", "verdict", "made"),
    [
        ("killed", -9, "", False),
        ("failed", 255, "run failed", False),
        ("error:E20001", 255, "E20001", False),
        ("liar", 0, "run failed", False),
        ("nofile", 0, "run success", False),
        ("empty", 0, "run success", True),
        ("half", -9, "", True),
        ("warnings", 0, "W11001", True),
    ],
)
def test_ways_to_go_wrong(
    way: str, status: int, verdict: str, made: bool, cann: FakeCann, plain: list[str], tmp_path: Path
) -> None:
    result, printed = atc(cann, *plain, way=way)
    assert result == status
    assert printed.startswith("ATC start working now")
    assert verdict in printed
    assert (tmp_path / "out.om").exists() is made


def test_hanging(cann: FakeCann, plain: list[str]) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        atc(cann, *plain, way="hang", timeout=3)
    assert b"ATC start working now" in (caught.value.stdout or b"")


def test_files_of_a_version_are_the_tests_choice(fake_cann: FakeCannFactory) -> None:
    cann = fake_cann("7.0.RC1", files={"version.cfg": "7.0.RC1\n"})
    assert (cann.toolkit / "version.cfg").read_text() == "7.0.RC1\n"
    assert shutil.which("atc", path=cann.environment["PATH"]) == str(cann.atc)
