from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

import crnn
from crnn.cli import app
from crnn.cli.data import Format
from crnn.datasets.formats import FORMATS
from crnn.datasets.lmdb import LmdbReader

WEIGHTS = next((Path(crnn.__file__).parent / "weights").glob("*.onnx"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def drawn(text: str) -> bytes:
    image = Image.new("L", (60, 20), 255)
    ImageDraw.Draw(image).text((4, 4), text)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A folder of three pictures with a labels.csv that names four."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_bytes(drawn(name))
    (folder / "labels.csv").write_text("file,label\na.png,KL-58\nb.png,MM 1\ngone.png,XX\nc.png,é\n")
    return folder


def test_build_says_how_it_reads_and_what_it_leaves_out(tmp_path: Path, plates: Path) -> None:
    out = tmp_path / "plates_lmdb"
    result = run("build", plates, out)
    assert result.exit_code == 1
    assert "labels.csv, separated by commas, pictures in 'file', labels in 'label'" in result.stderr
    assert "first word: a.png -> 'KL-58'" in result.stderr
    assert "gone.png: there is no such picture" in result.stderr
    assert result.stderr.endswith("crnn: 1 word left out (1 missing), listed above with the reason\n")
    assert result.stdout == f"{out}: 3 words\n"
    assert list(LmdbReader(out)) == [(drawn("a"), "KL-58"), (drawn("b"), "MM 1"), (drawn("c"), "é")]

    again = run("build", plates, out)
    assert again.exit_code == 2 and "already exists" in again.stderr
    assert run("build", plates, out, "--skip-bad", "--overwrite").exit_code == 0


def test_build_joins_several_data_sets(tmp_path: Path, plates: Path) -> None:
    run("build", plates, tmp_path / "one")
    result = run("build", tmp_path / "one", plates, tmp_path / "two", "--skip-bad")
    assert result.exit_code == 0
    assert [label for _, label in LmdbReader(tmp_path / "two")] == ["KL-58", "MM 1", "é"] * 2


def test_build_that_cannot_be(tmp_path: Path, plates: Path) -> None:
    for arguments, what in [
        ((plates,), "name the data sets first"),
        ((tmp_path / "none", tmp_path / "out"), "no such data set"),
        ((plates, tmp_path / "out", "--label-column", "x"), "has the columns 'file', 'label'"),
        ((plates, tmp_path / "out", "--images", tmp_path / "none"), "--images"),
    ]:
        result = run("build", *arguments)
        assert result.exit_code == 2
        assert what in result.stderr and result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()
    (plates / "labels.csv").write_text("file,label\ngone.png,a\n")
    result = run("build", plates, tmp_path / "out")
    assert result.exit_code == 2 and "no usable word" in result.stderr
    assert not [path for path in tmp_path.iterdir() if path != plates]


def test_nothing_but_a_data_set_is_overwritten_and_none_that_is_read(tmp_path: Path, plates: Path) -> None:
    run("build", plates, tmp_path / "one")
    run("build", plates, tmp_path / "two")
    signs = tmp_path / "signs"
    signs.mkdir()
    (signs / "stop.png").write_bytes(drawn("stop"))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    for arguments, what in [
        (("build", plates, signs), "signs: no LMDB data set"),
        (("check", plates, "--fix", signs), "signs: no LMDB data set"),
        (("build", plates, tmp_path / "one", tmp_path / "one"), "one of the data sets to read"),
        (("build", tmp_path / "one" / "data.mdb", tmp_path / "one"), "one of the data sets to read"),
        (("build", link, tmp_path / "one"), "one of the data sets to read"),
        (("check", tmp_path / "one", tmp_path / "two", "--fix", tmp_path / "two"), "one of the data sets to read"),
    ]:
        result = run(*arguments, "--overwrite")
        assert (result.exit_code, result.stdout) == (2, "")
        assert what in result.stderr and result.stderr.count("\n") == 1
    assert (signs / "stop.png").exists()
    assert len(LmdbReader(tmp_path / "one")) == len(LmdbReader(tmp_path / "two")) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="names are texts on this system")
def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"bar.png"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(drawn("x"))
    written = run("check", folder, "--json", tmp_path / "found.json")
    assert written.exit_code == 1
    printed = run("check", folder, "--json", "-")
    for text in ((tmp_path / "found.json").read_text("utf-8"), printed.stdout):
        (finding,) = (finding for finding in json.loads(text)["findings"] if finding["kind"] == "unreadable")
        assert finding["key"] == "caf\udce9.png"


def test_illegible_places_are_counted_and_no_fault(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    Image.new("RGB", (200, 100), "red").save(tmp_path / "scenes" / "img_1.png")
    (tmp_path / "scenes" / "gt_img_1.txt").write_text("1,1,50,1,50,20,1,20,word\n1,1,50,1,50,20,1,20,###\n")
    result = run("build", tmp_path / "scenes", tmp_path / "out")
    assert result.exit_code == 0
    assert "out: 1 word\n1 place marked as illegible passed over" in result.stdout


def test_stats(tmp_path: Path, plates: Path) -> None:
    result = run("stats", plates, "--json", tmp_path / "stats.json")
    assert result.exit_code == 0
    for part in ("3 words, 3 different labels", "1 missing", "2 upper, 1 lower", "aspect", "contrast"):
        assert part in result.stdout
    (found,) = json.loads((tmp_path / "stats.json").read_text())
    assert found["labels"]["lengths"] == {"1": 1, "4": 1, "5": 1}
    printed = run("stats", plates, "--json", "-")
    assert json.loads(printed.stdout) == [found]


def test_check_and_fix(tmp_path: Path, plates: Path) -> None:
    result = run("check", plates)
    assert result.exit_code == 1
    assert "error: picture or label is not there: 1" in result.stdout
    assert "gone.png: there is no such picture" in result.stdout
    assert "characters were not checked" in result.stdout
    assert result.stdout.endswith("1 error, 0 warnings\n")

    charset = ("--charset", "KLM-0123456789 ")
    fixed = run("check", plates, *charset, "--fix", tmp_path / "clean", "--json", tmp_path / "c.json")
    assert fixed.exit_code == 1  # of what was checked
    assert "error: characters outside the charset: 1" in fixed.stdout
    assert "'é' U+00E9 1 time, first in c.png: 'é'" in fixed.stdout
    assert "clean: 2 clean words; 2 left out" in fixed.stderr
    assert list(LmdbReader(tmp_path / "clean")) == [(drawn("a"), "KL-58"), (drawn("b"), "MM 1")]
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["errors"], found["warnings"], found["steps"]) == (2, 0, 26)
    assert [(finding["key"], finding["kind"]) for finding in found["findings"]] == [
        ("gone.png", "missing"),
        ("c.png", "characters"),
    ]
    again = run("check", plates, "--fix", tmp_path / "clean")
    assert again.exit_code == 2 and "already exists" in again.stderr and again.stdout == ""
    nowhere = run("check", plates, "--json", tmp_path / "none" / "c.json")
    assert nowhere.exit_code == 2 and "no such folder" in nowhere.stderr
    clean = run("check", tmp_path / "clean", *charset)
    assert (clean.exit_code, clean.stdout.splitlines()[-1]) == (0, "0 errors, 0 warnings")


def test_check_against_a_model_and_another_width(tmp_path: Path, plates: Path) -> None:
    result = run("check", plates, "--model", WEIGHTS)
    assert "labels under the alnum36 protocol must fit 26 time steps" in result.stdout
    assert "warning: characters that the alnum36 protocol leaves out: 3" in result.stdout
    assert "error: empty label: 1" in result.stdout  # nothing is left of é
    assert "must fit 5 time steps" in run("check", plates, "--width", "16").stdout
    assert "more characters than the network has time steps for: 2" in run("check", plates, "--width", "12").stdout
    assert run("check", plates, "--width", "12", "--model", WEIGHTS).exit_code == 2


def test_check_between_two_sets(tmp_path: Path, plates: Path) -> None:
    run("build", plates, tmp_path / "test_lmdb")
    result = run("check", plates, tmp_path / "test_lmdb")
    assert "error: the same picture in two data sets: 3" in result.stdout
    assert f"{plates}: a.png: as {tmp_path / 'test_lmdb'}: image-000000001" in result.stdout


def test_labels_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.png").write_bytes(drawn("a"))
    (tmp_path / "w" / "labels.tsv").write_text("a.png\t\x1b[2Jx\n")
    for arguments in (("stats", tmp_path / "w"), ("check", tmp_path / "w", "--charset", "x")):
        result = run(*arguments)
        assert "\x1b" not in result.stdout and "\x1b" not in result.stderr


def test_every_format_can_be_forced() -> None:
    assert [format.value for format in Format] == list(FORMATS)


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    Image.new("L", (60, 20), 200).save(tmp_path / "0.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("0.png,open\n", encoding="utf-8")
    for place in (tmp_path, labels):
        refused = CliRunner().invoke(app, ["data", "stats", str(place), "--json", str(labels)])
        assert refused.exit_code == 2 and "is what is to be read, or lies in it" in refused.stderr
    assert labels.read_text(encoding="utf-8") == "0.png,open\n"
    for _ in range(2):  # a report may lie beside the pictures
        done = CliRunner().invoke(app, ["data", "stats", str(labels), "--json", str(tmp_path / "stats.json")])
        assert done.exit_code == 0, done.output
    for command in (["stats", str(labels), "--json", "."], ["build", str(tmp_path), str(tmp_path / "lmdb")]):
        assert CliRunner().invoke(app, ["data", *command]).exit_code == (2 if "." in command else 0)
    own = CliRunner().invoke(
        app, ["data", "build", str(tmp_path / "lmdb"), str(tmp_path / "lmdb" / "data.mdb"), "--overwrite"]
    )
    assert own.exit_code == 2 and "one of the data sets to read" in own.stderr
    assert len(LmdbReader(tmp_path / "lmdb")) == 1
