from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from crnn.charset import ALNUM36, Charset
from crnn.decoding.lexicon import Lexicon, Prior, as_lexicon, written
from crnn.errors import OptionError
from crnn.spec import DELIVERABLE, ModelSpec


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("regency", "regency"),
        ("Regency", "regency"),
        ("O'Neill & Co.", "oneillco"),
        ("Café", "cafe"),
        ("Cafe\u0301", "cafe"),
        ("ÅNGSTRÖM", "angstrom"),
        ("Москва", None),
        ("groß", None),
        ("№ 7", "no7"),
        ("½", None),
        ("€", ""),
        ("--", ""),
        ("", ""),
    ],
)
def test_what_a_network_writes_for_a_word(word: str, text: str | None) -> None:
    assert written(word, ALNUM36) == text


def test_what_the_charset_has_stays() -> None:
    assert written("Café-1", Charset("Cafeé-1")) == "Café-1"
    assert written("Cafe\u0301", Charset("Cafeé")) == "Café"
    assert written("plate", Charset("PLATE")) == "PLATE"
    assert written("A B", Charset("AB ")) == "A B"


def test_words_that_a_model_cannot_give_are_named() -> None:
    lexicon = Lexicon(["Its", " it's ", "its", "", "Москва", "---", "x" * 14, "ab" * 13, "Its"])
    assert len(lexicon) == 7
    entries, notes = lexicon.readable(DELIVERABLE)
    assert entries == {"its": "Its", "ab" * 13: "ab" * 13}
    assert len(notes) == 4
    text = "\n".join(notes)
    assert "1 of 7 words left out, with characters that the model does not have: Москва" in text
    assert "1 of 7 words left out, of which nothing can be written: ---" in text
    assert "too long for the model's 26 time steps: xxxxxxxxxxxxxx" in text
    assert "2 of 7 words left out, that the model cannot tell from others, which are given instead" in text
    assert "instead: it's (Its), its (Its)" in text
    assert lexicon.readable(ModelSpec(width=200, steps=51)).entries.keys() == {"its", "ab" * 13, "x" * 14}
    with pytest.raises(OptionError, match="no word of 2 can be read; 2 of 2 words left out, with characters"):
        Lexicon(["да", "нет"]).readable(DELIVERABLE)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffNew York\r\n\r\n  plate \nCafé".encode())
    lexicon = as_lexicon(str(path))
    assert lexicon.words == ("New York", "plate", "Café") and lexicon.name == str(path)
    assert as_lexicon(path).words == as_lexicon(iter(lexicon.words)).words == lexicon.words
    assert as_lexicon(lexicon) is lexicon
    assert pickle.loads(pickle.dumps(lexicon)).words == lexicon.words
    path.write_text("plate\t3\nNew York\t4e2\nplate\t2\n")
    assert dict(Prior.from_file(path, 0.2).frequencies) == {"plate": 5, "New York": 400}
    with pytest.raises(OptionError, match=r"words\.txt: line 1 holds a tab"):
        Lexicon.from_file(path)


@pytest.mark.parametrize("line", ["plate", "plate 3", "plate\tmany", "plate\t-1", "plate\t0", "plate\tnan", "\t3"])
def test_lines_that_are_no_frequencies(line: str, tmp_path: Path) -> None:
    path = tmp_path / "prior.tsv"
    path.write_text(f"sign\t3\n\n{line}\n")
    with pytest.raises(OptionError, match=r"prior\.tsv: line 3 is not WORD<tab>FREQUENCY"):
        Prior.from_file(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Café".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n \n")
    for read in (Lexicon.from_file, Prior.from_file):
        with pytest.raises(OptionError, match="cannot be read"):
            read(tmp_path / "none.txt")
        with pytest.raises(OptionError, match=r"not UTF-8 \(byte 3\)"):
            read(tmp_path / "latin.txt")
        with pytest.raises(OptionError, match=r"empty\.txt: no words"):
            read(tmp_path / "empty.txt")


def test_what_is_no_lexicon_and_no_prior() -> None:
    for words, part in (("plate", "from_file"), ([], "no words"), (["a", 3], "3 is no word, but a int")):
        with pytest.raises(OptionError, match=part):
            Lexicon(words)  # type: ignore[arg-type]
    for frequencies, weight in (({}, 0.5), ({"a": 0.0}, 0.5), ({"a": float("inf")}, 0.5), ({"a": 1.0}, -1.0)):
        with pytest.raises(OptionError):
            Prior(frequencies, weight)
    with pytest.raises(OptionError, match="none of its 1 words can be written"):
        Prior({"да": 1.0}).weights(ALNUM36)


def test_frequencies_of_what_is_written_alike_are_added() -> None:
    weights, other = Prior({"Its": 2.0, "it's": 6.0, "plate": 2.0, "да": 9.0}, 1.0).weights(ALNUM36)
    assert weights == {"its": 1.0, "plate": 0.25} and other == 0.125
    weights, other = Prior({"a": 1e300, "b": 1e-300}, 9.0).weights(ALNUM36)
    assert 0 < other <= weights["b"] < weights["a"] == 1  # a text never becomes impossible
