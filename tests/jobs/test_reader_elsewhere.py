"""A Reader goes to other processes as its settings, and opens its model there once."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import crnn
from crnn.engines import bundled_model, onnxruntime
from crnn.errors import ModelError


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that are opened, as they are."""
    paths: list[Path] = []
    begin = onnxruntime.OnnxRuntimeEngine.__init__

    def counted(self: onnxruntime.OnnxRuntimeEngine, path: Path, *arguments: object) -> None:
        paths.append(path)
        begin(self, path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(onnxruntime.OnnxRuntimeEngine, "__init__", counted)
    return paths


def test_it_pickles_cheaply() -> None:
    assert len(pickle.dumps(crnn.Reader(engine="onnxruntime", threads=1))) < 1000


def test_copies_share_one_model_that_is_opened_when_it_is_needed(opened: list[Path]) -> None:
    reader = crnn.Reader(engine="onnxruntime", threads=1, batch_size=7)
    data = pickle.dumps(reader)
    opened.clear()
    copies = [pickle.loads(data) for _ in range(8)]
    copies.append(pickle.loads(pickle.dumps(copies[0])))
    assert opened == []
    threads = [threading.Thread(target=lambda each=each: each.batch_size) for each in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1 and {id(each.network) for each in copies} == {id(copies[0].network)}
    picture = next(iter(_pictures()))
    assert {each.read(picture) for each in copies} == {reader.read(picture)}
    assert (copies[0].batch_size, copies[0].engine) == (7, reader.engine) and len(opened) == 1
    with pytest.raises(AttributeError, match="no attribute 'bacth_size'"):
        getattr(copies[0], "bacth_size")  # noqa: B009
    with pytest.raises(AttributeError, match="no attribute 'bacth_size'"):
        getattr(reader, "bacth_size")  # noqa: B009


def test_few_are_kept(opened: list[Path]) -> None:
    copies = [pickle.loads(pickle.dumps(crnn.Reader(engine="onnxruntime", threads=1))) for _ in range(6)]
    for each in (*copies, *copies):
        assert each.batch_size == 64
    assert len(opened) == 12  # six, and their copies; those have theirs even where the process keeps it no longer


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bundled_model().read_bytes())
    copy = pickle.loads(pickle.dumps(crnn.Reader(model, engine="onnxruntime", threads=1)))
    model.unlink()
    with pytest.raises(ModelError, match=r"model.onnx: no such model"):
        copy.read(next(iter(_pictures())))


def test_in_another_process_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(bundled_model().read_bytes())
    monkeypatch.chdir(tmp_path)
    reader = crnn.Reader("model.onnx", engine="onnxruntime", threads=1)
    picture = next(iter(_pictures()))
    Path("data").write_bytes(pickle.dumps((reader, picture)))
    code = (
        "import pickle, sys; reader, picture = pickle.load(open(sys.argv[1], 'rb'));"
        "print('onnxruntime' in sys.modules, reader.read(picture).text)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == ["False", reader.read(picture).text]


def _pictures() -> list[bytes]:
    from crnn.datasets.lmdb import LmdbReader

    source = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb")
    return [source.image_bytes(i) for i in range(3)]
