from __future__ import annotations

import io
import os
import pickle
import signal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from crnn.datasets.lmdb import LmdbWriter
from crnn.datasets.split import HELD_OUT
from crnn.errors import CrnnError, DatasetError, ImageError, OptionError
from crnn.spec import ModelSpec
from crnn.training import data, validation
from crnn.training.augment import augment
from crnn.training.config import TrainConfig
from crnn.training.data import Batch, RealWords, SampleStream, batches
from crnn.training.sources import open_sources
from crnn.training.validation import HeldOut, evenly


def png(value: int) -> bytes:
    """A picture that says which it is: its first pixel."""
    picture = np.full((20, 50), 200, np.uint8)
    picture[:, :25] = value
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "words"
    with LmdbWriter(path) as writer:
        for i in range(60):
            writer.add(png(i), ["Word", "x" * 14, "!?", "Zoo-1"][i % 4] + ("" if i % 4 in (1, 2) else str(i)))
    return path


def labels(words: RealWords, indices: NDArray[np.int64]) -> set[str]:
    return {words.label(i) for i in indices.tolist()}


def test_what_the_network_cannot_learn_is_left_out_with_reasons(labelled: Path) -> None:
    words = RealWords(labelled, ModelSpec())
    kinds = {skipped.kind for skipped in words.skipped}
    assert kinds == {"empty", "infeasible"}  # "!?", and fourteen x, which need 27 frames
    assert len(words.skipped) == 30
    assert labels(words, words.training) >= {"word4", "zoo13"}


def test_every_tenth_word_is_held_out_and_never_trained_on(labelled: Path) -> None:
    words = RealWords(labelled, ModelSpec())
    assert set(words.held_out.tolist()) == {index for index in range(0, 60, HELD_OUT) if index % 4 in (0, 3)}
    dice = Random(0)
    drawn = {words.sample(dice)[1] for _ in range(2000)}
    assert drawn == labels(words, words.training)
    assert not drawn & labels(words, words.held_out)


def test_both_ic15_sets_hold_out_the_same_words(data_dir: Path) -> None:
    sets = [data_dir / name for name in ("IC15_train_lmdb", "IC15_rectified_train_lmdb")]
    plain, rectified = (RealWords(path, ModelSpec()) for path in sets)
    assert np.array_equal(plain.held_out, rectified.held_out)
    assert np.array_equal(plain.training, rectified.training)
    assert len(plain.held_out) == 447


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "signs") as writer:
        writer.add(png(0), "!!!")
    with pytest.raises(DatasetError, match="no usable word"):
        RealWords(tmp_path / "signs", ModelSpec())
    with LmdbWriter(tmp_path / "one") as writer:
        writer.add(png(0), "exit")
    with pytest.raises(DatasetError, match="0 were left out, 1 held out, as every tenth is"):
        RealWords(tmp_path / "one", ModelSpec())


def test_a_sample_is_a_function_of_seed_and_number(labelled: Path) -> None:
    def stream(seed: int) -> SampleStream:
        return SampleStream([(RealWords(labelled, ModelSpec()), 1.0)], ModelSpec(), seed)

    first, second = stream(1), stream(1)
    forwards = [first.sample(i) for i in range(30)]
    for i in reversed(range(30)):
        image, label = second.sample(i)
        assert image.shape == (32, 100) and image.dtype == np.uint8
        assert label == forwards[i][1] and np.array_equal(image, forwards[i][0])
    assert [stream(2).sample(i)[1] for i in range(30)] != [label for _, label in forwards]


def test_sources_are_mixed_by_their_shares(labelled: Path, tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "other") as writer:
        for _ in range(20):
            writer.add(png(1), "other")
    sources = [(RealWords(labelled, ModelSpec()), 3.0), (RealWords(tmp_path / "other", ModelSpec()), 1.0)]
    stream = SampleStream([*sources], ModelSpec(), 0)
    share = sum(stream.sample(i)[1] == "other" for i in range(2000)) / 2000
    assert share == pytest.approx(0.25, abs=0.04)
    with pytest.raises(OptionError, match="share above 0"):
        SampleStream([], ModelSpec(), 0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="share above 0"):
            SampleStream([*sources, (sources[0][0], wrong)], ModelSpec(), 0)


def test_decoded_pictures_are_kept_up_to_a_bound(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "KEPT_BYTES", 1500)  # one picture
    words = RealWords(labelled, ModelSpec())
    for each in (words, pickle.loads(pickle.dumps(words))):
        pictures = each.pictures
        assert pictures[0] is pictures[0] and len(pictures) == 1
        assert pictures[3] is not pictures[3] and np.array_equal(pictures[3], pictures[3])


def test_pictures_of_a_large_set_are_decoded_when_they_are_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    with LmdbWriter(tmp_path / "large") as writer:
        for i in range(40):
            writer.add(png(i) if i % 3 else b"\x89PNG damaged", f"word{i}")
    small = RealWords(tmp_path / "large", ModelSpec())
    assert {word.kind for word in small.skipped} == {"unreadable"} and len(small.training) + len(small.held_out) == 26
    monkeypatch.setattr(data, "DECODED", 39)
    large = RealWords(tmp_path / "large", ModelSpec())
    assert large.skipped == [] and len(large.training) + len(large.held_out) == 40
    stream = SampleStream([(large, 1.0)], ModelSpec(), 0)
    again = next(batches(stream, 0, 30, workers=0))
    assert 2 < again.unreadable == stream.unreadable
    assert next(batches(stream, 30, 30, workers=0)).unreadable == stream.unreadable - again.unreadable
    batch = next(batches(stream, 0, 30, workers=1))
    assert batch.unreadable == again.unreadable and torch.equal(batch.images, again.images)
    held_out = HeldOut([large], ModelSpec())  # words 0, 10, 20 and 30
    assert (held_out.labels, held_out.sets, held_out.unreadable) == (["word10", "word20"], [("large", 2)], 2)

    large.training = np.arange(0, 40, 3)
    with pytest.raises(DatasetError, match=r"100 pictures in a row .* the last as .*/large.*: crnn data check"):
        large.sample(Random(0))
    small.training = large.training  # where all could be decoded, one that cannot is not passed over
    with pytest.raises(ImageError):
        small.sample(Random(0))


def test_of_a_large_set_so_many_words_are_validated_on(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evenly(np.arange(10), 4).tolist() == [0, 2, 5, 7] and evenly(np.arange(3), 4).tolist() == [0, 1, 2]
    words = RealWords(labelled, ModelSpec(), validation=True)
    everything = HeldOut([words], ModelSpec())
    monkeypatch.setattr(validation, "MOST", 7)
    some = HeldOut([words], ModelSpec())
    assert len(everything.labels) == 30 and some.sets == [("words", 7)] and len(some.images) == 7
    assert some.labels == [everything.labels[i * 30 // 7] for i in range(7)]


def test_characters_for_which_words_are_left_out_are_named(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "signs") as writer:
        for label in ["open", "ÉCOLE", "Été", "exit"] * 5:
            writer.add(png(0), label)
    told: list[str] = []
    config = TrainConfig(train=((str(tmp_path / "signs"), 1.0),), charset="enoptxi")
    _, _, notes = open_sources(config, told.append)
    line = next(note for note in notes if "É" in note)
    assert "7 characters to be written are not all" in line and "'É' U+00C9 in 10 labels" in line
    assert "'L' U+004C in 5 labels" in line and "image-000000002" in line and "--charset" in line
    assert told == [f"opening {tmp_path / 'signs'}: 0 of 20 words"]


class Broken:
    """A source that has nothing to give."""

    def sample(self, dice: Random) -> Any:
        raise DatasetError("words_lmdb: the picture is gone")


class Deadly:
    """A source that takes its process with it, as the system does when memory runs out."""

    def sample(self, dice: Random) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("source", "message"),
    [(Broken(), "^words_lmdb: the picture is gone$"), (Deadly(), r"has died.*memory.*--workers[^\n]*$")],
)
def test_what_goes_wrong_in_a_worker_is_one_line(source: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))  # looks for the dead
    before = signal.getsignal(signal.SIGCHLD)
    supply = batches(SampleStream([(source, 1.0)], ModelSpec(), 0), 0, 2, workers=1)
    with pytest.raises(CrnnError, match=message):
        next(supply)
    assert signal.getsignal(signal.SIGCHLD) is before  # torch's would raise in the middle of a step


def test_processes_share_one_stream_of_batches(labelled: Path) -> None:
    stream = SampleStream([(RealWords(labelled, ModelSpec()), 1.0)], ModelSpec(), 0)

    def some(rank: int, start: int, workers: int = 0) -> list[Batch]:
        supply = batches(stream, start, 4, workers=workers, rank=rank, processes=2)
        return [next(supply) for _ in range(3)]

    first = some(0, 80)
    ids = [batch.ids.tolist() for pair in zip(first, some(1, 80), strict=True) for batch in pair]
    assert [i for part in ids for i in part] == list(range(80, 104))
    assert int(first[1].lengths.sum()) == len(first[1].targets)
    others = [some(0, 88)[0], *some(0, 80, workers=2)]  # begun later, and drawn by processes of their own
    for mine, other in zip([first[1], *first], others, strict=True):
        assert mine.ids.equal(other.ids) and mine.images.equal(other.images) and mine.targets.equal(other.targets)


def test_augmented_words_keep_their_ink() -> None:
    """Distortions move and fade a word; its dark bar stays in the picture, and hardly two pictures are the same."""
    picture = np.full((40, 120), 220, np.uint8)
    picture[8:32, 30:90] = 30
    dice, seen = Random(0), set()
    for _ in range(200):
        out = augment(picture, 25, dice)
        assert out.dtype == np.uint8 and out.ndim == 2
        middle = out.shape[1] // 2
        rows = out[:, middle - 10 : middle + 10].mean(1)  # an arch may take the bar off the middle of its height
        edges = np.concatenate((out[:, :6].ravel(), out[:, -6:].ravel())).mean()
        assert np.sort(np.abs(rows - edges))[-8:].mean() > 40
        seen.add(out.tobytes())
    assert len(seen) > 170
