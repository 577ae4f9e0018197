"""What `crnn data check` finds: each kind on its own, and nothing on clean words."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.datasets.conftest import Draw

from crnn.charset import ALNUM36, Charset
from crnn.datasets.audit import KINDS, Audit, Rules, as_json, audit
from crnn.datasets.build import build
from crnn.datasets.formats import from_lmdb, open_words
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.datasets.stats import case, measure
from crnn.datasets.words import WordSource

RULES = Rules(26)


def data_set(path: Path, words: Sequence[tuple[bytes, str]]) -> WordSource:
    with LmdbWriter(path) as writer:
        for image, label in words:
            writer.add(image, label)
    return from_lmdb(path)


def kinds(report: Audit) -> list[tuple[str, int]]:
    return [(finding.kind, finding.place) for finding in report.findings]


def test_clean_words_have_no_findings(tmp_path: Path, draw: Draw) -> None:
    labels = ["a", "Co., Ltd", "日本", "A-1", "a" * 13, "abcdefghijklmnopqrstuvwxyz"]
    report = audit([data_set(tmp_path / "w", [(draw(label), label) for label in labels])], RULES)
    assert (kinds(report), report.words, report.errors) == ([], [6], 0)


@pytest.mark.parametrize(
    ("label", "rules", "kind"),
    [
        ("", RULES, "empty"),
        ("  ", RULES, "empty"),
        ("?!", Rules(26, ALNUM36), "dropped empty"),
        ("Well!", Rules(26, ALNUM36), "dropped"),
        ("Grass", Rules(26, ALNUM36), ""),
        ("Grass", Rules(26, Charset("Gras")), ""),
        ("GRASS", Rules(26, Charset("Gras")), "characters"),
        ("a" * 14, RULES, "infeasible"),  # a blank between each two: 27 steps
        ("Aa" * 7, RULES, ""),
        ("Aa" * 7, Rules(26, ALNUM36), "infeasible"),  # the protocol makes them the same letter
        ("Aa" * 7, Rules(33), ""),
        (" a", RULES, "spaces"),
        (unicodedata.normalize("NFD", "é"), RULES, "unicode"),
    ],
)
def test_labels(tmp_path: Path, draw: Draw, label: str, rules: Rules, kind: str) -> None:
    report = audit([data_set(tmp_path / "w", [(draw("x"), label), (draw("fine"), "Gras")])], rules)
    assert kinds(report) == [(found, 0) for found in kind.split()]
    assert report.errors == sum(KINDS[found][0] == "error" for found in kind.split())


def test_unknown_characters_are_counted_with_an_example(tmp_path: Path, draw: Draw) -> None:
    labels = ["abc", "a-b", "x-y-z", "ab\u200b"]
    source = data_set(tmp_path / "w", [(draw(label), label) for label in labels])
    found = as_json([source], Rules(26, Charset("abc")), audit([source], Rules(26, Charset("abc"))))
    counts = {entry["code_point"]: (entry["count"], entry["key"], entry["label"]) for entry in found["characters"]}
    assert counts["U+002D"] == (3, "image-000000002", "a-b")
    assert counts["U+200B"] == (1, "image-000000004", "ab\u200b")
    assert found["errors"] == 3


def test_pictures(tmp_path: Path, draw: Draw) -> None:
    words = [
        (draw("same"), "same"), (draw("same"), "same"), (draw("other"), "b"), (draw("other"), "c"),
        (draw("tall", (20, 60)), "tall"), (draw("I", (10, 60)), "I"), (draw("wide", (400, 20)), "wide"),
        (b"no picture", "x"),
    ]  # fmt: skip
    source = data_set(tmp_path / "w", words)
    report = audit([source], RULES)
    found = {("duplicate", 1), ("contradiction", 2), ("contradiction", 3), ("aspect", 4), ("aspect", 6)}
    assert set(kinds(report)) == found | {("unreadable", 7)}
    assert report.errors == 3
    assert report.unclean(source.path) == {1, 2, 3, 7}


def test_what_the_protocol_takes_for_the_same_label_is_no_contradiction(tmp_path: Path, draw: Draw) -> None:
    source = data_set(tmp_path / "w", [(draw("x"), "Grass"), (draw("x"), "GRASS"), (draw("y"), "y")])
    report = audit([source], Rules(26, ALNUM36))
    assert kinds(report) == [("duplicate", 1)]
    assert report.unclean(source.path) == {1}
    assert kinds(audit([source], RULES)) == [("contradiction", 0), ("contradiction", 1)]


def test_pictures_in_two_sets_and_the_clean_set(tmp_path: Path, data_dir: Path) -> None:
    """Real words: some copied, some stored anew as a smaller JPEG, into a second data set."""
    reader = LmdbReader(data_dir / "IC03_train_lmdb")
    first = data_set(tmp_path / "first", [(reader.image_bytes(i), reader.label(i)) for i in range(200)])
    second = []
    for i in range(200, 400):
        second.append((reader.image_bytes(i), reader.label(i)))
    second[10:12] = [(reader.image_bytes(i), "otherwise") for i in (3, 4)]
    again = [i for i in range(20, 60) if reader.image(i).width >= 100 and reader.image(i).height >= 30]
    for i in again:
        file = io.BytesIO()
        picture = reader.image(i)
        picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)).save(file, "JPEG", quality=60)
        second.append((file.getvalue(), reader.label(i)))
    sources = [first, data_set(tmp_path / "second", second)]
    report = audit(sources, RULES)
    between = [(kind, place) for kind, place in kinds(report) if kind in ("overlap", "near-duplicate")]
    assert [place for kind, place in between if kind == "overlap"] == [3, 4]
    near = {place for kind, place in between if kind == "near-duplicate"}
    assert near <= set(again) and len(near) > 0.9 * len(again) > 10
    assert all(f"image-{i + 1:09d}" == f.key for f in report.findings for i in [f.place])

    unclean = report.unclean(first.path)
    assert unclean >= near | {3, 4}
    build([first], tmp_path / "clean", skip=lambda source, place: place in unclean)
    assert [word for word in LmdbReader(tmp_path / "clean")] == [
        (reader.image_bytes(i), reader.label(i)) for i in range(200) if i not in unclean
    ]
    assert kinds(audit([from_lmdb(tmp_path / "clean"), sources[1]], RULES)) == []


def test_every_kind_that_can_be_found_is_described() -> None:
    assert {level for level, _ in KINDS.values()} == {"error", "warning"}
    assert [level for level, _ in KINDS.values()] == sorted(level for level, _ in KINDS.values())


def test_stats_count_what_is_there(tmp_path: Path, draw: Draw) -> None:
    words = [(draw("a", (40, 20)), "Ab"), (draw("b", (40, 10)), "Ab"), (draw("c", (80, 20)), "12"), (b"", "x")]
    found = measure(data_set(tmp_path / "w", words))
    assert (found["words"], found["left_out"]) == (3, {"unreadable": 1})
    assert found["labels"] == {
        "distinct": 2,
        "mean_length": 2.0,
        "lengths": {"2": 3},
        "cases": {"capitalised": 2, "digits": 1},
        "characters": {"A": 2, "b": 2, "1": 1, "2": 1},
    }
    assert found["pictures"]["width"] == {"p0": 40, "p5": 40, "p50": 40, "p95": 76, "p100": 80}
    assert found["pictures"]["aspect"]["p100"] == 4
    assert 0 < found["pictures"]["contrast"]["p50"] <= 1


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("abc", "lower"),
        ("ABC-1", "upper"),
        ("Abc", "capitalised"),
        ("aBC", "mixed"),
        ("12:30", "digits"),
        ("&", "other"),
        ("北京2", "other"),
    ],
)
def test_cases(label: str, name: str) -> None:
    assert case(label) == name


def test_stats_of_the_examples_of_every_format_agree(tmp_path: Path, draw: Draw) -> None:
    """The same words as pictures with names and as LMDB measure the same."""
    words = [(draw(label), label) for label in ("ab", "cd", "ef-g")]
    for image, label in words:
        (tmp_path / "names").mkdir(exist_ok=True)
        (tmp_path / "names" / f"{label}.png").write_bytes(image)
    one, other = measure(open_words(tmp_path / "names")), measure(data_set(tmp_path / "w", words))
    assert (one["labels"], one["pictures"]) == (other["labels"], other["pictures"])
