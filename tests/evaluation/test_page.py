from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein

from crnn.ctc import frame_span
from crnn.engines import open_engine
from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.evaluation import breakdown
from crnn.evaluation.evaluate import evaluate
from crnn.evaluation.evidence import Reopened, Seen, reopen
from crnn.evaluation.markup import visible
from crnn.evaluation.page import render, worst
from crnn.evaluation.report import dataset_entry, report
from crnn.evaluation.saved import load_result, word_number

Draw = Callable[..., bytes]
Write = Callable[..., Path]

VOID = {"meta", "br"}
NOWHERE = Path("/nowhere")


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def checked(text: str) -> Page:
    """The page, once it is known to load and run nothing, and to be readable without seeing it."""
    assert text.startswith("<!doctype html>")
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            if name in attributes:
                inside = attributes[name].startswith("#") and attributes[name][1:] in ids
                assert inside or (tag == "image" and attributes[name].startswith("data:image/"))
        assert "url(" not in attributes.get("style", "")
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all(heading["scope"] in ("col", "row") for heading in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    policy = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    return page


def words_of(pairs: list[tuple[str, str]], seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {"key": f"image-{i:09d}", "label": label, "text": text, "confidence": round(draw.random(), 3)}
        for i, (label, text) in enumerate(pairs, 1)
    ]


def report_of(pairs: list[tuple[str, str]], path: str = "words_lmdb", skipped: int = 0) -> dict[str, Any]:
    left_out = [{"key": f"k{i}", "reason": "<b>damaged</b>"} for i in range(skipped)]
    source = {"model": None, "engine": None, "temperature": 1.0}
    return report([dataset_entry(path, "0" * 64, words_of(pairs), left_out, 1.0)], source, protocol="raw")


def unseen(loaded: dict[str, Any], count: int = 5) -> str:
    picks = worst(loaded, count)
    return render(loaded, picks, Reopened(tuple(Seen(problem="gone") for _ in picks), None, ("<i>gone</i>",)))


def random_pairs(count: int, alphabet: str, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        label = "".join(draw.choices(alphabet, k=draw.randint(1, 9)))
        text = "".join(c for c in label if draw.random() < 0.9)
        text = "".join(draw.choice(alphabet) if draw.random() < 0.2 else c for c in text)
        pairs.append((label, text if draw.random() < 0.6 else label))
    return pairs


def test_labels_are_text_whatever_is_in_them() -> None:
    hostile = ["<script>alert(1)</script>", "</style><img src=x onerror=y>", "\"'><svg/onload=z>", "&lt;&#60;", "]]>"]
    strange = ["\x00\x1b[31m", "\u202egnp.exe", "a\u0301\u200d", "\ud7ff", "\U0001f600", "漢字", "   "]
    pairs = [(label, f"{label[::-1]}!") for label in hostile + strange]
    loaded = report_of(pairs, path='lmdb"><script>x</script>', skipped=2)
    page = checked(unseen(loaded, 50))
    plain = checked(unseen(report_of([("ab", "ba")] * len(pairs), skipped=2), 50))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements} | {"bdi"}
    assert len(page.all("article")) == len(pairs) == len(plain.all("article"))
    for label, text in pairs:
        assert visible(label) in page.text and visible(text) in page.text
    assert "\x00" not in page.text and "\u202e" not in page.text and "<U+202E>" in page.text
    assert "<i>gone</i>" in page.text and "<b>damaged</b>" in page.text


def test_size_is_bounded() -> None:
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    small = unseen(report_of(random_pairs(400, alphabet)), 10)
    large = unseen(report_of(random_pairs(4000, alphabet), skipped=500), 10)
    assert len(checked(large).all("article")) == 10
    assert len(large) < 1.6 * len(small)
    assert len(unseen(report_of([("a" * 100_000, "b")]))) < 100_000


def test_a_page_without_errors() -> None:
    page = checked(unseen(report_of([("a", "a")])))
    assert "0 of 1 words were read wrongly." in page.text and "every word was read without a fault" in page.text
    assert not page.all("article")


@pytest.mark.parametrize("seed", range(5))
def test_alignment_accounts_for_every_character(seed: int) -> None:
    pairs = random_pairs(300, "abcd", seed)
    found = breakdown.align(words_of(pairs))
    counts = found.characters
    operations = found.operations
    for character, count in counts.items():
        assert count.labels == sum(label.count(character) for label, _ in pairs)
        assert count.read == sum(text.count(character) for _, text in pairs)
        lost = sum(n for (a, _), n in operations.items() if a == character)
        added = sum(n for (_, b), n in operations.items() if b == character)
        assert count.right == count.labels - lost == count.read - added
        assert count.recall == count.right / count.labels and count.precision == count.right / count.read
        assert count.faults == lost + added
    assert sum(operations.values()) == sum(Levenshtein.distance(*pair) for pair in pairs)
    assert all(a != b for a, b in operations)
    for (a, b), (label, text) in found.examples.items():
        assert a in label and b in text and label != text


def test_alignment_of_words_that_can_be_aligned_in_one_way() -> None:
    found = breakdown.align(words_of([("hello", "hallo"), ("tall", "tal"), ("b", "bi"), ("no", "n0")]))
    assert found.operations == Counter({("e", "a"): 1, ("l", ""): 1, ("", "i"): 1, ("o", "0"): 1})
    assert found.examples["o", "0"] == ("no", "n0")
    assert found.characters["0"].recall is None and found.characters["0"].precision == 0
    assert found.characters["e"].precision is None and found.characters["e"].recall == 0


@pytest.mark.parametrize("seed", range(3))
def test_groups_and_thresholds(seed: int) -> None:
    words = words_of(random_pairs(500, "ab", seed), seed)
    words += [{"key": "x", "label": "a" * n, "text": "", "confidence": 0.5} for n in range(10, 40)]
    groups = breakdown.by_length(words)
    assert sum(group.words for group in groups) == len(words)
    assert sum(group.right for group in groups) == sum(word["label"] == word["text"] for word in words)
    assert [group.name for group in groups[:9]] == [str(n) for n in range(1, 10)]
    assert len(groups) == 21 and groups[-1].name == "21+" and groups[-1].words == 19
    for taken in breakdown.above(words):
        kept = [word for word in words if word["confidence"] >= taken.confidence]
        assert (taken.words, taken.right) == (len(kept), sum(word["label"] == word["text"] for word in kept))
    curve = breakdown.coverage(words)
    assert 100 <= len(curve) <= 200 and curve[-1].words == len(words)
    assert curve == breakdown.above(words, [point.confidence for point in curve])


@pytest.fixture
def words(bar_code: Draw, write_lmdb: Write) -> Path:
    labels = {"hello": "Hello!", "rang": "range", "b": "c", "torn": "thorn", "x7": "x7"}
    pictures = [(bar_code(text, blur=3 if text == "torn" else 0), label) for text, label in labels.items()]
    return write_lmdb([*pictures, (b"no picture", "y")])


def saved(words: Path, model: Path, out: Path) -> dict[str, Any]:
    out.write_text(json.dumps(evaluate([words], open_engine(model, "onnxruntime"))))
    return load_result(out)


def test_a_result_comes_back_as_it_was_written(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    written = evaluate([words, words], open_engine(bar_code_model, "onnxruntime"))
    for data in written["datasets"]:
        data["words_per_second"] = 100.0
    (tmp_path / "r.json").write_text(json.dumps(written))
    assert load_result(tmp_path / "r.json") == written


def test_what_is_no_result(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    good = saved(words, bar_code_model, tmp_path / "r.json")
    bad = tmp_path / "bad.json"

    def broken(change: Callable[[dict[str, Any]], Any]) -> str:
        copy = json.loads(json.dumps(good))
        change(copy)
        return json.dumps(copy)

    first: Callable[[dict[str, Any]], dict[str, Any]] = lambda r: r["datasets"][0]["words"][0]  # noqa: E731
    for content, part in [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no object"),
        ('{"schema": "crnn.comparison/1"}', "'crnn.comparison/1'"),
        ('{"title": "Overall statistical evaluation", "value": []}', "--schema crnn"),
        (broken(lambda r: r.pop("datasets")), "'datasets' is missing"),
        (broken(lambda r: r.update(datasets=[])), "no data set"),
        (broken(lambda r: r["datasets"][0].update(words=[])), "without words"),
        (broken(lambda r: first(r).pop("text")), "'text' is missing"),
        (broken(lambda r: first(r).update(label=7)), "label is 7"),
        (broken(lambda r: first(r).update(label="\ud800")), "surrogates"),
        (broken(lambda r: first(r).update(confidence=float("nan"))), "confidence"),
        (broken(lambda r: first(r).update(confidence=1.5)), "confidence"),
        (broken(lambda r: r.update(model="crnn.onnx")), "damaged"),
        (broken(lambda r: r.update(temperature=0)), "temperature"),
    ]:
        bad.write_text(content)
        with pytest.raises(DatasetError, match=re.escape(part)) as caught:
            load_result(bad)
        assert str(caught.value).startswith(f"{bad}: ")
    with pytest.raises(DatasetError, match="No such file"):
        load_result(tmp_path / "none.json")


def test_word_number() -> None:
    assert [word_number(key) for key in ("image-000000005", "test_5.bin", "test_12.npy", "0")] == [5, 5, 12, 0]
    assert [word_number(key) for key in ("", "word", "9" * 19)] == [None] * 3


def test_pictures_and_posteriors(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    loaded = saved(words, bar_code_model, tmp_path / "r.json")
    picks = worst(loaded, 10)
    assert sorted(word["text"] for _, word in picks) == ["b", "rang", "torn"]
    assert [word["confidence"] for _, word in picks] == sorted((w["confidence"] for _, w in picks), reverse=True)
    found = reopen(loaded, picks, beside=tmp_path)
    assert found.notes == () and found.spec is not None
    for (_, word), seen in zip(picks, found.words, strict=True):
        assert seen.picture is not None and (seen.picture.width, seen.picture.height) == (100, 32)
        assert seen.decoded is not None and seen.decoded.text == word["text"]
        assert seen.decoded.confidence == pytest.approx(word["confidence"], rel=1e-4)
        assert seen.posterior is not None and seen.posterior.shape == (26, 37)
        assert seen.posterior.sum(axis=1) == pytest.approx(1, abs=1e-4)
        assert seen.label_probability is not None and seen.label_probability < word["confidence"]
    page = checked(render(loaded, picks, found))
    assert len(page.all("image")) == len(page.all("use")) == 3
    assert "Read again" not in page.text and "Please note" not in page.text
    drawings = [svg["aria-label"] for svg in page.all("svg") if svg["class"] == "seen"]
    place = [word["text"] for _, word in picks].index("rang")
    said = re.search(r"over it: (.*)\.$", drawings[place])
    assert said and [part.split()[0] for part in said[1].split(", ")] == list("rang")
    # A bar stands where its frame looks: the third bar is at pixel 16 of 100, which is frame 4.
    lefts = {f"M{frame_span(t, t, found.spec, 320)[0]:g} " for t in (0, 2, 4, 6)}
    paths = [each["d"] for each in page.all("path") if each["class"].startswith("area")]
    assert all(any(path.startswith(left) for path in paths) for left in lefts)
    kinds = Counter(each["class"] for each in page.all("path"))
    assert kinds["blank"] == 3 and kinds["area wrong"] >= 1 and kinds["area right"] >= 4


def test_what_is_gone_is_told(words: Path, bar_code_model: Path, tmp_path: Path) -> None:
    loaded = saved(words, bar_code_model, tmp_path / "r.json")
    picks = worst(loaded, 10)
    moved, elsewhere = words.rename(tmp_path / "moved_lmdb"), tmp_path / "moved.onnx"
    elsewhere.write_bytes(bar_code_model.read_bytes())
    loaded["model"]["path"] = str(tmp_path / "gone.onnx")
    found = reopen(loaded, picks, beside=tmp_path)
    assert len(found.notes) == 2 and "data set is gone" in found.notes[0] and "model is gone" in found.notes[1]
    assert all(seen.picture is None and seen.problem for seen in found.words)
    page = checked(render(loaded, picks, found))
    assert "Please note" in page.text and "model is gone" in page.text and not page.all("image")
    found = reopen(loaded, picks, beside=tmp_path, datasets=[moved], model=elsewhere)
    assert found.notes == () and all(seen.posterior is not None for seen in found.words)
    found = reopen(loaded, picks, beside=tmp_path, datasets=[moved])
    assert len(found.notes) == 1 and all(seen.picture and seen.posterior is None for seen in found.words)
    assert len(checked(render(loaded, picks, found)).all("image")) == 3
    with pytest.raises(CrnnError, match="no such data set"):
        reopen(loaded, picks, beside=tmp_path, datasets=[tmp_path / "typo"])
    with pytest.raises(CrnnError, match="no such model"):
        reopen(loaded, picks, beside=tmp_path, model=tmp_path / "typo.onnx")


def test_paths_are_looked_for_beside_the_result(
    words: Path, bar_code_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = saved(Path(words.name), bar_code_model, tmp_path / "r.json")
    assert loaded["datasets"][0]["path"] == words.name
    monkeypatch.chdir("/")
    assert reopen(loaded, worst(loaded, 1), beside=tmp_path).notes == ()
    assert "gone" in reopen(loaded, worst(loaded, 1), beside=NOWHERE).notes[0]


def test_what_has_changed_is_told(
    words: Path,
    bar_code: Draw,
    bar_code_model: Path,
    write_lmdb: Write,
    with_temperature: Callable[[float], Path],
    tmp_path: Path,
) -> None:
    loaded = saved(words, bar_code_model, tmp_path / "r.json")
    picks = sorted(worst(loaded, 10), key=lambda pick: str(pick[1]["key"]))
    changed = write_lmdb(
        [(bar_code("hello"), "Hello!"), (bar_code("ring"), "Range"), (bar_code("b"), "d"), (b"text", "thorn")], "new"
    )
    found = reopen(loaded, picks, beside=tmp_path, datasets=[changed], model=with_temperature(2.0))
    assert len(found.notes) == 2 and all("sha256" in note for note in found.notes)
    again, relabelled, damaged = found.words
    assert again.decoded is not None and again.decoded.text == "ring" and again.picture is not None
    assert relabelled.picture is None and "'d'" in str(relabelled.problem)
    assert damaged.picture is None and "not a picture" in str(damaged.problem)
    page = checked(render(loaded, picks, found))
    assert "Read again, it is ring" in page.text and page.text.count("No picture: ") == 2
    two = {**loaded, "datasets": loaded["datasets"] * 2}
    with pytest.raises(OptionError, match="none of the result's 2 data sets"):
        reopen(two, picks, beside=tmp_path, datasets=[changed])
    assert reopen(two, picks, beside=tmp_path, datasets=[words]).notes == ()


def test_words_of_files_have_pictures_where_the_data_set_is_named(
    words: Path, bar_code_model: Path, tmp_path: Path
) -> None:
    loaded = saved(words, bar_code_model, tmp_path / "r.json")
    (data,) = loaded["datasets"]
    data.update(path=str(tmp_path), sha256="1" * 64)  # a folder of result files, as `crnn score` writes of them
    for word in data["words"]:
        word["key"] = f"test_{word_number(word['key'])}.bin"
    loaded.update(model=None, engine=None)
    picks = worst(loaded, 10)
    found = reopen(loaded, picks, beside=tmp_path)
    assert "not an LMDB data set" in found.notes[0] and "does not say what model" in found.notes[1]
    found = reopen(loaded, picks, beside=tmp_path, datasets=[words], model=bar_code_model)
    assert len(found.notes) == 1 and "found by key and label" in found.notes[0]
    assert [seen.decoded.text for seen in found.words if seen.decoded] == [word["text"] for _, word in picks]
