"""What is known, given to the Reader and to ``crnn read``: on real words."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import crnn
from crnn import Reader
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader
from crnn.decoding.lexicon import Lexicon, Prior
from crnn.errors import OptionError
from crnn.protocols import alnum36

SAMPLE = Path(crnn.__file__).parent / "samples" / "words_lmdb"


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    reader = LmdbReader(SAMPLE)
    return [reader.image_bytes(i) for i in range(len(reader))]


@pytest.fixture(scope="module")
def labels() -> list[str]:
    reader = LmdbReader(SAMPLE)
    return [reader.label(i) for i in range(len(reader))]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(engine="onnxruntime", threads=1)


def right(words: list[crnn.Word], labels: list[str]) -> int:
    return sum(alnum36(word.text) == alnum36(label) for word, label in zip(words, labels, strict=True))


def same(words: Iterable[crnn.Word], others: Iterable[crnn.Word]) -> bool:
    """But for the last digits, which the network computes differently in batches of another size."""
    return all(
        word.text == other.text
        and word.confidence == pytest.approx(other.confidence, abs=1e-4)
        and word.kept == pytest.approx(other.kept, abs=1e-4)
        for word, other in zip(words, others, strict=True)
    )


def test_a_lexicon_makes_more_words_right(reader: Reader, pictures: list[bytes], labels: list[str]) -> None:
    plain = list(reader.read_many(pictures))
    assert all(word.kept is None for word in plain)
    known = list(reader.read_many(pictures, lexicon=labels))
    assert {word.text for word in known} <= {label.strip() for label in labels}
    assert right(known, labels) >= max(right(plain, labels), 0.95 * len(labels))
    for word in known:
        assert word.kept is not None and 0 < word.kept <= 1 and 0 < word.confidence <= 1
        assert "".join(c.character for c in word.characters) == alnum36(word.text)
        assert all(0 <= c.span[0] < c.span[1] for c in word.characters)
    lexicon = Lexicon(labels)
    assert same([reader.read(picture, lexicon=lexicon) for picture in pictures[:5]], known[:5])
    assert list(reader.read_many(pictures)) == plain  # it was for those calls alone


def test_a_reader_of_its_own(reader: Reader, pictures: list[bytes], labels: list[str], tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join([*labels, "да"]), encoding="utf-8")
    own = Reader(engine="onnxruntime", threads=1, lexicon=path)
    expected = list(reader.read_many(pictures[:20], lexicon=labels))
    assert same(own.read_many(pictures[:20]), expected)
    assert same(pickle.loads(pickle.dumps(own)).read_many(pictures[:20]), expected)
    assert any(": да" in note for note in own.notes)
    other = own.read(pictures[0], lexicon=["alpha", "omega"])
    assert other.text in ("alpha", "omega") and other.kept is not None and other.kept < 0.01
    assert same([own.read(pictures[0])], expected[:1])


def test_a_prior_characters_and_a_beam(reader: Reader, pictures: list[bytes], labels: list[str]) -> None:
    pictures, labels = pictures[:40], labels[:40]
    plain = list(reader.read_many(pictures))
    prior = Reader(engine="onnxruntime", threads=1, prior=Prior(dict.fromkeys(labels, 1.0), 2.0))
    assert right(list(prior.read_many(pictures)), labels) > right(plain, labels)
    digits = Reader(engine="onnxruntime", threads=1, characters="0123456789")
    for word in digits.read_many(pictures):
        assert set(word.text) <= set("0123456789") and word.kept is not None
    wide = Reader(engine="onnxruntime", threads=1, beam=16)
    for word, other in zip(wide.read_many(pictures), plain, strict=True):
        assert word.confidence >= other.confidence - 1e-9


def test_what_is_no_lexicon(reader: Reader, pictures: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no words"):
        reader.read(pictures[0], lexicon=[])
    with pytest.raises(OptionError, match=r"none\.txt: cannot be read"):
        reader.read_many(pictures, lexicon=str(tmp_path / "none.txt"))  # at once, not at the first word
    with pytest.raises(OptionError, match="no 'X'"):
        Reader(engine="onnxruntime", threads=1, characters="X")


# The command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["read", *map(str, arguments)])


def test_the_command(tmp_path: Path, pictures: list[bytes], labels: list[str]) -> None:
    picture, words, prior = tmp_path / "0.png", tmp_path / "words.txt", tmp_path / "prior.tsv"
    picture.write_bytes(pictures[0])
    words.write_text("\n".join([labels[0].upper(), "alpha", "---"]))
    prior.write_text(f"{labels[0]}\t10\nalpha\t5\n")
    result = run(picture, "--lexicon", words, "--json", "--engine", "onnxruntime")
    assert result.exit_code == 0
    (word,) = json.loads(result.stdout)
    assert word["text"] == labels[0].upper() and 0 < word["kept"] <= 1 and list(word)[-2:] == ["kept", "characters"]
    assert "1 of 3 words left out, of which nothing can be written: ---" in " ".join(result.stderr.split())
    assert "kept" not in json.loads(run(picture, "--json").stdout)[0]
    for options in (("--prior", prior), ("--prior", prior, "--prior-weight", "1.5"), ("--beam", "8")):
        assert json.loads(run(picture, "--jsonl", *options).stdout)["text"] == alnum36(labels[0])
    digits = json.loads(run(picture, "--jsonl", "--characters", "0123456789").stdout)
    assert set(digits["text"]) <= set("0123456789") and digits["kept"] < 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--lexicon", "none.txt"), "none.txt: cannot be read"),
        (("--prior-weight", "1"), "--prior-weight belongs to --prior"),
        (("--characters", "ABC"), "the model has no 'A', 'B', 'C'"),
        (("--lexicon", "words.txt", "--beam", "3"), "only one of the two"),
    ],
)
def test_options_that_are_wrong(
    options: tuple[str, ...], part: str, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0.png").write_bytes(pictures[0])
    Path("words.txt").write_text("alpha\n")
    result = run("0.png", *options)
    assert result.exit_code == 2 and part in result.stderr
    assert result.stderr.startswith("crnn: ") and result.stderr.count("\n") == 1
