"""Results of words that were read with knowledge of the texts, opened again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.test_page import checked
from typer.testing import CliRunner

from crnn.cli import app
from crnn.errors import DatasetError, OptionError
from crnn.evaluation import sources
from crnn.evaluation.evidence import Pick, reopen
from crnn.evaluation.page import render
from crnn.evaluation.saved import load_result
from crnn.protocols import alnum36

Draw = Callable[..., bytes]
Write = Callable[..., Path]

DRAWN = {"hello": "Hello!", "rang": "Range", "tozn": "torn", "plate": "plate", "bridga": "bridge", "c2": "cz"}


@pytest.fixture
def words(bar_code: Draw, write_lmdb: Write) -> Path:
    return write_lmdb([(bar_code(text), label) for text, label in DRAWN.items()])


@pytest.fixture
def known(tmp_path: Path) -> dict[str, Path]:
    lexicon, prior = tmp_path / "words.txt", tmp_path / "prior.tsv"
    lexicon.write_text("Range\nBridge\nPlate\nhel-lo\n")
    prior.write_text("bridge\t1\nplate\t1e-40\n")
    return {"lexicon": lexicon, "prior": prior}


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def evaluated(words: Path, model: Path, *options: object) -> dict[str, Any]:
    file = words.with_name("result.json")
    code, _, stderr = run("evaluate", words, "--model", model, "--engine", "onnxruntime", "--json", file, *options)
    assert code == 0, stderr
    return load_result(file)


def all_of(report: dict[str, Any]) -> list[Pick]:
    return [(0, word) for word in report["datasets"][0]["words"]]


@pytest.mark.parametrize(
    "options",
    [
        ("--lexicon", "words.txt"),
        ("--lexicon", "words.txt", "--prior", "prior.tsv", "--characters", "abdeghilnoprt"),
        ("--prior", "prior.tsv", "--prior-weight", "2"),
        ("--characters", "abcdeghlnoprtz"),
        ("--beam", "3"),
        ("--lexicon-size", "4", "--seed", "7"),
    ],
    ids=lambda options: "".join(options[::2]),
)
def test_words_are_read_again_as_they_were(
    options: Sequence[str],
    words: Path,
    known: dict[str, Path],
    bar_code_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    report = evaluated(words, bar_code_model, *options)
    monkeypatch.chdir("/")  # files are found beside the result
    picks = all_of(report)
    found = reopen(report, picks, beside=tmp_path)
    assert found.notes == ()
    for (_, word), seen in zip(picks, found.words, strict=True):
        assert seen.decoded is not None and alnum36(seen.decoded.text) == word["text"]
        assert seen.decoded.confidence == pytest.approx(word["confidence"], rel=1e-4)
        kept = pytest.approx(word["kept"], rel=1e-4) if "kept" in word else None
        assert seen.decoded.kept == kept
    assert [word["text"] for _, word in picks] != list(DRAWN) or "--beam" in options
    page = checked(render(report, picks, found))
    assert "Words were decoded with " in page.text and "Read again" not in page.text
    assert len(page.all("image")) == len(DRAWN)


@pytest.mark.parametrize("what", ["lexicon", "prior"])
def test_a_file_that_is_gone_or_has_changed(
    what: str, words: Path, known: dict[str, Path], bar_code_model: Path, tmp_path: Path
) -> None:
    report = evaluated(words, bar_code_model, f"--{what}", known[what])
    picks = all_of(report)
    moved = known[what].rename(tmp_path / "moved")
    for place, part in (None, f"the {what} is gone"), (known[what], f"not the {what} that words were read with"):
        if place is not None:
            place.write_text("other\t3\n" if what == "prior" else "other\n")
        found = reopen(report, picks, beside=tmp_path)
        assert len(found.notes) == 1 and found.notes[0].startswith("words are not read again")
        assert part in found.notes[0] and f"--{what} says where" in found.notes[0]
        assert all(seen.picture and seen.posterior is None for seen in found.words)
        page = checked(render(report, picks, found))
        assert part in page.text and "Read again" not in page.text
    given: dict[str, Any] = {what: moved}
    found = reopen(report, picks, beside=tmp_path, **given)
    assert found.notes == () and all(seen.posterior is not None for seen in found.words)
    with pytest.raises(OptionError, match=f"not the {what} that words were read with"):
        reopen(report, picks, beside=tmp_path, **{what: known[what]})  # type: ignore[arg-type]
    del report["knowledge"][what]["sha256"]  # words that came from no file
    assert f"--{what} names it" in reopen(report, picks, beside=tmp_path).notes[0]
    assert reopen(report, picks, beside=tmp_path, **given).notes == ()
    del report["knowledge"]
    with pytest.raises(OptionError, match=f"read without a {what}"):
        reopen(report, picks, beside=tmp_path, **given)


def test_lists_take_the_very_labels(
    words: Path, bar_code: Draw, bar_code_model: Path, write_lmdb: Write, tmp_path: Path
) -> None:
    report = evaluated(words, bar_code_model, "--lexicon-size", "4")
    more = write_lmdb([*[(bar_code(text), label) for text, label in DRAWN.items()], (bar_code("x"), "x")], "more")
    found = reopen(report, all_of(report), beside=tmp_path, datasets=[more])
    assert "words are found by key and label" in found.notes[0]
    assert "lists were drawn from the labels of this data set, which is another one now" in found.notes[1]
    assert all(seen.picture and seen.posterior is None for seen in found.words)
    words.rename(tmp_path / "moved")
    assert "which is gone" in reopen(report, all_of(report), beside=tmp_path).notes[1]
    assert reopen(report, all_of(report), beside=tmp_path, datasets=[tmp_path / "moved"]).notes == ()


def test_the_commands(words: Path, known: dict[str, Path], bar_code_model: Path, tmp_path: Path) -> None:
    evaluated(words, bar_code_model, "--lexicon", known["lexicon"])
    result, page = tmp_path / "result.json", tmp_path / "result.html"
    assert run("report", result)[2] == ""
    assert "kept" in checked(page.read_text("utf-8")).texts
    moved = known["lexicon"].rename(tmp_path / "moved.txt")
    assert "the lexicon is gone" in run("report", result)[2]
    assert run("report", result, "--lexicon", moved)[::2] == (0, "")
    code, _, stderr = run("report", result, "--lexicon", moved, "--prior", known["prior"])
    assert code == 2 and stderr.startswith("crnn: ") and "read without a prior" in stderr and stderr.count("\n") == 1
    out = tmp_path / "comparison.json"
    code, stdout, _ = run("compare", result, result, "--json", out)
    assert code == 0 and stdout.count("decoded with the lexicon") == 2
    assert json.loads(out.read_text("utf-8"))["a"]["knowledge"]["lexicon"]["words"] == 4


@pytest.mark.parametrize(
    ("knowledge", "part"),
    [
        ({"lexicon": {"name": "w.txt", "words": 3}}, "'readable' is missing"),
        ({"lexicon": {"name": 7, "words": 3, "readable": 3}}, "name is 7"),
        ({"lexicon": {"name": "w.txt", "sha256": 7, "words": 3, "readable": 3}}, "sha256 is 7"),
        ({"prior": {"name": "p.tsv", "words": 3, "weight": float("nan")}}, "weight of the prior is nan"),
        ({"lists": {"size": 2.5, "seed": 0, "drawn_from": 9}}, "size of the lists is 2.5"),
        ({"lists": {"size": 2, "seed": -1, "drawn_from": 9}}, "seed of the lists is -1"),
        ({"characters": 5}, "characters is 5"),
        ({"beam": "wide"}, "the beam is 'wide'"),
        (["lexicon"], "damaged"),
    ],
)
def test_knowledge_that_is_damaged(knowledge: Any, part: str, words: Path, bar_code_model: Path) -> None:
    report = evaluated(words, bar_code_model)
    file = words.with_name("result.json")
    file.write_text(json.dumps({**report, "knowledge": knowledge}))
    with pytest.raises(DatasetError, match=part):
        load_result(file)


def test_a_place_where_one_may_not_look_is_gone(tmp_path: Path) -> None:
    assert sources._place(f"/{'x' * 5000}", tmp_path) is None
