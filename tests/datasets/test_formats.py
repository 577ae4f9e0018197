"""Every format gives the same words, is recognised by itself, and says what is wrong with a word."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from tests.datasets.conftest import Draw

from crnn.datasets.formats import FORMATS, Format, open_words
from crnn.datasets.lmdb import LmdbWriter
from crnn.datasets.words import Checked, Entry, ReadOptions, Unusable, WordSource, checked
from crnn.errors import DatasetError, OptionError

# Labels that formats trip over: separators, quotation marks, spaces, backslashes, other scripts, what looks like a name
LABELS = [
    "plain",
    "Co., Ltd",
    'say "hi"',
    "'s",
    " a b ",
    "back\\slash",
    "Größe",
    "日本",
    "0042",
    "1.50",
    "a;b",
    "text",
    "#",
]


def pictures(folder: Path, draw: Draw, labels: Sequence[str] = LABELS) -> list[tuple[str, str]]:
    """A picture for each label, called w0.png, w1.jpg, ...; (name, label)."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(f"w{k}.{'jpg' if k % 2 else 'png'}", label) for k, label in enumerate(labels)]
    for name, label in pairs:
        (folder / name).write_bytes(draw(label, format="JPEG" if name.endswith("jpg") else "PNG"))
    return pairs


def words(source: WordSource) -> list[tuple[bytes, str]]:
    found = [checked(entry) for entry in source]
    assert all(isinstance(word, Checked) for word in found), found
    return [(word.image, word.label) for word in found if isinstance(word, Checked)]


def in_csv(folder: Path, pairs: list[tuple[str, str]], delimiter: str = ",", header: Sequence[str] = ()) -> None:
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([*([header] if header else []), *pairs])


def in_tsv(folder: Path, pairs: list[tuple[str, str]]) -> None:
    (folder / "labels.tsv").write_text("".join(f"{name}\t{label}\n" for name, label in pairs), encoding="utf-8-sig")


def in_jsonl(folder: Path, pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"text": label, "file_name": name}) for name, label in pairs]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def in_icdar(folder: Path, pairs: list[tuple[str, str]]) -> None:
    escaped = [(name, label.replace("\\", "\\\\").replace('"', '\\"')) for name, label in pairs]
    text = "".join(f'{name}, "{label}"\r\n' for name, label in escaped)
    (folder / "gt.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())


def in_spaces(folder: Path, pairs: list[tuple[str, str]]) -> None:
    (folder / "gt.txt").write_text("".join(f"{name} {label}\n" for name, label in pairs))


def in_text_files(folder: Path, pairs: list[tuple[str, str]]) -> None:
    for name, label in pairs:
        (folder / name).with_suffix(".gt.txt").write_text(label + "\n")


@pytest.mark.parametrize(
    ("write", "format", "said"),
    [
        (in_csv, "table", "no header: pictures in column 1, labels in column 2"),
        (lambda f, p: in_csv(f, p, ";", ("File Name", "Label")), "table", "pictures in 'File Name', labels in 'Label'"),
        (lambda f, p: in_csv(f, [(b, a) for a, b in p], "\t"), "table", "pictures in column 2, labels in column 1"),
        (lambda f, p: in_csv(f, p, ",", ("bild", "inhalt")), "table", "pictures in 'bild', labels in 'inhalt'"),
        (in_tsv, "table", "separated by tabs"),
        (in_jsonl, "table", "JSON lines, pictures in 'file_name', labels in 'text'"),
        (in_icdar, "icdar", "ICDAR word list"),
        (in_spaces, "table", "NAME LABEL"),
        (in_text_files, "pairs", "pictures with a .gt.txt beside each"),
    ],
    ids=["csv", "csv-header", "csv-swapped", "csv-other-header", "tsv", "jsonl", "icdar", "spaces", "pairs"],
)
def test_a_folder_is_recognised_and_gives_every_label_as_it_is(
    tmp_path: Path, draw: Draw, write: Callable[..., None], format: str, said: str
) -> None:
    pairs = pictures(tmp_path, draw)
    write(tmp_path, pairs)
    source = open_words(tmp_path)
    assert source.format == format
    assert said in source.decided
    expected = sorted(((tmp_path / name).read_bytes(), label) for name, label in pairs)
    assert sorted(words(source)) == expected
    assert sorted(words(source)) == expected  # a second time


def test_tables_of_any_words_survive_the_round_trip(tmp_path: Path, draw: Draw) -> None:
    """Labels of random characters, through each kind of table, beside a table that may be taken for a header."""
    dice = random.Random(5)
    letters = "ab \"',;\t\\|#%é字.01"
    for number in range(12):
        labels = ["".join(dice.choices(letters, k=dice.randrange(1, 9))) or "x" for _ in range(6)]
        labels = [label if label.strip() else "x" for label in labels]
        folder = tmp_path / str(number)
        pairs = pictures(folder, draw, labels)
        (in_csv, in_jsonl, lambda f, p: in_csv(f, p, ";", ("image", "word")))[number % 3](folder, pairs)
        assert [label for _, label in words(open_words(folder))] == labels


def test_utf16_from_a_spreadsheet(tmp_path: Path, draw: Draw) -> None:
    pairs = pictures(tmp_path, draw)
    in_csv(tmp_path, pairs, ";", ("Datei", "Nummer"))
    path = tmp_path / "labels.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    assert [label for _, label in words(open_words(path))] == LABELS


def test_pictures_in_a_folder_of_their_own(tmp_path: Path, draw: Draw) -> None:
    pairs = pictures(tmp_path / "images", draw, ["a", "b"])
    in_csv(tmp_path, pairs)
    assert "pictures from" in open_words(tmp_path).decided
    pictures(tmp_path / "other", draw, ["a", "b"])
    with pytest.raises(DatasetError, match=r"several folders have pictures of these names.*--images"):
        open_words(tmp_path)
    assert len(words(open_words(tmp_path, options=ReadOptions(images=tmp_path / "other")))) == 2


def test_which_column_can_be_said_and_must_be_where_it_does_not_show(tmp_path: Path, draw: Draw) -> None:
    pairs = pictures(tmp_path, draw, ["a", "b"])
    text = "file,plate,place\n" + "".join(f"{name},{label},town\n" for name, label in pairs)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"which column holds the labels.*'plate'.*--label-column"):
        open_words(tmp_path)
    for column in ("plate", "2"):
        source = open_words(tmp_path, options=ReadOptions(label_column=column))
        assert [label for _, label in words(source)] == ["a", "b"]
    with pytest.raises(OptionError, match=r"--label-column number.*'file', 'plate', 'place'"):
        open_words(tmp_path, options=ReadOptions(label_column="number"))


def test_a_bad_row_is_one_bad_word(tmp_path: Path, draw: Draw) -> None:
    pictures(tmp_path, draw, ["a"])
    rows = [
        "file,text",
        "w0.png,a",
        "gone.png,b",
        "w0.png",
        "w0.png,Co., Ltd",
        ",c",
        "w0.png,",
        "bad.png,d",
        "w0.png,z",
    ]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = [(entry.key, word.kind if isinstance(word := checked(entry), Unusable) else word.label)
             for entry in open_words(tmp_path)]  # fmt: skip
    assert found == [
        ("w0.png", "a"),
        ("gone.png", "missing"),
        ("w0.png", "missing"),
        ("w0.png", "unreadable"),  # three columns: which is the label is not guessed
        ("line 6", "missing"),
        ("w0.png", "empty"),
        ("bad.png", "unreadable"),
        ("w0.png", "z"),
    ]


def test_a_quotation_mark_left_open_swallows_no_word_in_silence(tmp_path: Path, draw: Draw) -> None:
    pictures(tmp_path, draw, ["a", "b", "c"])
    (tmp_path / "labels.csv").write_text('w0.png,"a\nw1.jpg,b\nw2.png,c\n')
    for text in ('w0.png,"a\nw1.jpg,b\nw2.png,c\n', 'w0.png,a\nw1.jpg,"b\nw2.png,c\n'):
        (tmp_path / "labels.csv").write_text(text)
        *_, last = [checked(entry) for entry in open_words(tmp_path)]
        assert isinstance(last, Unusable) and "several lines (a quotation mark left open?)" in last.reason
    (tmp_path / "labels.csv").write_text('w0.png,a\nw1.jpg,"b\n' + "w2.png,c\n" * 20_000)
    with pytest.raises(DatasetError, match="is a quotation mark before it left open"):
        list(open_words(tmp_path))


def test_a_label_that_is_not_utf8_is_refused(tmp_path: Path, draw: Draw) -> None:
    pictures(tmp_path, draw, ["a", "b"])
    (tmp_path / "labels.csv").write_bytes(b"file,text\nw0.png,caf\xe9\nw1.jpg,b\n")
    first, second = [checked(entry) for entry in open_words(tmp_path)]
    assert isinstance(first, Unusable) and "UTF-8" in first.reason
    assert isinstance(second, Checked)


@pytest.mark.parametrize(
    ("names", "labels", "form"),
    [
        (["1_WORD_77.jpg", "12_Other_one_3.jpg"], ["WORD", "Other_one"], "NUMBER_LABEL_NUMBER"),
        (["stop_1.png", "exit_2.png", "exit_3.png"], ["stop", "exit", "exit"], "LABEL_NUMBER"),
        (["0001_AB-12.png", "0002_CD 34.png"], ["AB-12", "CD 34"], "NUMBER_LABEL"),
        (["0815.png", "4711.png", "x.y.png"], ["0815", "4711", "x.y"], "LABEL"),
    ],
)
def test_labels_in_file_names(tmp_path: Path, draw: Draw, names: list[str], labels: list[str], form: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(draw(name))
    source = open_words(tmp_path)
    assert source.format == "names" and f"({form})" in source.decided
    assert sorted(label for _, label in words(source)) == sorted(labels)


def test_names_that_say_nothing_are_no_labels(tmp_path: Path, draw: Draw) -> None:
    for folder, names in (("word", ["word_1", "word_2", "word_3"]), ("n", ["1", "2", "3"]), ("two", ["1_2", "7_8"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").write_bytes(draw(name))
        with pytest.raises(DatasetError, match=r"nothing says what|which of the two"):
            open_words(tmp_path / folder)
    source = open_words(tmp_path / "two", options=ReadOptions(pattern=r"\d+_(?P<label>\d)"))
    assert [label for _, label in words(source)] == ["2", "8"]
    with pytest.raises(OptionError, match="needs a group"):
        open_words(tmp_path / "two", options=ReadOptions(pattern=".*"))


def scene(folder: Path, name: str, truth: str) -> Image.Image:
    """A picture of 200 x 100 with a red and a blue half, and its ground truth."""
    folder.mkdir(exist_ok=True)
    image = Image.new("RGB", (200, 100), "red")
    ImageDraw.Draw(image).rectangle((100, 0, 200, 100), fill="blue")
    image.save(folder / f"{name}.png")
    (folder / f"gt_{name}.txt").write_bytes(b"\xef\xbb\xbf" + truth.replace("\n", "\r\n").encode())
    return image


def test_scenes_are_cut_along_their_boxes(tmp_path: Path) -> None:
    scene(tmp_path, "img_1", "10,20,70,20,70,40,10,40,Co., Ltd\n150,10,190,10,190,90,150,90,###\n")
    turned = "150,10,150,90,130,90,130,10,up"  # its top is the right side: the text runs downwards
    scene(tmp_path, "img_2", f"{turned}\n0,0,1,1,broken\n10,10,20,20,20,10,10,20,crossed\n")
    source = open_words(tmp_path)
    assert source.format == "scenes" and "2 scenes" in source.decided
    found = {entry.key: checked(entry) for entry in source}
    first, marked, second, broken, crossed = found.values()
    assert isinstance(first, Checked) and isinstance(second, Checked)
    assert first.label == "Co., Ltd" and first.picture.size == (60, 20)
    assert Image.open(io.BytesIO(first.image)).getpixel((5, 5)) == (255, 0, 0)
    assert second.label == "up" and second.picture.size == (80, 20)
    assert Image.open(io.BytesIO(second.image)).getpixel((5, 5)) == (0, 0, 255)
    assert [word.kind for word in (marked, broken, crossed) if isinstance(word, Unusable)] == [
        "illegible",
        "unreadable",
        "unreadable",
    ]
    assert list(found)[4] == "img_2.png#3"


@pytest.mark.parametrize("own_name", [False, True])
def test_a_first_scene_without_text_hides_no_format(own_name: bool, tmp_path: Path) -> None:
    for name, truth in (("img_1", ""), ("img_2", "10,20,70,20,70,40,10,40,HELLO\n")):
        scene(tmp_path, name, truth)
        if own_name:
            (tmp_path / f"gt_{name}.txt").rename(tmp_path / f"{name}.txt")
    source = open_words(tmp_path)
    assert source.format == "scenes" and [label for _, label in words(source)] == ["HELLO"]


def test_scenes_of_2013_and_pictures_in_another_folder(tmp_path: Path) -> None:
    scene(tmp_path / "scenes", "img_1", '10, 20, 70, 40, "say \\"hi\\""\n')
    scene(tmp_path / "scenes", "img_2", '110 20 170 40 "Footpath"\n')
    (tmp_path / "truth").mkdir()
    for path in (tmp_path / "scenes").glob("gt_*"):
        path.rename(tmp_path / "truth" / path.name)
    assert [label for _, label in words(open_words(tmp_path))] == ['say "hi"', "Footpath"]
    options = ReadOptions(images=tmp_path / "scenes")
    assert len(words(open_words(tmp_path / "truth", options=options))) == 2
    (tmp_path / "scenes" / "img_1.png").write_bytes(b"damaged")
    first, _ = [checked(entry) for entry in open_words(tmp_path)]
    assert isinstance(first, Unusable) and "img_1.png" in first.reason


def archive(path: Path, members: list[tuple[str, bytes]], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("words.tar", "w"), ("words.tar.gz", "w:gz"), ("words.tar.xz", "w:xz")])
def test_webdataset(tmp_path: Path, draw: Draw, name: str, mode: str) -> None:
    members = [
        ("a/0.png", draw("0")), ("a/0.txt", b"zero\n"),
        ("a/1.json", b'{"text": "one", "id": 7}'), ("a/1.jpg", draw("1", format="JPEG")),
        ("a/2.img.PNG", draw("2")), ("a/2.cls", b"2"), ("a/2.npy", b"not ours"),
        ("a/3.png", draw("3")),
        ("a/4.txt", b"no picture"),
        ("b/4.png", draw("4")), ("b/4.json", b"[1]"),
        ("b/5.png", draw("5")), ("b/5.txt", "fünf".encode("latin-1")),
        ("b/6.png", draw("6")), ("b/6.txt", b"sechs "),
        ("b/7.png", draw("7")), ("b/7.json", b'{"label": 0.50}'),
    ]  # fmt: skip
    source = open_words(archive(tmp_path / name, members, mode))
    assert source.format == "webdataset"
    found = [(entry.key, word.kind if isinstance(word := checked(entry), Unusable) else word.label) for entry in source]
    assert found == [
        ("a/0", "zero"), ("a/1", "one"), ("a/2", "2"), ("a/3", "missing"), ("a/4", "missing"),
        ("b/4", "unreadable"), ("b/5", "unreadable"), ("b/6", "sechs "), ("b/7", "0.50"),
    ]  # fmt: skip


def test_a_folder_of_shards_and_a_damaged_one(tmp_path: Path, draw: Draw) -> None:
    for shard in "12":
        archive(tmp_path / f"words-{shard}.tar", [("0.png", draw(shard)), ("0.txt", shard.encode())])
    source = open_words(tmp_path)
    assert "2 archives" in source.decided
    assert [(entry.key, entry.label) for entry in source] == [("words-1.tar/0", "1"), ("words-2.tar/0", "2")]
    whole = (tmp_path / "words-2.tar").read_bytes()
    (tmp_path / "words-2.tar").write_bytes(whole[:700])
    with pytest.raises(DatasetError, match=r"words-2\.tar: damaged or truncated"):
        list(open_words(tmp_path))


def image_feature(draw: Draw, labels: Sequence[str | None]) -> Any:
    images = [{"bytes": draw(str(label)), "path": None} for label in labels]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(images, kind), "text": pa.array(labels, pa.string()), "id": range(len(labels))})


def test_parquet_and_what_datasets_saves(tmp_path: Path, draw: Draw) -> None:
    labels = [*LABELS, *(f"word {k}" for k in range(100)), None]
    table = image_feature(draw, labels)
    expected = [(draw(str(label)), label) for label in labels[:-1]]
    pq.write_table(table, tmp_path / "words.parquet", row_group_size=50)
    saved = tmp_path / "saved"
    saved.mkdir()
    with pa.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=30)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    with pa.OSFile(str(tmp_path / "words.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    for path in (tmp_path / "words.parquet", saved, tmp_path / "words.arrow"):
        source = open_words(path)
        assert source.format == "parquet" and "pictures in 'image', labels in 'text'" in source.decided
        *good, last = [checked(entry) for entry in source]
        assert [(word.image, word.label) for word in good if isinstance(word, Checked)] == expected
        assert isinstance(last, Unusable) and last.kind == "missing"


def test_splits_are_not_mixed(tmp_path: Path, draw: Draw) -> None:
    for split in ("train", "test"):
        pq.write_table(image_feature(draw, [split]), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DatasetError, match="splits test, train; name the files of one"):
        open_words(tmp_path)
    assert [entry.label for entry in open_words(tmp_path / "test-00000-of-00001.parquet")] == ["test"]
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DatasetError, match="splits train, test; name one"):
        open_words(tmp_path / "dict")


def test_columns_of_parquet_that_do_not_show(tmp_path: Path, draw: Draw) -> None:
    table = pa.table({"crop": [draw("a")], "plate": ["a"], "town": ["b"]})
    pq.write_table(table, tmp_path / "w.parquet")
    with pytest.raises(DatasetError, match=r"which column holds the labels.*--label-column"):
        open_words(tmp_path / "w.parquet")
    assert words(open_words(tmp_path / "w.parquet", options=ReadOptions(label_column="plate"))) == [(draw("a"), "a")]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DatasetError, match=r"bad\.parquet: cannot be read"):
        open_words(tmp_path / "bad.parquet")


def test_without_pyarrow_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"needs pyarrow: pip install 'crnn\[jobs\]'"):
        open_words(tmp_path / "w.parquet")


def test_lmdb(tmp_path: Path, draw: Draw) -> None:
    with LmdbWriter(tmp_path / "words") as writer:
        for label in LABELS:
            writer.add(draw(label), label)
    for path in (tmp_path / "words", tmp_path / "words" / "data.mdb"):
        source = open_words(path)
        assert (source.format, source.count) == ("lmdb", len(LABELS))
        assert words(source) == [(draw(label), label) for label in LABELS]


def test_a_format_can_be_forced(tmp_path: Path, draw: Draw) -> None:
    pairs = pictures(tmp_path, draw, ["a", "b"])
    in_text_files(tmp_path, pairs)
    (tmp_path / "gt.txt").write_text("w0.png, x\nw1.jpg, y, z\n")
    by_format: dict[Format, list[str]] = {"pairs": ["a", "b"], "icdar": ["x", "y, z"], "names": ["w0", "w1"]}
    for format, labels in by_format.items():
        assert [label for _, label in words(open_words(tmp_path, format))] == labels
    for format in FORMATS:
        if format not in by_format and format != "table":
            with pytest.raises(DatasetError):
                open_words(tmp_path, format)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "thing.bin").write_bytes(bytes(1000))
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "lost.csv").write_text("a.png,b,c\nd.png,e,f\n")
    for name, what in [
        ("nowhere", "no such data set"),
        ("empty", "no labelled words in this folder"),
        ("thing.bin", "not a data set that is known"),
        ("labels.csv", "empty"),
        ("lost.csv", "no column names pictures that are there"),
    ]:
        with pytest.raises(DatasetError, match=what) as caught:
            open_words(tmp_path / name)
        assert name in str(caught.value)


def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thing.bin").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("crnn.datasets.formats.open", refuse, raising=False)
    monkeypatch.setattr("crnn.datasets.arrow.is_saved_dataset", refuse)  # as a folder that may not be entered does
    for name in ("thing.bin", "folder"):
        with pytest.raises(DatasetError, match=rf"{name}: cannot be opened \(Permission denied\)"):
            open_words(tmp_path / name)


def test_damaged_tables_raise_nothing_else(tmp_path: Path, draw: Draw) -> None:
    """Bytes changed at random: every word comes with a reason, or the whole is refused in one line."""
    pairs = pictures(tmp_path, draw)
    in_csv(tmp_path, pairs)
    whole = (tmp_path / "labels.csv").read_bytes()
    dice = random.Random(3)
    for number in range(300):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path = tmp_path / f"t{number}{dice.choice(['.csv', '.tsv', '.jsonl', '.txt'])}"
        path.write_bytes(data)
        try:
            entries = list(open_words(path))
        except (DatasetError, OptionError) as error:
            assert "\n" not in str(error)
            continue
        assert all(isinstance(entry, Entry) and isinstance(entry.key, str) for entry in entries)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_damaged_columns_raise_nothing_else_and_end_no_process(tmp_path: Path, draw: Draw, suffix: str) -> None:
    table = image_feature(draw, ["one", "two", "drei"])
    whole = tmp_path / "whole"
    if suffix == ".parquet":
        pq.write_table(table, whole)
    else:
        with pa.ipc.new_stream(str(whole), table.schema) as stream:
            stream.write_table(table)
    dice = random.Random(1)
    refused = 0
    for _ in range(150):
        data = bytearray(whole.read_bytes())
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(data[: dice.randrange(len(data))] if dice.random() < 0.2 else data)
        try:
            assert len(list(open_words(path))) <= 3
        except DatasetError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 20


def test_labels_beside_pictures_in_any_case(tmp_path: Path, draw: Draw) -> None:
    for number, label in enumerate(("hello", "bye", "open")):
        (tmp_path / f"4821{number}.PNG").write_bytes(draw(label))
        (tmp_path / f"4821{number}.TXT").write_text(label, encoding="utf-8")
    assert [entry.label for entry in open_words(tmp_path)] == ["hello", "bye", "open"]


def test_what_stands_twice_in_a_webdataset_is_said(tmp_path: Path, draw: Draw) -> None:
    files = [("a.png", draw("x")), ("a.txt", b"x"), ("a.PNG", draw("z")), ("b.png", draw("y")), ("b.txt", b"y")]
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    first, second = open_words(tmp_path / "w.tar")
    assert isinstance(first.image, Unusable) and "'a.PNG' stands twice" in first.image.reason
    assert second.label == "y"
