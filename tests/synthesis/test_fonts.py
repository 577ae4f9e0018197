from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from fontTools.ttLib import TTFont

from crnn.errors import DatasetError
from crnn.synthesis.fonts import open_face, open_fonts


def test_families_count_once_however_many_files_they_have(fonts: Path) -> None:
    pool, dice = open_fonts([str(fonts)]), Random(0)
    counts = Counter(pool.sample(dice).family for _ in range(4000))
    assert counts["One"] / counts["Two"] == pytest.approx(1, rel=0.15)


def test_sources_have_shares(fonts: Path) -> None:
    pool, dice = open_fonts([f"{fonts / 'a.ttf'}:3", str(fonts / "b.ttf")]), Random(0)
    counts = Counter(pool.sample(dice).family for _ in range(4000))
    assert counts["One"] / counts["Two"] == pytest.approx(3, rel=0.15)
    for share in ("inf", "nan", "0"):
        with pytest.raises(DatasetError, match=f"a.ttf:{share} does not exist"):
            open_fonts([f"{fonts / 'a.ttf'}:{share}"])


def test_a_list_names_files(fonts: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.tsv"
    listed.write_text(f"family\tpath\nOne\t{fonts / 'a.ttf'}\n", encoding="utf-8")
    assert [face.path for face in open_fonts([str(listed)]).faces] == [fonts / "a.ttf"]
    listed.write_text("family\nOne\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="no column"):
        open_fonts([str(listed)])
    listed.write_bytes(b"\xff\x00")
    with pytest.raises(DatasetError, match=r"cannot read the font list .*list\.tsv"):
        open_fonts([str(listed)])


@pytest.mark.parametrize("gone", ["gone.ttf", ""])
def test_a_list_names_files_that_are_there(gone: str, fonts: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.tsv"
    listed.write_text(f"path\tfamily\n{fonts / 'a.ttf'}\tOne\n{gone}\tTwo\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"list\.tsv:3: there is no file {gone}"):
        open_fonts([str(listed)])


def test_woff2_is_the_same_font(fonts: Path, tmp_path: Path) -> None:
    font = TTFont(fonts / "a.ttf")
    font.flavor = "woff2"
    font.save(tmp_path / "a.woff2")
    face, plain = open_face(tmp_path / "a.woff2"), open_face(fonts / "a.ttf")
    assert face is not None and plain is not None
    assert face.characters == plain.characters and face.units == plain.units


def test_what_is_no_font_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "page.ttf").write_text("<html>not a font</html>", encoding="utf-8")
    assert open_face(tmp_path / "page.ttf") is None
    with pytest.raises(DatasetError, match="no usable font"):
        open_fonts([str(tmp_path)])
    with pytest.raises(DatasetError, match="does not exist"):
        open_fonts([str(tmp_path / "nowhere")])


def test_a_font_without_digits_is_left_out(fonts: Path, tmp_path: Path) -> None:
    font = TTFont(fonts / "a.ttf")
    for table in font["cmap"].tables:
        table.cmap = {code: name for code, name in table.cmap.items() if chr(code) != "7"}
    font.save(tmp_path / "seven.ttf")
    assert open_face(tmp_path / "seven.ttf") is None


def test_faces_travel_to_other_processes(fonts: Path) -> None:
    face = open_face(fonts / "a.ttf")
    assert face is not None
    assert face.units > 0  # opened here: what is open stays behind
    copy = pickle.loads(pickle.dumps(face))
    assert copy == face and copy.characters == face.characters and copy.units == face.units


def test_a_list_with_a_byte_order_mark(fonts: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.tsv"
    listed.write_text(f"path\tfamily\n{fonts / 'a.ttf'}\tOne\n", encoding="utf-8-sig")
    assert [face.path for face in open_fonts([str(listed)]).faces] == [fonts / "a.ttf"]
