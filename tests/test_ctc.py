from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from crnn import ctc
from crnn.charset import ALNUM36, Charset
from crnn.errors import EngineError
from crnn.spec import DELIVERABLE, ModelSpec
from crnn.training.network import CRNN, LAYERS

Array = npt.NDArray[Any]
AB = Charset("ab")
DTRB = ModelSpec(trunk="dtrb", steps=24)


def log_softmax(logits: Array) -> Array:
    return torch.log_softmax(torch.from_numpy(logits), 2).numpy()


def random_logp(frames: int, words: int, classes: int, seed: int = 0) -> Array:
    return log_softmax(np.random.default_rng(seed).normal(size=(frames, words, classes)) * 2)


def collapse(path: tuple[int, ...], charset: Charset) -> str:
    return charset.decode([k for k, _ in itertools.groupby(path) if k != 0])


def path_logp(paths: list[tuple[int, ...]], classes: int) -> Array:
    """Nearly certain output whose best paths are ``paths``."""
    return log_softmax(np.eye(classes)[np.array(paths).T] * 20)


# Probability of texts


@pytest.mark.parametrize(("symbols", "frames"), [("ab", 5), ("abc", 4), ("a", 1)])
def test_probability_is_the_sum_over_all_paths(symbols: str, frames: int) -> None:
    charset = Charset(symbols)
    logp = random_logp(frames, 1, charset.classes)
    expected: dict[str, float] = {}
    for path in itertools.product(range(charset.classes), repeat=frames):
        text = collapse(path, charset)
        expected[text] = expected.get(text, 0.0) + math.exp(sum(logp[t, 0, k] for t, k in enumerate(path)))
    texts = ["".join(c) for length in range(frames + 2) for c in itertools.product(symbols, repeat=length)]
    assert set(expected) < set(texts)

    actual = ctc.log_probability(logp.repeat(len(texts), 1), texts, charset)

    assert actual.dtype == np.float64
    np.testing.assert_allclose(np.exp(actual), [expected.get(text, 0.0) for text in texts], rtol=1e-12)
    assert np.exp(actual).sum() == pytest.approx(1.0, abs=1e-12)
    assert [text for text, p in zip(texts, actual, strict=True) if p > -np.inf] == [t for t in texts if t in expected]


def test_probability_agrees_with_torch() -> None:
    texts = ["", "a", "regency", "aabbccdd", "0" * 13, "abcdefghijklmnopqrstuvwxyz", "pizza", "1"]
    logp = random_logp(26, len(texts), 37)
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(logp),
        torch.tensor([k for text in texts for k in ALNUM36.encode(text)]),
        torch.full((len(texts),), 26),
        torch.tensor([len(text) for text in texts]),
        reduction="none",
    )
    assert loss.dtype == torch.float64
    np.testing.assert_allclose(ctc.log_probability(logp, texts, ALNUM36), -loss.numpy(), rtol=1e-12)


def test_texts_that_no_path_gives_have_probability_0() -> None:
    texts = ["aaa", "aa", "abab", "abaab", "ab!", "a" * 1000, "", "AB"]
    logp = random_logp(4, len(texts), 3)
    assert np.isneginf(ctc.log_probability(logp, texts, AB)).tolist() == [
        True,
        False,
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert ctc.required_steps("") == 0
    assert [ctc.required_steps(text) for text in texts[:4]] == [5, 3, 4, 6]


def test_classes_of_probability_0() -> None:
    certain = np.full((3, 2, 3), -np.inf)
    certain[[0, 1, 2], 0, [1, 0, 1]] = 0.0  # a-a
    certain[:, 1, 2] = 0.0  # bbb
    assert ctc.log_probability(certain, ["aa", "a"], AB).tolist() == [0.0, -np.inf]
    aa, b = ctc.decode(certain, AB)
    assert (aa.text, aa.confidence, [c.score for c in aa.characters]) == ("aa", 1.0, [1.0, 1.0])
    assert b == ctc.Decoded("b", (ctc.Character("b", 1.0, (0, 2)),), 0.0)


def test_float32_is_summed_in_float64() -> None:
    logp = random_logp(26, 3, 37).astype(np.float32)
    texts = ["abc", "", "zz"]
    np.testing.assert_array_equal(
        ctc.log_probability(logp, texts, ALNUM36), ctc.log_probability(logp.astype(np.float64), texts, ALNUM36)
    )
    assert ctc.decode(logp, ALNUM36) == ctc.decode(logp.astype(np.float64), ALNUM36)


# Decoding


def test_greedy_text_is_the_collapsed_best_path() -> None:
    logp = random_logp(12, 500, 3)  # few classes: many runs, repeats and blanks
    expected = [collapse(tuple(path), AB) for path in logp.argmax(2).T]
    assert {"", "aa", "abab"} & set(expected)  # the sample has the difficult ones
    assert ctc.greedy(logp).texts(AB) == expected
    assert [word.text for word in ctc.decode(logp, AB)] == expected


def test_frames_and_scores_of_characters() -> None:
    # aa_ab_ : two runs of the same letter, two letters that touch, and a word of blanks.
    logp = path_logp([(1, 1, 0, 1, 2, 0), (2, 0, 0, 0, 0, 2), (0, 0, 0, 0, 0, 0)], 3)
    words = ctc.decode(logp, AB)
    assert [word.text for word in words] == ["aab", "bb", ""]
    assert [[c.character for c in word.characters] for word in words] == [["a", "a", "b"], ["b", "b"], []]
    assert [[c.frames for c in word.characters] for word in words] == [[(0, 1), (3, 3), (4, 4)], [(0, 0), (5, 5)], []]


def test_score_is_the_geometric_mean_of_the_posterior() -> None:
    probabilities = np.array([[0.1, 0.8, 0.1], [0.3, 0.5, 0.2], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6]])
    (word,) = ctc.decode(np.log(probabilities)[:, None].astype(np.float32), AB)
    assert word.text == "ab"
    assert [c.score for c in word.characters] == pytest.approx([math.sqrt(0.8 * 0.5), 0.6], rel=1e-6)


def test_decoded_probability_is_that_of_the_text() -> None:
    logp = random_logp(26, 20, 37).astype(np.float32)
    words = ctc.decode(logp, ALNUM36)
    expected = ctc.log_probability(logp, [word.text for word in words], ALNUM36)
    assert [word.log_probability for word in words] == pytest.approx(expected.tolist(), rel=1e-12)
    assert [word.confidence for word in words] == pytest.approx(np.exp(expected).tolist(), rel=1e-12)


def test_a_word_does_not_depend_on_its_batch() -> None:
    logp = np.concatenate([random_logp(26, 40, 37), path_logp([(1, 0) * 13], 37)], 1).astype(np.float32)
    together = ctc.decode(logp, ALNUM36)
    assert together == [ctc.decode(logp[:, n : n + 1], ALNUM36)[0] for n in range(41)]
    assert ctc.decode(logp[:, ::-1], ALNUM36) == together[::-1]  # also where the array isn't contiguous


# Temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits = np.random.default_rng(3).normal(size=(7, 3, 4)) * 3
    expected = log_softmax(logits / temperature)
    np.testing.assert_allclose(ctc.tempered(log_softmax(logits), temperature), expected, rtol=1e-12, atol=1e-15)

    # Word for word what decoding the other network would give, whose logits are divided.
    charset = Charset("abc")
    for word, other in zip(
        ctc.decode(log_softmax(logits), charset, temperature), ctc.decode(expected, charset), strict=True
    ):
        assert word.text == other.text
        assert word.log_probability == pytest.approx(other.log_probability)
        assert [c.frames for c in word.characters] == [c.frames for c in other.characters]
        assert [c.score for c in word.characters] == pytest.approx([c.score for c in other.characters])


def test_temperature_changes_confidence_but_never_the_text() -> None:
    logp = random_logp(26, 300, 37, 8).astype(np.float32)
    # Neighbours that a division rounds to one value: the lower class would win the tie.
    logp[4, 0] = -5.0
    logp[4, 0, 7] = np.nextafter(np.float32(-0.9), np.float32(0))
    logp[4, 0, 3] = np.float32(-0.9)
    plain = ctc.decode(logp, ALNUM36)
    assert len({word.text for word in plain}) == 300
    for temperature in (5e-324, 1e-3, 0.8, 1.25, 1e3, 1e308):
        words = ctc.decode(logp, ALNUM36, temperature)
        assert [word.text for word in words] == [word.text for word in plain]
        assert all(0 <= word.confidence <= 1 and not math.isnan(word.log_probability) for word in words)
        assert all(0 <= c.score <= 1 for word in words for c in word.characters)
        scores = [np.mean([c.score for word in decoded for c in word.characters]) for decoded in (words, plain)]
        assert scores[0] > scores[1] if temperature < 1 else scores[0] < scores[1]
    sure, unsure = ctc.decode(logp, ALNUM36, 1e-3)[1:], ctc.decode(logp, ALNUM36, 1e308)[1:]
    assert np.median([word.confidence for word in sure]) > 0.99
    assert all(c.score == pytest.approx(1 / 37) for word in unsure for c in word.characters)


def test_temperature_of_classes_of_probability_0() -> None:
    logp = np.full((3, 1, 3), -np.inf)
    logp[0, 0, 1] = logp[1, 0, 0] = 0.0  # certain of "a", then of the blank, then of nothing at all
    with np.errstate(all="raise"):
        changed = ctc.tempered(logp, 0.5)
    np.testing.assert_array_equal(changed, logp)
    assert ctc.decode(logp, AB, 0.5) == ctc.decode(logp, AB)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_do_not_exist(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        ctc.decode(random_logp(3, 1, 3), AB, temperature)


def test_no_words() -> None:
    nothing = np.empty((26, 0, 37), np.float32)
    assert ctc.decode(nothing, ALNUM36) == []
    assert ctc.greedy(nothing).texts(ALNUM36) == []
    assert ctc.log_probability(nothing, [], ALNUM36).shape == (0,)


def test_output_that_is_no_log_probabilities_is_refused() -> None:
    logp = random_logp(26, 2, 37)
    broken = logp.copy()
    broken[3, 1, 5] = np.nan
    for wrong, complaint in [
        (logp[0], r"shape \[2, 37\]"),
        (logp[:0], "shape"),
        (logp[:, :, 1:], "36 classes.* need 37"),
        (broken, "NaN"),
        (logp + 1, "log-softmax"),
    ]:
        with pytest.raises(EngineError, match=complaint):
            ctc.decode(wrong, ALNUM36)
    with pytest.raises(EngineError, match="NaN"):
        ctc.greedy(broken)
    with pytest.raises(ValueError, match="1 texts for 2 words"):
        ctc.log_probability(logp, ["a"], ALNUM36)


# Where the frames are


def receptive_field() -> tuple[float, int, int]:
    """Along the width: the centre of frame 0 in input columns, columns from frame to frame, columns one frame sees."""
    centre, pitch, size = 0.0, 1, 1

    def layer(kernel: int, stride: int, padding: int) -> None:
        nonlocal centre, pitch, size
        centre += ((kernel - 1) / 2 - padding) * pitch
        size += (kernel - 1) * pitch
        pitch *= stride

    def along_width(value: Any) -> int:
        return int(value[1] if isinstance(value, tuple) else value)

    for _, kernel, padding, pool in LAYERS:
        layer(kernel, 1, padding)
        if pool:
            layer(*map(along_width, pool))
    return centre, pitch, size


def test_frame_t_is_centred_on_column_4t_minus_half() -> None:
    centre, pitch, size = receptive_field()
    assert (centre, pitch) == (-0.5, 4)

    # The real network agrees: a column of NaN spoils exactly the frames that see it (float64, where torch convolves
    # without the transforms that would spread it).
    columns = [0, 25, 26, 52, 99]
    images = torch.zeros(len(columns), 1, 32, 100, dtype=torch.float64)
    for image, column in zip(images, columns, strict=True):
        image[:, :, column] = torch.nan
    with torch.no_grad():
        features = CRNN(batch_norm=False).double().features(images)
    spoilt = features.isnan().any(2)
    centres = centre + pitch * torch.arange(26)
    seen = (centres[:, None] - torch.tensor(columns)).abs() < size / 2
    assert torch.equal(spoilt, seen)
    assert not spoilt.all(0).any()


def test_span_of_frames() -> None:
    # Column i covers [i, i + 1): the centre 4t - 0.5 is the point 4t, and frame t owns [4t - 2, 4t + 2).
    assert ctc.frame_span(12, 12, DELIVERABLE, 100) == (46, 50)
    assert ctc.frame_span(3, 5, DELIVERABLE, 200) == (20, 44)
    assert ctc.frame_span(0, 0, DELIVERABLE, 50) == (0, 1)
    assert ctc.frame_span(25, 25, DELIVERABLE, 100) == (98, 100)


def test_frames_of_the_trunk_dtrb() -> None:
    # Where frame t really looks: it is spoilt by NaN in the columns that it sees.
    images = torch.zeros(100, 1, 32, 100, dtype=torch.float64)
    images[range(100), :, :, range(100)] = torch.nan
    with torch.no_grad():
        spoilt = CRNN(batch_norm=False, trunk="dtrb").double().features(images).isnan().any(2)
    assert len(spoilt) == DTRB.steps == 24
    for t in (8, 12, 15):  # far from the edges, which cut what it sees
        columns = spoilt[t].nonzero()
        low, high = ctc.frame_span(t, t, DTRB, 100)
        assert (low + high) / 2 == (columns.min() + columns.max() + 1) / 2 == 4 * t + 4
    assert ctc.frame_span(0, 0, DTRB, 100) == (2, 6)
    assert ctc.frame_span(23, 23, DTRB, 200) == (188, 196)


@pytest.mark.parametrize(("spec", "source"), [(DELIVERABLE, 77), (ModelSpec(width=130, steps=33), 130)])
def test_spans_tile_the_picture(spec: ModelSpec, source: int) -> None:
    spans = [ctc.frame_span(t, t, spec, source) for t in range(spec.steps)]
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(source)
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (3, 2), (0, 26)])
def test_frames_that_do_not_exist(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="frames"):
        ctc.frame_span(first, last, DELIVERABLE, 100)
