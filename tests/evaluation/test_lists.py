from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crnn.cli import app
from crnn.errors import OptionError
from crnn.evaluation.lists import Lists
from crnn.evaluation.saved import load_result

Draw = Callable[..., bytes]
Write = Callable[..., Path]

LABELS = ["Hello!", "range", "torn", "plate", "speed", "limit", "exit", "north", "tower", "bridge", "bridge"]


@pytest.fixture
def words(bar_code: Draw, write_lmdb: Write) -> Path:
    """Words of which three are drawn with a fault each."""
    drawn = ["hello", "rang", "tozn", "plate", "speed", "limit", "exit", "north", "tower", "bridge", "bridga"]
    return write_lmdb([(bar_code(text), label) for text, label in zip(drawn, LABELS, strict=True)])


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["evaluate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_lists_are_of_the_word_and_the_seed_alone() -> None:
    labels = [f"word{k}" for k in range(200)]
    lists = Lists(labels, 50, seed=3)
    for index in (0, 7, 199):
        drawn = lists.list_of(labels[index], index).words
        assert len(set(drawn)) == 50 and labels[index] in drawn and set(drawn) < set(labels)
        assert drawn == Lists(reversed(labels), 50, 3).list_of(labels[index], index).words
        assert drawn != Lists(labels, 50, 4).list_of(labels[index], index).words
    assert lists.list_of("word5", 5).words != lists.list_of("word5", 6).words
    assert set(Lists(labels, 200).list_of("word9", 9).words) == set(labels)
    # Every other label is as likely as any other one.
    counts = dict.fromkeys(labels, 0)
    for index in range(2000):
        for word in lists.list_of("word0", index).words:
            counts[word] += 1
    assert counts.pop("word0") == 2000
    assert min(counts.values()) > 400 and max(counts.values()) < 600
    for size, part in ((201, "200 different labels"), (1, "at least 2")):
        with pytest.raises(OptionError, match=part):
            Lists(labels, size)


def test_lists_in_the_command(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    plain, listed, other = tmp_path / "plain.json", tmp_path / "listed.json", tmp_path / "other.json"
    options = (words, "--model", bar_code_model, "--json")
    assert run(*options, plain)[0] == 0
    code, stdout, _ = run(*options, listed, "--lexicon-size", "6", "--seed", "5")
    assert code == 0
    assert "decoded with a list of 6 words for each word, our own lists (seed 5)" in stdout
    assert run(*options, other, "--lexicon-size", "6", "--seed", "5")[0] == 0
    before, after, again = (json.loads(file.read_text("utf-8")) for file in (plain, listed, other))
    assert before["overall"]["accuracy"] == pytest.approx(8 / 11) and after["overall"]["accuracy"] == 1.0
    assert "knowledge" not in before and "kept" not in before["datasets"][0]["words"][0]
    assert (after["knowledge"]["lists"]["size"], after["knowledge"]["lists"]["seed"]) == (6, 5)
    assert "not published" in after["knowledge"]["lists"]["origin"]
    entries = after["datasets"][0]["words"]
    assert entries == again["datasets"][0]["words"]
    faulty = next(word for word in entries if word["label"] == "range")
    assert faulty["text"] == "range" and faulty["kept"] < 0.01 < 0.9 < faulty["confidence"]
    assert load_result(listed)["knowledge"] == after["knowledge"]


def test_a_lexicon_in_the_command(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    lexicon, out = tmp_path / "words.txt", tmp_path / "r.json"
    lexicon.write_text("\n".join(["Range", "Bridge", "Plate", "x" * 20]))
    code, stdout, stderr = run(words, "--model", bar_code_model, "--lexicon", lexicon, "--json", out)
    assert code == 0 and "3 of 4 words can be read" in stdout and "too long" in stderr
    report = json.loads(out.read_text("utf-8"))
    texts = {word["label"]: word["text"] for word in report["datasets"][0]["words"]}
    assert texts["range"] == "range" and texts["bridge"] == "bridge" and texts["plate"] == "plate"
    assert set(texts.values()) == {"range", "bridge", "plate"}
    sha256 = hashlib.sha256(lexicon.read_bytes()).hexdigest()
    assert report["knowledge"]["lexicon"] == {"name": str(lexicon), "sha256": sha256, "words": 4, "readable": 3}
    code, stdout, _ = run(words, "--model", bar_code_model, "--characters", "plate", "--beam", "4")
    assert code == 0 and "decoded with the characters plate, a beam of 4" in stdout


def test_options_that_are_wrong(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("range\n")
    for options, part in (
        (("--lexicon-size", "11"), "10 different labels"),
        (("--lexicon-size", "3", "--lexicon", tmp_path / "words.txt"), "exclude each other"),
        (("--lexicon-size", "3", "--beam", "3"), "--beam does nothing"),
        (("--lexicon", tmp_path / "none.txt"), "cannot be read"),
        (("--seed", "3"), "--seed belongs to --lexicon-size"),
    ):
        code, _, stderr = run(words, "--model", bar_code_model, *options)
        assert code == 2 and part in stderr and stderr.count("\n") == 1, options
    code, _, stderr = run("--bins", tmp_path, "--lexicon", tmp_path / "words.txt")
    assert code == 2 and "not for --bins" in stderr
