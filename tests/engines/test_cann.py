"""What the engine makes of ONNX Runtime's CANN provider; the provider itself runs on Ascend hosts only."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.engines.twin import linear, pictures

from crnn.engines import open_engine
from crnn.errors import EngineError, ModelError, OptionError

PROVIDER = "CANNExecutionProvider"


class Runtime(SimpleNamespace):
    """onnxruntime-cann: the real one, whose CANN provider is the CPU's under another name."""

    def __init__(self, *, starts: bool = True, falls_back: bool = False, unknown: tuple[str, ...] = ()) -> None:
        super().__init__(__version__="1.24.4", SessionOptions=onnxruntime.SessionOptions)
        self.starts, self.falls_back, self.unknown = starts, falls_back, unknown
        self.asked: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return [PROVIDER, "CPUExecutionProvider"]  # with and without a device, as the real one

    def InferenceSession(self, path: str, options: Any, providers: Any, enable_fallback: int = 1) -> Any:
        self.asked.append((providers, enable_fallback, options.get_session_config_entry(FALLBACK)))
        names = [name for _, values in providers for name in values if name in self.unknown]
        if names:
            raise RuntimeError(f"x.cc:1 f(a, b) Unknown provider option: {names[0]}")
        if not self.starts and not enable_fallback:
            raise RuntimeError("x.cc:1 f(const A&, const B&) create CANN ExecutionProvider fail\nmore")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        if not self.falls_back and self.starts:
            session.get_providers = lambda: [PROVIDER]
        return session


FALLBACK = "session.disable_cpu_ep_fallback"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def choose(**ways: Any) -> Runtime:
        runtime = Runtime(**ways)
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        return runtime

    return choose


def test_it_runs_and_says_what_it_is(tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = linear(tmp_path / "twin.onnx")
    expected = open_engine(twin, "onnxruntime").run(pictures(3))
    monkeypatch.setenv("ASCEND_DEVICE_ID", "2")
    runtime = install()
    engine = open_engine(twin, "cann")
    assert (engine.name, engine.version, engine.device) == ("cann", "1.24.4", "Ascend, device 2")
    assert engine.precision == "float16" and "not yet been run on hardware" in engine.notes[0]
    assert runtime.asked == [([(PROVIDER, {"device_id": "2"})], 0, "1")]
    np.testing.assert_allclose(engine.run(pictures(3)), expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(ModelError, match="must be float32"):
        engine.run(pictures(3)[:, :, :16])


def test_precision(tmp_path: Path, install: Any) -> None:
    twin = linear(tmp_path / "twin.onnx")
    runtime = install(unknown=("precision_mode",))
    assert open_engine(twin, "cann", precision="float32").precision == "float32"
    assert [list(asked[0][0][1]) for asked in runtime.asked] == [
        ["device_id", "precision_mode"],
        ["device_id", "precision_mode_v2"],
    ]
    install(unknown=("precision_mode", "precision_mode_v2"))
    with pytest.raises(EngineError, match="Unknown provider option: precision_mode_v2"):
        open_engine(twin, "cann", precision="float32")
    with pytest.raises(OptionError, match="choose float16 or float32"):
        open_engine(twin, "cann", precision="int8")


def test_it_never_falls_back(tmp_path: Path, install: Any) -> None:
    twin = linear(tmp_path / "twin.onnx")
    install(starts=False)
    with pytest.raises(
        EngineError, match=r"does not start \(create CANN ExecutionProvider fail\).*set_env\.sh"
    ) as caught:
        open_engine(twin, "cann")
    assert "\n" not in str(caught.value)
    install(falls_back=True)
    with pytest.raises(EngineError, match="fell back from the Ascend device to CPUExecutionProvider"):
        open_engine(twin, "cann")


def test_without_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = linear(tmp_path / "twin.onnx")
    if PROVIDER not in onnxruntime.get_available_providers():
        with pytest.raises(EngineError, match="pip uninstall onnxruntime, then pip install onnxruntime-cann"):
            open_engine(twin, "cann")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime-cann"):
        open_engine(twin, "cann")
