from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.datasets.lmdb import LmdbReader
from crnn.engines import open_engine
from crnn.errors import DatasetError
from crnn.evaluation.calibration import Bin, calibrate, calibration, fit
from crnn.evaluation.words import usable_labels
from crnn.spec import ModelSpec
from crnn.training.data import RealWords

Draw = Callable[..., bytes]
Write = Callable[..., Path]


def test_error_worked_out_by_hand() -> None:
    # Two words of 0.9, one right; three of 0.3, one right; one of 0.5, right: |1.8 - 1| + |0.9 - 1| + |0.5 - 1| = 1.4
    sure = [0.9, 0.3, 0.3, 0.5, 0.9, 0.3]
    right = [True, True, False, True, False, False]
    found = calibration(sure, right)
    assert found.ece == pytest.approx(1.4 / 6)
    assert len(found.bins) == 15
    assert [(index, row.words) for index, row in enumerate(found.bins) if row.words] == [(4, 3), (7, 1), (13, 2)]
    assert found.bins[13] == Bin(13 / 15, 14 / 15, 2, pytest.approx(0.9), 0.5)  # type: ignore[arg-type]
    assert found.bins[0] == Bin(0, 1 / 15, 0, None, None)
    assert found.as_json()["calibration"][0] == {
        "low": 0, "high": 1 / 15, "words": 0, "confidence": None, "accuracy": None,
    }  # fmt: skip


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    edges = [k / 15 for k in range(16)]
    counts = [row.words for row in calibration(edges, [True] * 16).bins]
    assert counts == [2] + [1] * 14  # 0 and 1/15 share the first


def test_over_and_underconfident_words_of_one_bin_cancel_but_not_those_of_two() -> None:
    assert calibration([0.5, 0.5], [True, False]).ece == 0
    assert calibration([0.5, 0.6], [True, False]).ece == pytest.approx((0.5 + 0.6) / 2)
    assert calibration([0.0, 1.0], [False, True]).ece == 0
    assert calibration([0.0, 1.0], [True, False]).ece == 1


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], [True, False]), ([0.5, 0.5], [True])])
def test_error_of_nothing(sure: list[float], right: list[bool]) -> None:
    with pytest.raises(ValueError, match="confidences"):
        calibration(sure, right)


def logistic(temperature: float, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits / temperature))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.6])
def test_the_temperature_that_words_were_drawn_with_is_found(true: float) -> None:
    dice = np.random.default_rng(2)
    logits = dice.normal(1, 3, 20000)
    right = dice.random(20000) < logistic(true, logits)
    found = fit(lambda t: logistic(t, logits), right, dice.random(20000) < 0.5)
    assert found.temperature == pytest.approx(true, rel=0.05)
    assert found.after < 0.02
    assert found.before == calibration(logistic(1, logits), right).ece
    assert found.before < 0.02 if true == 1 else found.before > 2 * found.after
    assert found.words == 20000


def test_the_error_reported_is_that_of_words_not_fitted_to() -> None:
    # One half wants a cold temperature, the other a hot one: with each other's temperature both are far off.
    dice = np.random.default_rng(3)
    second = np.arange(4000) % 2 == 1
    logits = dice.normal(1, 3, 4000)
    true = np.where(second, 3.0, 1 / 3)
    right = dice.random(4000) < 1 / (1 + np.exp(-logits / true))
    found = fit(lambda t: logistic(t, logits), right, second)
    crossed = np.where(second, logistic(1 / 3, logits), logistic(3.0, logits))
    assert found.after == pytest.approx(calibration(crossed, right).ece, abs=0.02)
    assert found.after > 0.15


def test_a_certain_but_wrong_word_does_not_cost_infinity() -> None:
    sure = np.array([1.0] * 5 + [0.8] * 95)
    right = np.array([False] * 5 + [True] * 95)
    found = fit(lambda t: sure ** (1 / t), right, np.arange(100) % 2 == 1)
    assert np.isfinite([found.temperature, found.before, found.after]).all()


@pytest.mark.parametrize(("sure", "right", "temperature"), [(1e-30, True, 4), (0.5, False, 0.25), (0.5, True, 4)])
def test_words_that_are_all_alike_lead_to_the_end_of_the_range(sure: float, right: bool, temperature: float) -> None:
    words = np.full(100, sure)
    found = fit(lambda t: words ** (1 / t), np.full(100, right), np.arange(100) % 2 == 1)
    assert found.temperature == pytest.approx(temperature, rel=0.02)


def blurred(draw: Draw, count: int) -> list[tuple[bytes, str]]:
    """Words whose held-out tenth is read less surely than it deserves, while of the rest nothing is read right."""
    texts = [np.base_repr(1000 + 37 * i, 36).lower() for i in range(count)]
    return [
        (draw(text, blur=1 + i // 10 % 3), "wrong" if i % 10 or not i % 90 else text) for i, text in enumerate(texts)
    ]


def test_calibrating_brings_the_error_down_and_looks_at_held_out_words_only(
    bar_code: Draw, bar_code_model: Path, write_lmdb: Write, with_temperature: Callable[[float], Path]
) -> None:
    words = blurred(bar_code, 1500)
    path = write_lmdb(words)
    found = calibrate(open_engine(bar_code_model), [path])
    assert found.words == 150
    assert found.after < found.before
    # What the words in between are plays no part, nor does the temperature that the spec had.
    others = [word if i % 10 == 0 else (b"no picture", "x") for i, word in enumerate(words)]
    assert calibrate(open_engine(with_temperature(3.0)), [write_lmdb(others, "others")]) == found
    # Several data sets add up.
    parts = [write_lmdb(words[:500], "first"), write_lmdb(words[500:], "second")]
    assert calibrate(open_engine(bar_code_model), parts).temperature == found.temperature


def test_the_held_out_words_are_the_trainer_s(bar_code_model: Path, data_dir: Path) -> None:
    reader = LmdbReader(data_dir / "SVT_train_lmdb")
    labels, _ = usable_labels(reader, held_out=True)
    words = RealWords(reader.path, ModelSpec())
    assert labels == {i: words.label(i) for i in words.held_out.tolist()}


def test_words_that_say_nothing(bar_code: Draw, bar_code_model: Path, write_lmdb: Write) -> None:
    engine = open_engine(bar_code_model)
    cases: list[tuple[list[tuple[bytes, Any]], str]] = [
        ([(bar_code("a"), "a")] * 990, "at least 100 held-out words, and there are 99"),
        ([(bar_code("a"), "a")] * 1000, "all 100 held-out words are read right"),
        ([(bar_code("a"), "b")] * 1000, "all 100 held-out words are read wrong"),
    ]
    for number, (words, complaint) in enumerate(cases):
        with pytest.raises(DatasetError, match=complaint):
            calibrate(engine, [write_lmdb(words, f"words{number}")])
