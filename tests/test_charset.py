from __future__ import annotations

import pickle

import pytest

from crnn.charset import ALNUM36, Charset, CharsetDiff
from crnn.errors import LabelError, ModelError


def test_class_0_is_the_blank() -> None:
    assert (len(ALNUM36), ALNUM36.classes) == (36, 37)
    assert ALNUM36.encode("0az") == [1, 11, 36]
    assert ALNUM36.decode([1, 11, 36]) == "0az"


@pytest.mark.parametrize("text", ["", "aab", "zażółć"])
def test_decode_undoes_encode(text: str) -> None:
    charset = Charset("żabzółć")
    assert charset.can_encode(text)
    assert charset.decode(charset.encode(text)) == text


def test_unknown_characters_are_all_named() -> None:
    assert not ALNUM36.can_encode("a-é")
    with pytest.raises(LabelError) as error:
        ALNUM36.encode("a-éb-")
    assert "'a-éb-'" in str(error.value)
    assert "'-' (U+002D), 'é' (U+00E9)" in str(error.value)


@pytest.mark.parametrize("index", [0, -1, 37])
def test_a_class_that_is_no_character_is_refused(index: int) -> None:
    with pytest.raises(LabelError, match=str(index)):
        ALNUM36.decode([1, index])


@pytest.mark.parametrize(
    ("symbols", "complaint"),
    [
        ("", "empty"),
        ("abca", r"'a' \(U\+0061\) more than once"),
        ("abcde\N{COMBINING ACUTE ACCENT}", "two code points"),
        ("ab\ud800", r"\(U\+D800\) is half"),
        (["a", "ch"], "one string"),
    ],
)
def test_invalid_symbols_are_refused(symbols: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as error:
        Charset(symbols)
    str(error.value).encode()  # can be printed


def test_marks_that_have_no_composed_form_are_characters_of_their_own() -> None:
    thai = Charset("กขค" + "\N{THAI CHARACTER MAI EK}")
    assert thai.decode(thai.encode("ข่ก")) == "ข่ก"


def test_diff() -> None:
    assert Charset("abcd").diff(Charset("abxdc")) == CharsetDiff(added="x", removed="", moved="c")
    assert Charset("abcd").diff(Charset("bcd")) == CharsetDiff(added="", removed="a", moved="bcd")
    assert not ALNUM36.diff(Charset(ALNUM36.symbols))


def test_is_a_value() -> None:
    used = Charset("ab")
    used.encode("a")  # what it remembers for speed is no part of the value
    assert used == Charset("ab") != Charset("ba")
    assert hash(used) == hash(Charset("ab"))
    assert pickle.loads(pickle.dumps(used)) == used
