from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from crnn import ctc
from crnn.charset import Charset
from crnn.cli import app
from crnn.engines import bundled_model, open_engine
from crnn.errors import ModelError
from crnn.export import parity, triton
from crnn.export.parity import CheckSet
from crnn.spec import ModelSpec


def exported(repository: Path, *options: str) -> tuple[Any, onnxruntime.InferenceSession]:
    """(the configuration as Triton's own message, the model) of the bundled weights."""
    result = CliRunner().invoke(app, ["export", str(bundled_model()), "--triton", str(repository), *options])
    assert result.exit_code == 0, result.stderr
    assert sorted(it.relative_to(repository).as_posix() for it in repository.rglob("*") if it.is_file()) == [
        "crnn/1/model.onnx",
        "crnn/config.pbtxt",
    ]
    config = model_config_pb2.ModelConfig()
    text_format.Parse((repository / "crnn" / "config.pbtxt").read_text(encoding="utf-8"), config)
    model = repository / "crnn" / "1" / "model.onnx"
    return config, onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def check_ports(config: Any, session: onnxruntime.InferenceSession) -> None:
    """Triton's rule: the configured sizes, behind a batch axis if max_batch_size is above 0, are the model's."""
    batch = [-1] if config.max_batch_size else []
    for configured, ports in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        (one,), (port,) = configured, ports
        assert one.name == port.name
        assert one.data_type == model_config_pb2.TYPE_FP32 and port.type == "tensor(float)"
        assert batch + list(one.dims) == [size if isinstance(size, int) else -1 for size in port.shape]


@pytest.mark.parametrize("options", [(), ("--triton-batch-first",)])
def test_repository(tmp_path: Path, words: CheckSet, options: tuple[str, ...]) -> None:
    repository = tmp_path / "models"
    (repository / ".crnn.tmp" / "1").mkdir(parents=True)  # left by one that was killed
    config, session = exported(repository, *options)
    check_ports(config, session)
    assert (config.name, config.backend) == ("crnn", "onnxruntime")
    first = "--triton-batch-first" in options
    assert config.HasField("dynamic_batching") is first
    assert (config.max_batch_size > 0) is first

    engine = open_engine(bundled_model(), "onnxruntime", 1)
    spec = ModelSpec.from_json(config.parameters["crnn.spec"].string_value)
    assert spec == engine.spec
    images = words.images[:9]
    (output,) = session.run(["output1"], {"actual_input_1": images})
    logp = np.asarray(output).transpose(1, 0, 2) if first else np.asarray(output)
    expected = [word.text for word in ctc.decode(engine.run(images), spec.charset)]
    assert [word.text for word in ctc.decode(logp, spec.charset)] == expected
    assert len(set(expected)) > 5

    again = CliRunner().invoke(app, ["export", str(bundled_model()), "--triton", str(repository)])
    assert again.exit_code == 2 and "is there already" in again.stderr
    metadata = onnx.load(repository / "crnn" / "1" / "model.onnx").metadata_props
    assert ("crnn.spec" in [it.key for it in metadata]) is not first  # it would mislead `crnn read`


def test_any_spec_can_be_written() -> None:
    """Quotes, backslashes, letters beyond ASCII: what has a meaning of its own in protobuf's text format."""
    spec = ModelSpec(charset=Charset('a"\\éß中'), licence='"\\n', input_name='in"put')
    config = model_config_pb2.ModelConfig()
    text_format.Parse(triton.config(spec, batch_first=False), config)
    assert ModelSpec.from_json(config.parameters["crnn.spec"].string_value) == spec
    assert config.input[0].name == 'in"put'
    assert list(config.output[0].dims) == [26, -1, 7]


def test_what_fails_leaves_nothing(tmp_path: Path, words: CheckSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **_: Any) -> None:
        arguments[2].write_bytes(b"half a model")
        raise ModelError("not written: some reason")

    monkeypatch.setattr(parity, "export", fail)
    with pytest.raises(ModelError):
        triton.export({}, ModelSpec(), tmp_path / "models", words)
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name the file to write"),
        (("out.onnx", "--triton", "models"), "name the file to write"),
        (("out.onnx", "--triton-batch-first"), "goes with --triton"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", str(bundled_model()), *options])
    assert result.exit_code == 2
    assert result.stderr.startswith("crnn: ") and message in result.stderr
    assert not list(tmp_path.iterdir())
