"""Unsure words are looked at again, sure ones are not, and more words are read right for it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import crnn
from crnn import Reader
from crnn.cli import app
from crnn.ctc import Scores, frame_span, log_probability, tempered
from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.decoder import Decoder
from crnn.decoding.lexicon import Lexicon
from crnn.engines import open_engine
from crnn.errors import OptionError
from crnn.evaluation.evaluate import evaluate
from crnn.evaluation.evidence import Reopened
from crnn.evaluation.page import render
from crnn.evaluation.saved import load_result
from crnn.images import normalise, prepare
from crnn.jobs.manifest import options
from crnn.jobs.units import Layout
from crnn.reader import as_word
from crnn.second_look import KNOWN, UNSURE, ZOOMS, Look, look_again, zoomed
from crnn.spec import DELIVERABLE

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    reader = LmdbReader(SAMPLE)
    return [reader.image_bytes(i) for i in range(50)]


def test_a_view_shows_the_same_picture_larger_or_smaller() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8), (32, 1))
    assert zoomed(ramp, 1).tolist() == ramp.tolist()
    middle, column = 49.5, np.arange(100)
    for zoom in ZOOMS:
        seen = zoomed(ramp, zoom)[16].astype(float)
        wanted = np.clip((column - middle) / zoom + middle, 0, 99)
        assert np.abs(seen - wanted).max() < 1.5
    tall = np.tile(np.arange(32, dtype=np.uint8)[:, None, None], (1, 100, 3))
    smaller = zoomed(tall, 0.5)
    assert smaller.shape == (32, 100, 3) and smaller.dtype == np.uint8
    assert smaller[:7].max() == 0 and smaller[-7:].min() == 31  # edges go on beyond the picture
    assert np.abs(smaller[10:22, 50, 0].astype(float) - (np.arange(10, 22) - 15.5) / 0.5 - 15.5).max() < 1.5


def posterior(generator: np.random.Generator, words: int, sharp: float) -> Scores:
    logits = generator.normal(size=(26, words, 37)) * sharp
    logits[:, :, 0] += 2 * sharp
    result: Scores = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return result


def test_the_text_of_the_highest_mean_probability_is_taken() -> None:
    """By hand: every text of every view, its probability in every view, the mean of the three."""
    generator = np.random.default_rng(3)
    first, *others = (posterior(generator, 40, 3.0) for _ in range(3))
    first[:, :5] = np.log(1e-12)
    first[:, :5, 0] = 0.0  # surely nothing
    decoder = Decoder(DELIVERABLE)
    readings = decoder.decode(first)
    unsure = [n for n, reading in enumerate(readings) if reading.confidence < UNSURE]
    assert 20 < len(unsure) <= 35 and min(unsure) >= 5
    outputs = [first[:, unsure], *(other[:, : len(unsure)] for other in others)]
    more = np.concatenate(outputs[1:], axis=1)
    calls: list[int] = []

    def run(batch: NDArray[np.float32]) -> Scores:
        begin = sum(calls)
        calls.append(len(batch))
        return more[:, begin : begin + len(batch)]

    pixels = generator.integers(0, 256, (40, 32, 100), np.uint8)
    before = pixels.tobytes()
    looks = look_again(pixels, first, readings, decoder, run)
    assert calls == [40, 2 * len(unsure) - 40] and pixels.tobytes() == before
    texts = [[reading.text for reading in decoder.decode(output)] for output in outputs]
    changed = 0
    for k, n in enumerate(unsure):
        means = [
            np.mean(
                [
                    np.exp(log_probability(tempered(o[:, k : k + 1], 1.0), [text[k]], DELIVERABLE.charset))
                    for o in outputs
                ]
            )
            for text in texts
        ]
        best = int(np.argmax(means))
        assert looks[n].reading.text == texts[best][k] and looks[n].zoom == (1.0, *ZOOMS)[best]
        assert looks[n].reading.confidence == pytest.approx(means[best], rel=1e-9)
        changed += best > 0
    assert changed > 5
    assert looks[:5] == [Look(reading) for reading in readings[:5]]


def test_characters_stand_where_they_are_in_the_picture_as_it_is() -> None:
    generator = np.random.default_rng(5)
    (reading,) = Decoder(DELIVERABLE).decode(posterior(generator, 1, 6.0))
    assert len(reading.characters) > 2
    for zoom in (1.0, *ZOOMS):
        word = as_word(reading, DELIVERABLE, 200, None, zoom)
        for (_, _, frames), character in zip(reading.characters, word.characters, strict=True):
            left, right = ((end - 100) / zoom + 100 for end in frame_span(*frames, DELIVERABLE, 200))
            assert character.span == pytest.approx((min(max(left, 0), 196), min(max(right, 4), 200)))
            assert character.span[0] < character.span[1]  # though it may lie in what was put on at the edge


class Counted:
    """An engine that notes how many words each call had."""

    def __init__(self) -> None:
        self._engine = open_engine(None, "onnxruntime", 1)
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls.append(len(batch))
        return self._engine.run(batch)


def test_only_unsure_words_are_looked_at_again(pictures: list[bytes]) -> None:
    engine = Counted()
    once = list(Reader(engine=engine).read_many(pictures))  # type: ignore[arg-type]
    engine.calls.clear()
    reader = Reader(engine=engine, second_look=True)  # type: ignore[arg-type]
    twice = list(reader.read_many(pictures))
    unsure = [n for n, word in enumerate(once) if word.confidence < UNSURE]
    assert 8 < len(unsure) < 40
    assert sum(engine.calls) == len(pictures) + 2 * len(unsure)
    assert all(twice[n] == once[n] for n in range(len(once)) if n not in unsure)
    assert all(twice[n].confidence != once[n].confidence for n in unsure)
    assert any(twice[n].text != once[n].text for n in unsure)
    assert reader.known == {"second_look": KNOWN} and Reader(engine=engine).known == {}  # type: ignore[arg-type]

    engine.calls.clear()
    chosen = unsure[:5]
    for n in chosen:
        alone = reader.read(pictures[n])
        assert alone.text == twice[n].text and alone.confidence == pytest.approx(twice[n].confidence, abs=1e-4)
        assert [c.character for c in alone.characters] == list(alone.text)
    assert engine.calls == [1, 1, 1] * len(chosen)  # never more than the batch at hand


def test_allowed_characters_go_with_it(pictures: list[bytes]) -> None:
    """confidence * kept is the network's own probability of the text, its mean over the views."""
    digits = "0123456789"
    engine = open_engine(None, "onnxruntime", 1)
    spec = engine.spec
    pixels = np.stack([prepare(picture, spec) for picture in pictures])
    views = [engine.run(normalise(np.stack([zoomed(p, zoom) for p in pixels]), spec)) for zoom in (1, *ZOOMS)]
    views = [tempered(view, spec.temperature) for view in views]
    once = list(Reader(engine=engine, characters=digits).read_many(pictures))
    twice = list(Reader(engine=engine, characters=digits, second_look=True).read_many(pictures))
    assert all(set(word.text) <= set(digits) for word in twice)
    again = [n for n, word in enumerate(once) if word.confidence < UNSURE]
    assert len(again) > 10
    for n in again:
        own = [np.exp(log_probability(view[:, n : n + 1], [twice[n].text], spec.charset)[0]) for view in views]
        kept = twice[n].kept
        assert kept is not None and twice[n].confidence * kept == pytest.approx(np.mean(own), rel=0.02, abs=1e-7)


def test_it_goes_through_pickle(pictures: list[bytes]) -> None:
    reader = Reader(engine="onnxruntime", threads=1, second_look=True)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.known == {"second_look": KNOWN}
    assert list(copy.read_many(pictures[:20])) == list(reader.read_many(pictures[:20]))


def test_what_does_not_go_with_it(pictures: list[bytes], tmp_path: Path) -> None:
    engine = open_engine(None, "onnxruntime", 1)
    for known in ({"lexicon": ["open"]}, {"beam": 4}):
        with pytest.raises(OptionError, match="a second look is for reading without"):
            Reader(engine=engine, second_look=True, **known)
    reader = Reader(engine=engine, second_look=True)
    for lexicon in (["open"], Lexicon(["open"])):
        with pytest.raises(OptionError, match="a second look is for reading without"):
            reader.read(pictures[0], lexicon=lexicon)
    with pytest.raises(OptionError, match="without lists of words"):
        evaluate([SAMPLE], engine, second_look=True, lists=(2, 0))
    with pytest.raises(OptionError, match="decoded alone"):
        Decoder(DELIVERABLE, beam=4).probabilities(np.zeros((26, 1, 37)), [""])
    result = CliRunner().invoke(app, ["evaluate", "--bins", str(tmp_path), "--second-look"])
    assert result.exit_code == 2 and "--second-look" in result.output


def test_the_report_says_so(pictures: list[bytes], tmp_path: Path) -> None:
    runner = CliRunner()
    given = ["evaluate", str(SAMPLE), "--engine", "onnxruntime", "--threads", "1", "--second-look"]
    shown = runner.invoke(app, [*given, "--json", str(tmp_path / "two.json")])
    assert shown.exit_code == 0
    assert "decoded with a second look at confidences below 0.8, at 0.93 and 1.06" in shown.output
    report = load_result(tmp_path / "two.json")
    assert report["knowledge"] == {"second_look": KNOWN}
    reader = Reader(engine="onnxruntime", threads=1, second_look=True)
    texts = [word["text"] for word in report["datasets"][0]["words"]]
    assert texts[: len(pictures)] == [word.text for word in reader.read_many(pictures)]
    text = render(report, [], Reopened((), None, ()))
    assert "second look" in text and "mean of the looks" in text

    drawn = runner.invoke(app, ["report", str(tmp_path / "two.json"), "--out", str(tmp_path / "two.html")])
    assert drawn.exit_code == 0, drawn.output
    shown_page = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "are of the first look" in shown_page + drawn.output
    assert "Read again, it is" not in shown_page  # they are looked at as they were

    damaged = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    damaged["knowledge"]["second_look"] = True
    (tmp_path / "bad.json").write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(crnn.CrnnError, match="second_look"):
        load_result(tmp_path / "bad.json")


def test_a_job_and_a_result_file_do_not_go_on_without_it(pictures: list[bytes], tmp_path: Path) -> None:
    with_it, without = (options(Layout(), {"second_look": on}, False)["knowledge"] for on in (True, False))
    assert with_it == {"second_look": KNOWN} and without == {}
    (tmp_path / "word.png").write_bytes(pictures[0])
    out = ["read", str(tmp_path / "word.png"), "--engine", "onnxruntime", "--out", str(tmp_path / "words.jsonl")]
    for _ in range(2):
        assert CliRunner().invoke(app, [*out, "--second-look"]).exit_code == 0
    refused = CliRunner().invoke(app, out)
    assert refused.exit_code == 2 and "second_look" in refused.output


def test_it_reads_more_real_words(data_dir: Path) -> None:
    """ICDAR 2015's held-out words, small and blurred."""
    engine = open_engine(None, "onnxruntime")
    words = data_dir / "IC15_train_lmdb"
    once, twice = (evaluate([words], engine, held_out=True, second_look=on)["overall"] for on in (False, True))
    assert twice["used"] == once["used"] > 400
    assert twice["accuracy"] > once["accuracy"] + 0.005
    assert twice["ece"] < 0.06
