from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.test_page import checked

from crnn.errors import OptionError
from crnn.evaluation.compare import Pairs, compare, p_text, ranked, verdict
from crnn.evaluation.evidence import Reopened, Seen
from crnn.evaluation.report import dataset_entry, report

NAMES = ("first.json", "second.json")


def result(*datasets: list[tuple[str, str, str]], sha256: str = "", **more: Any) -> dict[str, Any]:
    """A report over data sets of (key, label, text)."""
    entries = []
    for k, rows in enumerate(datasets):
        words = [
            {"key": key, "label": label, "text": text, "confidence": round(0.999 - 0.7 / (i + 1), 3)}
            for i, (key, label, text) in enumerate(rows)
        ]
        entries.append(dataset_entry(f"data/set{k}", sha256 or str(k) * 64, words, more.pop("skipped", []), None))
    return report(entries, {"model": None, "engine": None, "temperature": 1.0}, **more)


def rows_of(labels: list[str], right: list[bool]) -> list[tuple[str, str, str]]:
    keys = [f"image-{i:09d}" for i in range(1, len(labels) + 1)]
    return [(key, label, label if ok else "?") for key, label, ok in zip(keys, labels, right, strict=True)]


def test_p_is_the_exact_binomial_one() -> None:
    for only_a, only_b in [(0, 0), (0, 1), (5, 0), (3, 9), (9, 3), (40, 41), (120, 160), (700, 760)]:
        n = only_a + only_b
        tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
        exact = min(Fraction(1), Fraction(2 * tail, 2**n))
        assert Pairs(50, only_a, only_b, 7).p_value == pytest.approx(float(exact), rel=1e-9)
    assert Pairs(14, 5, 0, 22).p_value == 0.0625  # as R's exact2x2 gives for the table of the next test


def test_p_of_many_words() -> None:
    p = Pairs(10**6, 50_000, 51_000, 10**5).p_value
    normal = math.erfc((1000 - 1) / math.sqrt(101_000) / math.sqrt(2))  # with the correction for continuity
    assert p == pytest.approx(normal, rel=0.01)
    assert 0 <= Pairs(0, 0, 100_000, 0).p_value < 1e-300


def test_interval_of_published_tables() -> None:
    # Altman, Machin, Bryant and Gardner, "Statistics with Confidence", 2nd edition 2000, table 6.2
    low, high = Pairs(14, 0, 5, 22).interval
    assert (round(low, 3), round(high, 3)) == (0.011, 0.226)


@pytest.mark.parametrize("seed", range(50))
def test_interval_holds_the_difference_and_turns_with_the_sides(seed: int) -> None:
    draw = random.Random(seed)
    top = 10 ** draw.randint(0, 4)
    pairs = Pairs(*[draw.randint(k // 3, top) for k in range(4)])  # at least one word
    low, high = pairs.interval
    assert -1 <= low <= pairs.difference <= high <= 1
    swapped = Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither)
    assert swapped.interval == pytest.approx((-high, -low))
    assert swapped.p_value == pairs.p_value
    turned = Pairs(pairs.neither, pairs.only_b, pairs.only_a, pairs.both)  # wrong for right
    assert turned.interval == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("weights", [(80, 4, 6, 10), (50, 10, 20, 20), (96, 1, 1, 2)])
def test_interval_covers_the_truth_about_95_times_in_100(weights: tuple[int, ...]) -> None:
    draw = random.Random(5)
    truth = (weights[2] - weights[1]) / sum(weights)
    held = 0
    for _ in range(1000):
        found = draw.choices(range(4), weights, k=300)
        low, high = Pairs(*[found.count(kind) for kind in range(4)]).interval
        held += low <= truth <= high
    assert 930 <= held <= 990


def test_counts_by_data_set_and_overall() -> None:
    draw = random.Random(1)
    labels = [[f"w{k}x{i}" for i in range(60)] for k in range(2)]
    right = [[[draw.random() < 0.7 for _ in each] for each in labels] for _ in "ab"]
    a, b = (result(*[rows_of(each, ok) for each, ok in zip(labels, side, strict=True)]) for side in right)
    found = compare(a, b, NAMES)
    for k, data in enumerate(found["datasets"]):
        both = list(zip(right[0][k], right[1][k], strict=True))
        kinds = {"both": (True, True), "only_a": (True, False), "only_b": (False, True), "neither": (False, False)}
        assert {name: data[name] for name in kinds} == {name: both.count(kind) for name, kind in kinds.items()}
        assert data["words"] == 60 and data["accuracy"] == [a["datasets"][k]["accuracy"], b["datasets"][k]["accuracy"]]
        assert [word["label"] for word in data["differing"]] == [
            label for label, (x, y) in zip(labels[k], both, strict=True) if x != y
        ]
        for side in "ab":
            won = ranked(data["differing"], side)
            assert len(won) == data[f"only_{side}"]
            other = [word["b" if side == "a" else "a"]["confidence"] for word in won]
            assert other == sorted(other, reverse=True)
    for name in ("both", "only_a", "only_b", "neither", "words"):
        assert found["overall"][name] == sum(data[name] for data in found["datasets"])
    assert json.loads(json.dumps(found)) == found and found["schema"] == "crnn.comparison/1"
    mirrored = compare(b, a, NAMES[::-1])["overall"]
    assert mirrored["difference"] == -found["overall"]["difference"] and mirrored["p"] == found["overall"]["p"]


def test_order_of_words_and_data_sets_does_not_matter() -> None:
    rows = [rows_of([f"{c}{i}" for i in range(9)], [i % 3 > 0 for i in range(9)]) for c in "ab"]
    a, b = result(*rows), result(*[each[::-1] for each in rows])
    b["datasets"].reverse()
    found = compare(a, b, NAMES)
    assert found["overall"]["neither"] == 6 and found["overall"]["difference"] == 0 and found["notes"] == []


def test_results_of_files_and_of_a_data_set_are_of_the_same_words() -> None:
    rows = rows_of(["aa", "bb", "cc"], [True, False, True])
    files = [(f"test_{i}.bin", label, label) for i, (_, label, _) in enumerate(rows, 1)]
    found = compare(result(rows), result(files[::-1], sha256="f" * 64), NAMES)
    assert (found["overall"]["both"], found["overall"]["only_b"]) == (2, 1)
    assert len(found["notes"]) == 1 and "sha256 differs" in found["notes"][0]


def test_other_words_are_refused_by_name() -> None:
    rows = rows_of([f"w{i}" for i in range(6)], [True] * 6)
    whole = result(rows)
    relabelled = [(key, "other" if i == 2 else label, text) for i, (key, label, text) in enumerate(rows)]
    skipped = [{"key": rows[5][0], "reason": "damaged picture"}]
    for a, b, parts in [
        (whole, result(rows[:5]), ["first.json has words that second.json has not: image-000000006;"]),
        (result(rows[:1]), whole, ["second.json has words", "000000002, image-000000003, image-000000004 and 2 more"]),
        (whole, result(rows[:5], skipped=skipped), ["image-000000006 (damaged picture)"]),
        (whole, result(relabelled), ["image-000000003", "'w2' in first.json", "'other' in second.json"]),
        (whole, result(rows, rows), ["second.json is over data/set1, first.json is not"]),
        (result(rows, rows), whole, ["first.json is over data/set1, second.json is not"]),
        (whole, result(rows, protocol="raw"), ["protocol 'alnum36'", "'raw'"]),
        (whole, result(rows, subset="held-out"), ["subset 'all'"]),
        (result([*rows, rows[0]]), result([*rows, rows[0]]), ["two of its words have the same key"]),
        (whole, result([(f"word_{key}", label, text) for key, label, text in rows[:2]]), ["has words that"]),
    ]:
        with pytest.raises(OptionError) as caught:
            compare(a, b, NAMES)
        assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_verdict() -> None:
    assert verdict(Pairs(80, 0, 10, 10).as_json()).startswith("B reads better: B - A = +10.00 points (+")
    assert verdict(Pairs(80, 10, 0, 10).as_json()).startswith("A reads better: B - A = -10.00 points (-")
    assert verdict(Pairs(80, 5, 6, 9).as_json()).startswith("no difference beyond chance")
    assert [p_text(p) for p in (1e-9, 0.0321, 0.5, 1.0)] == ["< 0.0001", "= 0.032", "= 0.50", "= 1.00"]


def test_page() -> None:
    from crnn.evaluation.compare_page import picks, render

    labels = ["<b>x</b>", "two", "three", "four", "</style>", "six"]
    a = result(rows_of(labels, [True, True, False, True, False, True]), rows_of(labels[:2], [True, False]))
    b = result(rows_of(labels, [False, True, True, True, False, False]), rows_of(labels[:2], [True, True]))
    found = compare(a, b, ("<a>", "b"))
    shown = picks(found, 1)
    assert [len(shown[side]) for side in "ab"] == [1, 1]
    unseen = Reopened((Seen(problem="gone"), Seen(problem="gone")), None, ("<i>gone</i>",))
    page = checked(render(found, (a, b), shown, unseen))
    assert "<a> (A) and b (B)" in page.text and "<i>gone</i>" in page.text
    assert len(page.all("article")) == 2 and "all" in page.texts
    everything = picks(found, 10)
    seen = Reopened(tuple(Seen() for _ in range(4)), None, ())
    page = checked(render(found, (a, b), everything, seen))
    assert len(page.all("article")) == 4 and "<b>x</b>" in page.text
    assert Path(found["datasets"][0]["path"]).name in page.text
