from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import pickle
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import crnn
from crnn import CrnnError, Item, Reader, Word
from crnn.engines import bundled_model
from crnn.errors import EngineError, ImageError, ModelError, OptionError
from crnn.spec import DELIVERABLE, ModelSpec

STEP = 7  # gray levels from one class to the next
COLUMNS = np.array([*range(0, 100, 4), 99])  # where time step t looks


class Bars:
    """An engine that reads bar codes: the gray of a picture's columns is the class, black the blank."""

    name, version, precision, device, threads = "bars", "1", "float32", "CPU", 1
    path = Path("bars")
    notes: tuple[str, ...] = ("reads bars",)

    def __init__(self, spec: ModelSpec = DELIVERABLE) -> None:
        self.spec = spec
        self.sizes: list[int] = []

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        grays = (batch[:, 0, 16, COLUMNS] * 0.5 + 0.5) * 255
        logits = np.zeros((26, len(batch), 37), np.float32)
        words, steps = np.indices(grays.shape)
        logits[steps, words, np.rint(grays / STEP).astype(int)] = 10
        result: NDArray[np.float32] = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return result


def bars(text: str) -> NDArray[np.uint8]:
    """A 100 x 32 picture that says ``text`` to the engine above."""
    picture = np.zeros((32, 100), np.uint8)
    for i, index in enumerate(DELIVERABLE.charset.encode(text)):
        picture[:, 8 * i : 8 * i + 4] = index * STEP
    return picture


def png(text: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(bars(text)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def reader() -> Reader:
    return Reader(engine=Bars(), batch_size=4, threads=2)


def test_one_word_with_everything_about_it(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "sign.png"
    path.write_bytes(png("a7"))
    word = reader.read(path)
    p = np.exp(10) / (np.exp(10) + 36)  # of the class that a frame names
    assert (word.text, word.source, word.error) == ("a7", str(path), None)
    assert p**26 < word.confidence < 1  # the best path is one of those that give the text
    first, second = word.characters
    assert (first.character, first.span, second.character, second.span) == ("a", (0.0, 2.0), "7", (6.0, 10.0))
    assert [first.score, second.score] == pytest.approx([p, p], rel=1e-5)
    double = Image.fromarray(bars("a7")).resize((200, 64), Image.Resampling.NEAREST)
    exact = Reader(engine=Bars(ModelSpec(resampling="box")))
    assert [c.span for c in exact.read(double).characters] == [(0.0, 4.0), (12.0, 20.0)]


def test_a_picture_may_come_as_anything(reader: Reader, tmp_path: Path) -> None:
    data = png("plate7")
    path = tmp_path / "p.png"
    path.write_bytes(data)
    picture = Image.fromarray(bars("plate7"))
    color = np.asarray(picture.convert("RGB"))
    for source, name in (
        (str(path), str(path)),
        (path, str(path)),
        (data, None),
        (bytearray(data), None),
        (io.BytesIO(data), None),
        (picture, None),
        (bars("plate7"), None),
        (color, None),
        (Item("crop 4", data), "crop 4"),
    ):
        word = reader.read(source, order="BGR")
        assert (word.text, word.source) == ("plate7", name)
        if isinstance(source, io.BytesIO):
            source.seek(0)
        assert list(reader.read_many([source], order="BGR")) == [word]
    with path.open("rb") as file:
        assert reader.read(file).source == str(path)
    assert next(reader.read_many([("crop", data)])).source == "crop"  # type: ignore[list-item]


def test_the_temperature_of_the_model_goes_into_the_confidence() -> None:
    cold, hot = (Reader(engine=Bars(ModelSpec(temperature=t))).read(bars("word")) for t in (1.0, 4.0))
    assert cold.text == hot.text == "word"
    assert hot.confidence < 0.5 < cold.confidence


def test_boxes_are_read_in_one_picture() -> None:
    engine = Bars()
    reader = Reader(engine=engine, batch_size=2)
    scene = np.full((300, 300), 40, np.uint8)
    scene[20:52, 30:130] = bars("upright")
    scene[100:200, 200:232] = np.rot90(bars("turned"), -1)  # a quarter turn clockwise: the text runs downwards
    scene[250:282, 100:200] = bars("flipped")[::-1, ::-1]
    boxes = np.array(
        [
            [(30, 20), (130, 20), (130, 52), (30, 52)],
            [(232, 100), (232, 200), (200, 200), (200, 100)],
            [(200, 282), (100, 282), (100, 250), (200, 250)],
        ]
    )
    words = reader.read(Item("scene", scene), boxes)
    assert [word.text for word in words] == ["upright", "turned", "flipped"]
    assert {word.source for word in words} == {"scene"}
    assert words[0].characters == reader.read(bars("upright")).characters  # spans count from the box's left edge
    assert engine.sizes == [2, 1, 1]
    assert reader.read(scene, []) == []
    with pytest.raises(OptionError, match=r"^scene: boxes\[1\]: its corners must run clockwise"):
        reader.read(Item("scene", scene), [boxes[0], boxes[0][::-1]])


def test_many_words_come_in_order_whatever_the_batch() -> None:
    texts = [f"w{i}" for i in range(100)]
    for batch_size in (1, 3, 100, 1000):
        engine = Bars()
        reader = Reader(engine=engine, batch_size=batch_size, threads=3)
        words = list(reader.read_many(Item(text, png(text)) for text in texts))
        assert [word.text for word in words] == [word.source for word in words] == texts
        assert sorted(engine.sizes, reverse=True) == [batch_size] * (100 // batch_size) + [100 % batch_size] * (
            100 % batch_size > 0
        )
    assert list(reader.read_many([])) == []


def test_streaming_takes_little_ahead_from_what_never_ends() -> None:
    reader = Reader(engine=Bars(), batch_size=8, threads=2)
    assert reader.look_ahead == 24  # two calls of an engine that computes in one thread, and the batch at hand
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        data = png("x")
        while True:
            taken += 1
            yield data

    words = reader.read_many(endless())
    assert taken == 0
    for given, word in enumerate(itertools.islice(words, 500), 1):
        assert word.text == "x"
        assert given <= taken < given + reader.look_ahead
    before = taken
    time.sleep(0.05)
    assert taken == before  # nothing is taken behind the caller's back


def test_memory_does_not_grow_with_the_number_or_the_size_of_pictures() -> None:
    reader = Reader(engine=Bars(), batch_size=64, threads=2)
    ballast = 1 << 20
    tracemalloc.start()
    try:
        count = sum(1 for word in reader.read_many(png("x") + bytes(ballast) for _ in range(300)) if word.text == "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300
    assert peak < 30 * ballast  # 192 pictures are on their way at a time, but only a few of them still encoded


def test_memory_may_be_used_again_once_a_picture_was_taken(reader: Reader, tmp_path: Path) -> None:
    texts = [f"frame{i}" for i in range(30)]

    def frames() -> Iterator[NDArray[np.uint8] | bytearray | Any]:
        frame, encoded = np.empty((32, 100), np.uint8), bytearray()
        for i, text in enumerate(texts):
            path = tmp_path / "f.png"
            path.write_bytes(png(text))
            if i % 4 == 0:
                frame[:] = bars(text)
                yield frame
                frame[:] = 0
            elif i % 4 == 1:
                encoded[:] = png(text)
                yield encoded
                encoded[:] = b"gone"
            elif i % 4 == 2:
                with path.open("rb") as file:
                    yield file
            else:
                with Image.open(path) as picture:
                    yield picture

    assert [word.text for word in reader.read_many(frames())] == texts


def test_decoding_the_engine_and_the_caller_overlap(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png("x"))
    decoded = threading.Semaphore(0)

    class Seen(type(path)):  # type: ignore[misc]
        def __fspath__(self) -> str:
            if threading.current_thread().name.startswith("crnn-decode"):
                decoded.release()
            return super().__fspath__()  # type: ignore[no-any-return]

    class Patient(Bars):
        def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            # The second batch has to be decoded while the first is still here, or the wait is in vain.
            assert self.sizes or all(decoded.acquire(timeout=60) for _ in range(8))
            return super().run(batch)

    engine = Patient()
    words = Reader(engine=engine, batch_size=4, threads=1).read_many(Seen(path) for _ in range(8))
    assert next(words).text == "x"
    deadline = time.monotonic() + 60
    while len(engine.sizes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.sizes == [4, 4]  # the second batch was read while we only looked at the first word
    assert [word.text for word in words] == ["x"] * 7


BAD = b"not a picture"


def mixed() -> list[Any]:
    return [png("one"), Item("two.png", BAD), b"", png("four"), Item("five", png("five")), "no/such/file.png"]


def test_bad_pictures_are_raised_where_they_stand(reader: Reader) -> None:
    words = reader.read_many(mixed())
    assert next(words).text == "one"
    with pytest.raises(ImageError, match=r"^two\.png: not a picture"):
        next(words)
    with pytest.raises(ImageError, match=r"^picture 2: empty"):
        list(reader.read_many([png("x"), b""]))


def test_bad_pictures_are_skipped(reader: Reader) -> None:
    assert [word.text for word in reader.read_many(mixed(), on_error="skip")] == ["one", "four", "five"]
    assert list(reader.read_many([BAD] * 9, on_error="skip")) == []


def test_bad_pictures_are_recorded(reader: Reader) -> None:
    words = list(reader.read_many(mixed(), "record"))
    assert [word.text for word in words] == ["one", "", "", "four", "five", ""]
    assert [word.source for word in words] == [None, "two.png", None, None, "five", "no/such/file.png"]
    assert [word.error is None for word in words] == [True, False, False, True, True, False]
    assert words[1].error is not None and words[1].error.startswith("not a picture")
    assert words[2] == Word("", 0.0, (), None, "empty")
    assert words[5].error is not None and words[5].error.startswith("cannot be opened")


def test_a_picture_over_the_limit_is_refused() -> None:
    reader = Reader(engine=Bars(), pixel_limit=3199)
    with pytest.raises(ImageError, match=r"^picture: 100 x 32 pixels are over the limit"):
        reader.read(png("x"))
    (word,) = reader.read_many([png("x")], "record")
    assert word.error is not None and "pixel_limit" in word.error


@pytest.mark.parametrize("on_error", ["raise", "skip", "record"])
def test_what_the_iterable_raises_comes_out_behind_its_words(reader: Reader, on_error: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield from (png(f"w{i}") for i in range(6))
        raise ConnectionError("the camera is gone")

    words = reader.read_many(broken(), on_error)
    assert [next(words).text for _ in range(6)] == [f"w{i}" for i in range(6)]
    with pytest.raises(ConnectionError, match="the camera is gone"):
        next(words)


def test_an_engine_that_fails_is_never_recorded(reader: Reader) -> None:
    class Broken(Bars):
        def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full((26, len(batch), 37), np.nan, np.float32)

    with pytest.raises(EngineError, match="NaN"):
        list(Reader(engine=Broken()).read_many([png("x")], "record"))


def test_a_reading_given_up_leaves_the_reader_usable(reader: Reader) -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        words = reader.read_many(png("x") for _ in itertools.count())
        assert next(words).text == "x"
        words.close()  # type: ignore[attr-defined]
    assert [word.text for word in reader.read_many([png("y")] * 9)] == ["y"] * 9
    assert len(set(threading.enumerate()) - before) <= 5  # two that decode, three that call the engine in turns


def test_threads_end_with_the_reader() -> None:
    before = set(threading.enumerate())
    for _ in range(10):
        assert len(list(Reader(engine=Bars(), threads=2).read_many([png("x")] * 3))) == 3
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_options_that_make_no_sense(reader: Reader) -> None:
    cases: list[dict[str, Any]] = [{"batch_size": 0}, {"threads": 0}, {"pixel_limit": 0}]
    for options in cases:
        with pytest.raises(OptionError, match=f"{next(iter(options))} must be at least 1, not 0"):
            Reader(engine=Bars(), **options)
    with pytest.raises(OptionError, match="give only the engine"):
        Reader("model.onnx", engine=Bars())
    with pytest.raises(ModelError, match=r"^nowhere\.onnx: no such model"):
        Reader("nowhere.onnx")
    with pytest.raises(EngineError, match="unknown engine 'fast'"):
        Reader(engine="fast")
    with pytest.raises(OptionError, match="on_error is raise, skip or record, not 'ignore'"):
        reader.read_many([], "ignore")  # type: ignore[arg-type]
    for single in (
        "a.png",
        Path("a.png"),
        b"data",
        bytearray(b"data"),
        memoryview(b"data"),
        bars("x"),
        Image.fromarray(bars("x")),
        Item("a", b""),
        io.BytesIO(),
    ):
        with pytest.raises(OptionError, match="takes an iterable"):
            reader.read_many(single)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"crnn\.Item\(name, picture\)"):
        reader.read((1, 2, 3))  # type: ignore[call-overload]


def test_it_says_which_engine_reads_and_why(reader: Reader) -> None:
    assert reader.engine == "bars 1 on CPU, float32, 1 thread (opened by the caller)"
    assert (reader.model, reader.spec, reader.notes) == (Path("bars"), DELIVERABLE, ("reads bars",))
    auto, named = Reader(threads=2), Reader(engine="onnxruntime", threads=1)
    version = sys.modules["onnxruntime"].__version__
    assert auto.engine.startswith("openvino ") and auto.engine.endswith(", 2 threads (the fastest installed)")
    assert named.engine == f"onnxruntime {version} on CPU, float32, 1 thread (asked for by name)"
    assert auto.model == bundled_model()


def test_a_pickled_reader_opens_its_model_anew() -> None:
    reader = Reader(batch_size=5, threads=1, pixel_limit=10_000)
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.engine, copy.model, copy.batch_size, copy.pixel_limit) == (reader.engine, reader.model, 5, 10_000)
    assert copy.read(bars("x")) == reader.read(bars("x"))


def test_a_reader_of_an_opened_engine_cannot_be_pickled_and_says_so(reader: Reader) -> None:
    with pytest.raises(OptionError, match="opened engine cannot be pickled; give it a model and an engine's name"):
        pickle.dumps(reader)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_instead_of_hanging(reader: Reader) -> None:
    list(reader.read_many([png("x")]))  # its threads are there, but not in the child
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        for use in (lambda: reader.read(png("x")), lambda: list(reader.read_many([png("x")]))):
            try:
                use()
                answers.put("read")
            except CrnnError as error:
                answers.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0
    for _ in range(2):
        assert "open one in each process" in answers.get()


def test_the_public_names() -> None:
    assert crnn.Reader is Reader
    assert {"Reader", "Word", "Character", "Item"} <= set(crnn.__all__)
