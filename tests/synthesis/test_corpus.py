from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from crnn.charset import Charset
from crnn.ctc import required_steps
from crnn.errors import DatasetError
from crnn.protocols import alnum36
from crnn.synthesis.corpus import Corpus, Text

WORDS = {"the": 0.05, "coffee": 1e-4, "open": 1e-3, "street": 1e-3, "zebra": 1e-6, "don't": 1e-4}


def texts(count: int, corpus: Corpus | None = None) -> list[str]:
    corpus, dice = corpus or Corpus(WORDS), Random(7)
    return [corpus.sample(dice).drawn for _ in range(count)]


def test_every_text_has_a_label_the_network_can_write() -> None:
    for drawn in texts(5000):
        label = alnum36(drawn)
        assert label and required_steps(label) <= 26


def test_kinds_and_cases_have_their_shares() -> None:
    drawn = texts(5000)
    upper = sum(text.isupper() for text in drawn) / len(drawn)
    digits = sum(any(c.isdigit() for c in text) for text in drawn) / len(drawn)
    signs = sum(not text.isalnum() for text in drawn) / len(drawn)
    web = sum(".com" in text.lower() for text in drawn)
    assert 0.3 < upper < 0.6
    assert 0.08 < digits < 0.25
    assert 0.10 < signs < 0.45  # drawn, and not in the label
    assert web > 10


def test_words_come_by_the_square_root_of_their_frequency() -> None:
    corpus, dice = Corpus(WORDS), Random(1)
    counts = Counter(corpus.word(dice) for _ in range(20_000))
    assert set(counts) == set(WORDS)
    expected = (WORDS["the"] / WORDS["open"]) ** 0.5
    assert counts["the"] / counts["open"] == pytest.approx(expected, rel=0.15)


def test_punctuation_is_drawn_but_not_labelled() -> None:
    prices = [text for text in texts(5000) if text.startswith("$")]
    assert prices
    assert all("$" not in alnum36(text) for text in prices)


def test_word_lists_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Zürich\t3\nplain\n\n", encoding="utf-8")
    assert len(Corpus.from_file(path)) == 2
    path.write_text("word\tmany\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"words\.txt:1: 'many' is no number"):
        Corpus.from_file(path)
    with pytest.raises(DatasetError, match="empty"):
        Corpus({})
    with pytest.raises(DatasetError, match="cannot read"):
        Corpus.from_file(tmp_path / "none.txt")


@pytest.mark.parametrize("frequency", ["0", "-2", "nan", "inf"])
def test_a_frequency_is_a_finite_number_above_0(frequency: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(f"plain\t2\nword\t{frequency}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"words\.txt:2: '{frequency}' is no number above 0"):
        Corpus.from_file(tmp_path / "words.txt")


def test_words_that_are_all_too_long_are_refused() -> None:
    with pytest.raises(DatasetError, match="hardly ever be written"):
        Corpus({"привет" * 5: 1.0}, charset=Charset("приветПРИВЕТ"))


def test_how_long_words_may_be_goes_with_the_steps() -> None:
    serials = {f"{n:022}": 1.0 for n in range(500)}
    with pytest.raises(DatasetError, match=r"hardly any word of the list fits 26 time steps, 20 characters at most"):
        Corpus(serials)
    drawn = texts(300, Corpus(serials, steps=51))
    assert sum(text in serials for text in drawn) > 30
    assert all(required_steps(alnum36(text)) <= 51 for text in drawn)


def test_a_word_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfhello\r\nworld\t2\r\n")
    corpus, dice = Corpus.from_file(path, charset=Charset("helowrd")), Random(0)
    assert {corpus.word(dice) for _ in range(50)} == {"hello", "world"}


def test_small_capitals_are_labelled_as_they_are_seen() -> None:
    assert Corpus(WORDS).label(Text("Straße", True)) == "strasse"
    assert Corpus(WORDS).label(Text("Street", True)) == "street"


def test_a_list_without_a_word_that_can_be_written_is_not_called_empty(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("улица\nвыход\n\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"words\.txt: none of its 2 words has a letter or digit of 0123"):
        Corpus.from_file(words)
    words.write_text("\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="the word list is empty"):
        Corpus.from_file(words)
