from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn import ctc
from crnn.charset import Charset
from crnn.decoding import choice, search
from crnn.decoding.decoder import Decoder
from crnn.decoding.lexicon import Lexicon, Prior
from crnn.errors import EngineError, OptionError
from crnn.spec import DELIVERABLE, ModelSpec

Array = NDArray[Any]
Posterior = Callable[..., Array]
AddUp = Callable[[Array, str], dict[str, float]]

AB = ModelSpec(charset=Charset("ab"))
ABC = ModelSpec(charset=Charset("abc"))


def random_words(count: int, symbols: str, longest: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    words = ("".join(rng.choice(list(symbols), rng.integers(1, longest + 1)).tolist()) for _ in range(count))
    return list(dict.fromkeys(words))


def every_score(logp: Array, words: list[str], spec: ModelSpec) -> Array:
    """float64[N, W]: the exact log-probability of every word for every picture."""
    scores = [ctc.log_probability(logp[:, [n] * len(words)], words, spec.charset) for n in range(logp.shape[1])]
    return np.array(scores)


# A lexicon


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 6.0])
@pytest.mark.parametrize(("symbols", "longest", "count"), [("abc", 9, 400), ("0123456789abcdefghijkl", 12, 1500)])
def test_the_word_is_the_most_probable_of_all(
    posterior: Posterior, symbols: str, longest: int, count: int, sharpness: float
) -> None:
    spec = ModelSpec(charset=Charset(symbols))
    words = random_words(count, symbols, longest)
    logp = posterior(26, 24, len(symbols) + 1, sharpness)
    scores = every_score(logp, words, spec)
    expected = [words[best] for best in scores.argmax(axis=1)]
    assert len(set(expected)) > 3
    readings = Decoder(spec, Lexicon(words)).decode(logp)
    assert [word.text for word in readings] == expected
    # Confidences are shares in all of the lexicon, but for words a hundred times less probable than the best.
    chances = np.exp(scores)
    near = np.where(chances >= 0.01 * chances.max(axis=1, keepdims=True), chances, 0.0)
    assert [word.kept for word in readings] == pytest.approx(near.sum(axis=1).tolist(), rel=1e-9)
    assert [word.confidence for word in readings] == pytest.approx((near.max(axis=1) / near.sum(axis=1)).tolist())


def test_a_word_does_not_depend_on_its_batch(posterior: Posterior) -> None:
    words = random_words(300, "abc", 8)
    logp = np.concatenate([posterior(26, 20, 4, s) for s in (0.5, 5.0)], axis=1).astype(np.float32)
    for decoder in (
        Decoder(ABC, Lexicon(words)),
        Decoder(ABC, prior=Prior({word: 1.0 + len(word) for word in words})),
        Decoder(ABC, beam=3),
        Decoder(ABC, characters="ac"),
    ):
        together = decoder.decode(logp)
        assert len({word.text for word in together}) > 5
        assert [decoder.decode(logp[:, n : n + 1])[0] for n in range(40)] == together
        assert decoder.decode(logp[:, ::-1]) == together[::-1]
        assert decoder.decode(logp[:, :0]) == []


def test_probabilities_that_are_no_numbers_any_more(posterior: Posterior) -> None:
    # A sure network, and words that it is sure are not there: down to probabilities of 1e-3000.
    logits = posterior(26, 6, 4) * np.array([1, 30, 60, 120, 300, 900])[None, :, None]
    logits -= logits.max(axis=2, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    words = random_words(60, "abc", 9)
    likely = every_score(logp, words, ABC)[1:].max(axis=0)
    words = [word for word, top in zip(words, likely, strict=True) if top < -20]
    scores = every_score(logp, words, ABC)
    assert scores.max(axis=1).min() < math.log(10) * -600
    readings = Decoder(ABC, Lexicon(words)).decode(logp)
    assert [word.text for word in readings] == [words[best] for best in scores.argmax(axis=1)]
    assert all(0.5 <= word.confidence <= 1 and word.kept is not None and word.kept < 1e-5 for word in readings[2:])


def test_words_that_cannot_be_at_all() -> None:
    certain = np.full((26, 1, 4), -np.inf)
    certain[:, 0, 1] = 0.0
    (word,) = Decoder(ABC, Lexicon(["b", "cc"])).decode(certain)
    assert (word.text, word.characters, word.confidence, word.kept) == ("", (), 0.0, 0.0)
    (word,) = Decoder(ABC, Lexicon(["b", "a"])).decode(certain)
    assert (word.text, word.confidence, word.kept) == ("a", 1.0, 1.0)


def test_searches_that_would_take_too_much_memory_are_parted(
    posterior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = random_words(600, "abc", 9)
    logp = np.concatenate([posterior(26, 16, 4, s) for s in (0.1, 3.0)], axis=1)
    prior = Prior({word: 1.0 + len(word) for word in words})
    decoders = (Decoder(ABC, Lexicon(words)), Decoder(ABC, Lexicon(words), prior), Decoder(ABC, prior=prior, beam=5))
    expected = [decoder.decode(logp) for decoder in decoders]
    assert len({word.text for word in expected[0]}) > 5
    crowded = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal crowded
        try:
            return unparted(*arguments, **options)
        except search._Crowded:
            crowded += 1
            raise

    unparted = search.search
    monkeypatch.setattr(search, "search", counted)
    for name, value in (("_CROWD", 2000), ("_WIDE", 10)):
        monkeypatch.setattr(search, name, value)
    monkeypatch.setattr(choice, "_ONCE", 300)
    for decoder, readings in zip(decoders, expected, strict=True):
        for found, wanted in zip(decoder.decode(logp), readings, strict=True):
            assert (found.text, found.characters) == (wanted.text, wanted.characters)
            assert found.confidence == pytest.approx(wanted.confidence, rel=1e-9)
            assert (found.kept or 0.0) == pytest.approx(wanted.kept or 0.0, rel=1e-9)
    assert crowded > 10


def test_the_lexicons_spelling_and_the_networks_characters() -> None:
    logp = np.full((26, 1, 37), -9.0)
    logp[:, 0, 0] = np.log1p(-36 * np.exp(-9.0))
    for frame, character in ((3, "o"), (7, "n"), (11, "e"), (15, "i"), (19, "l"), (23, "l")):
        logp[frame, 0, [0, DELIVERABLE.charset.encode(character)[0]]] = logp[frame, 0, [1, 0]]
    (word,) = Decoder(DELIVERABLE, Lexicon(["Oneida", "O'Neill", "ONEILL", "on"])).decode(logp)
    assert word.text == "O'Neill"
    assert [c.character for c in word.characters] == list("oneill")
    assert [c.frames[0] for c in word.characters] == [3, 7, 11, 15, 19, 23]


def test_the_temperature_changes_confidences_only(posterior: Posterior) -> None:
    words = random_words(300, "abc", 8)
    logp = posterior(26, 60, 4, 1.5)
    frequencies = {word: 1.0 + len(word) for word in words}
    for options in (
        {"lexicon": Lexicon(words)},
        {"lexicon": Lexicon(words), "prior": Prior(frequencies)},
        {"prior": Prior(frequencies)},
        {"beam": 8},
        {"characters": "ab"},
    ):
        plain, hot = (Decoder(replace(ABC, temperature=t), **options).decode(logp) for t in (1.0, 3.0))
        assert [word.text for word in plain] == [word.text for word in hot]
        assert np.mean([word.confidence for word in plain]) > np.mean([word.confidence for word in hot])
        assert [[c.frames for c in word.characters] for word in plain] == [
            [c.frames for c in word.characters] for word in hot
        ]


# Any text


def test_a_wide_beam_finds_the_most_probable_text(posterior: Posterior, texts_by_paths: AddUp) -> None:
    logp = posterior(6, 60, 3, 1.2)
    better = 0
    greedy = ctc.decode(logp, AB.charset)
    for n, word in enumerate(Decoder(AB, beam=100).decode(logp)):
        texts = texts_by_paths(logp[:, n], "ab")
        assert texts[word.text] == pytest.approx(max(texts.values()))
        assert word.confidence == pytest.approx(texts[word.text])
        better += word.text != greedy[n].text
    assert better > 5  # the best path's text is another one


def test_a_beam_is_never_worse_than_the_best_path(posterior: Posterior) -> None:
    logp = posterior(26, 80, 37, 3.0)
    greedy = ctc.decode(logp, DELIVERABLE.charset)
    sums = []
    for beam in (1, 4, 32):
        words = Decoder(DELIVERABLE, beam=beam).decode(logp)
        assert all(word.confidence >= plain.confidence * (1 - 1e-9) for word, plain in zip(words, greedy, strict=True))
        sums.append(sum(word.confidence for word in words))
    assert sum(word.confidence for word in greedy) < sums[0] <= sums[1] <= sums[2]


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_a_prior_weighs_every_text(posterior: Posterior, texts_by_paths: AddUp, weight: float) -> None:
    frequencies = {"ab": 9.0, "ba": 5.0, "a": 12.0, "bb": 4.0, "abab": 2.0}
    other = 1.0  # half of the rarest
    logp = posterior(5, 60, 3, 2.0, seed=1)
    words = Decoder(AB, prior=Prior(frequencies, weight), beam=100).decode(logp)
    assert len({word.text for word in words}) > 2
    for n, word in enumerate(words):
        texts = texts_by_paths(logp[:, n], "ab")
        scores = {text: p * frequencies.get(text, other) ** weight for text, p in texts.items()}
        assert scores[word.text] == pytest.approx(max(scores.values()))
        assert word.kept is None
        # As exact as words that count for less than a hundredth of the best one leave it.
        assert word.confidence == pytest.approx(scores[word.text] / sum(scores.values()), rel=0.03)


def test_a_prior_within_a_lexicon(posterior: Posterior) -> None:
    words = random_words(100, "abc", 6)
    frequencies = {word: float(1 + k) ** 2 for k, word in enumerate(words[:50])}
    logp = posterior(26, 50, 4, 1.0)
    counts = np.array([frequencies.get(word, 0.5) for word in words])
    expected = (every_score(logp, words, ABC) + 0.7 * np.log(counts)).argmax(axis=1)
    read = Decoder(ABC, Lexicon(words), Prior(frequencies, 0.7)).decode(logp)
    assert [word.text for word in read] == [words[k] for k in expected]
    plain = Decoder(ABC, Lexicon(words)).decode(logp)
    assert sum(a.text != b.text for a, b in zip(read, plain, strict=True)) > 5
    # What the picture shows has nothing to do with how frequent it is.
    assert [word.kept for word in read] == pytest.approx([word.kept for word in plain], rel=1e-9)


def test_a_word_of_a_prior_that_no_picture_can_show_takes_no_room(posterior: Posterior) -> None:
    logp = posterior(26, 5, 4, 1.0)
    with_it, without = ({**dict.fromkeys(random_words(50, "abc", 6), 2.0), **more} for more in ({"ab" * 500: 1.0}, {}))
    decoder = Decoder(ABC, prior=Prior(with_it))
    assert decoder._words is not None and decoder._words.codes.shape[1] <= 26
    assert [word.text for word in decoder.decode(logp)] == [
        word.text for word in Decoder(ABC, prior=Prior({**without, "c" * 13: 1.0})).decode(logp)
    ]


# Allowed characters


def test_allowed_characters_are_a_condition(posterior: Posterior, texts_by_paths: AddUp) -> None:
    logp = posterior(5, 30, 4, 1.5)
    for n, word in enumerate(Decoder(ABC, characters="ca").decode(logp)):
        texts = texts_by_paths(logp[:, n], "abc")
        kept = sum(p for text, p in texts.items() if "b" not in text)
        assert set(word.text) <= set("ac")
        assert word.kept == pytest.approx(kept)
        assert word.confidence == pytest.approx(texts[word.text] / kept)
        masked = logp[:, n].copy()
        masked[:, 2] = -np.inf
        assert word.text == ctc.greedy(masked[:, None]).texts(ABC.charset)[0]


def test_allowed_characters_within_a_lexicon(posterior: Posterior) -> None:
    words = random_words(200, "abc", 6)
    logp = posterior(26, 30, 4, 1.0)
    decoder = Decoder(ABC, Lexicon(words), characters="ab")
    allowed = [word for word in words if "c" not in word]
    scores = every_score(logp, allowed, ABC)
    read = decoder.decode(logp)
    assert [word.text for word in read] == [allowed[k] for k in scores.argmax(axis=1)]
    assert any("with characters that are not allowed" in note for note in decoder.notes)
    for word, row in zip(read, scores, strict=True):
        assert word.kept is not None
        assert word.confidence * word.kept == pytest.approx(math.exp(row.max()))


def test_all_characters_allowed_change_nothing(posterior: Posterior) -> None:
    logp = posterior(26, 30, 4, 2.0)
    plain, masked = Decoder(ABC).decode(logp), Decoder(ABC, characters="cba").decode(logp)
    assert [(word.text, word.confidence, word.characters) for word in plain] == [
        (word.text, word.confidence, word.characters) for word in masked
    ]
    assert {word.kept for word in masked} == {1.0} and {word.kept for word in plain} == {None}
    assert [(word.text, word.confidence) for word in plain] == [
        (word.text, word.confidence) for word in ctc.decode(logp, ABC.charset)
    ]


# What cannot be


def test_what_cannot_be_combined_or_read(posterior: Posterior) -> None:
    cases: list[tuple[Callable[[], Decoder], str]] = [
        (lambda: Decoder(ABC, beam=0), "at least 1"),
        (lambda: Decoder(ABC, Lexicon(["a"]), beam=2), "only one of the two"),
        (lambda: Decoder(ABC, beam=2).with_lexicon(Lexicon(["a"])), "only one of the two"),
        (lambda: Decoder(ABC, characters=""), "at least one"),
        (lambda: Decoder(ABC, characters="ab1"), "no '1'"),
        (lambda: Decoder(ABC, Lexicon(["b", "cb"]), characters="a"), "no word of 2 can be read"),
        (lambda: Decoder(ABC, prior=Prior({"ab" * 14: 1.0, "a" * 14: 2.0})), "too long for the model's 26 steps"),
    ]
    for make, part in cases:
        with pytest.raises(OptionError, match=part):
            make()
    with pytest.raises(EngineError, match="classes"):
        Decoder(AB, Lexicon(["a"])).decode(posterior(5, 1, 9))


@pytest.mark.parametrize("options", [{}, {"beam": 4}, {"prior": Prior({"5": 1.0})}])
def test_a_picture_that_can_show_no_text_has_none(options: dict[str, Any]) -> None:
    """Frames in which neither blank nor an allowed character can be; the picture after it keeps its own text."""
    logp = np.full((26, 3, 37), -np.inf)
    logp[:, :, 0] = 0.0
    for frame, word, symbol in ((5, 0, "a"), (9, 0, "2"), (11, 0, "3"), (7, 1, "5")):
        logp[frame, word] = -np.inf
        logp[frame, word, DELIVERABLE.charset.encode(symbol)[0]] = 0.0
    first, second, third = Decoder(DELIVERABLE, characters="0123456789", **options).decode(logp)
    assert (first.text, first.characters, first.confidence, first.kept) == ("", (), 0.0, 0.0)
    assert (second.text, second.confidence, second.kept) == ("5", 1.0, 1.0) and len(second.characters) == 1
    assert (third.text, third.confidence) == ("", 1.0)
