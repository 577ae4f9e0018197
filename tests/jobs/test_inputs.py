"""Every kind of input gives a row a picture, wherever it lies."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.conftest import archive, do, folder, lmdb, rows, table, texts
from tests.jobs.light import numbered

from crnn.errors import DatasetError, OptionError
from crnn.jobs import listing
from crnn.jobs.storage import place
from crnn.jobs.units import Layout, Unit, find_units, parts

COUNT = 37
ALL = [f"{i:06}" for i in range(COUNT)]


def everywhere(path: Path) -> Path:
    """A folder with something of everything in it, 37 pictures together."""
    folder(path / "files", range(10))
    (path / "b.tar").write_bytes(archive(range(10, 15)))
    (path / "c.tar.gz").write_bytes(archive(range(15, 20), mode="w:gz"))
    (path / "d.parquet").write_bytes(table(range(20, 30), 3))
    lmdb(path / "words", range(30, COUNT))
    (path / "README.txt").write_text("no picture")
    (path / ".hidden.png").write_bytes(b"passed over")
    return path


def test_everything_in_a_folder(tmp_path: Path) -> None:
    source = everywhere(tmp_path / "in")
    made = do(source, tmp_path / "out", part=4)
    assert made["complete"] and made["counts"] == {"parts": made["input"]["parts"], "words": COUNT, "errors": 0}
    found = rows(tmp_path / "out")
    assert sorted(row["text"] for row in found) == ALL
    sources = {row["text"]: row["source"] for row in found}
    assert len(set(sources.values())) == COUNT
    assert sources["000001"] == f"{source}/files/000001.png" and sources["000012"] == f"{source}/b.tar/000012.png"
    assert sources["000003"] == f"{source}/files/sub1/000003.png"
    assert sources["000022"] == f"{source}/d.parquet/row 3" and sources["000030"] == f"{source}/words/image-000000001"
    assert all(row["error"] is None and row["confidence"] > 0.99 for row in found)


@pytest.mark.parametrize("kind", ["folder", "pattern", "tar", "parquet", "struct"])
@pytest.mark.parametrize("storage", ["path", "file", "memory"])
def test_an_input_in_any_storage(kind: str, storage: str, tmp_path: Path, memory: Any) -> None:
    prefix = {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": "memory://"}[storage]
    root = place(f"{prefix}/in")
    root.fs.makedirs((root / "sub").path)
    if kind in ("folder", "pattern"):
        for i in range(COUNT):
            root.fs.pipe_file((root / f"{'sub/' if i % 2 else ''}{i:06}.png").path, numbered(i))
        root.fs.pipe_file((root / "other.txt").path, b"no picture")
    else:
        data = archive(range(COUNT)) if kind == "tar" else table(range(COUNT), 5, kind == "struct")
        root.fs.pipe_file((root / "words").path, data)  # its name does not say what it is
    inside = {"folder": "", "pattern": "/*"}.get(kind, "/words")
    made = do(f"{prefix}/in{inside}", f"{prefix}/out", part=6)
    assert texts(f"{prefix}/out") == ALL and made["complete"]
    above = "memory://" if storage == "memory" else str(tmp_path)
    assert all(row["source"].startswith(f"{above}/in/") for row in rows(f"{prefix}/out"))
    assert made["counts"]["parts"] == {"folder": 7, "pattern": 7, "tar": 1}.get(kind, 4)
    assert not [name for name in root.fs.ls(f"{prefix}/out", detail=False) if ".tmp" in name]


def test_an_lmdb_is_read_from_this_machine_only(tmp_path: Path, memory: Any) -> None:
    do(lmdb(tmp_path / "in", range(COUNT)), tmp_path / "out", part=10)
    assert texts(tmp_path / "out") == ALL and len(list((tmp_path / "out").glob("part-*.parquet"))) == 4
    memory.pipe_file("/set/data.mdb", (tmp_path / "in" / "data.mdb").read_bytes())
    with pytest.raises(OptionError, match="own disks; copy it here"):
        do("memory://set", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_columns_of_parquet_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = {"crop": [numbered(0), None], "face": [b"", b""], "id": ["a", "b"]}
    pq.write_table(pa.table(data), tmp_path / "in.parquet")
    with pytest.raises(DatasetError, match=r"which column holds the pictures\? Say it with --image-column"):
        do(tmp_path / "in.parquet", tmp_path / "out")
    with pytest.raises(OptionError, match=r"--source-column key: .*in.parquet has crop, face, id"):
        do(tmp_path / "in.parquet", tmp_path / "out", image_column="crop", source_column="key")
    do(tmp_path / "in.parquet", tmp_path / "out", image_column="crop", source_column="id", characters=True)
    first, second = rows(tmp_path / "out")
    assert (first["source"], first["text"], first["error"]) == ("a", "000000", None)
    assert [each["character"] for each in first["characters"]] == list("000000")
    assert first["characters"][1]["span"] == [6.0, 10.0] and first["characters"][1]["score"] > 0.99
    assert (second["source"], second["text"], second["error"]) == ("b", None, "the row has no picture")


def test_nothing_to_read(tmp_path: Path, memory: Any) -> None:
    (tmp_path / "empty").mkdir()
    for source, what in (
        (tmp_path / "empty", "no picture, tar archive, Parquet file or LMDB"),
        (tmp_path / "*.tar", "no picture, tar archive, Parquet file or LMDB"),
        (tmp_path / "gone", "there is no such file or folder"),
        ("memory://gone", "there is no such file or folder"),
    ):
        with pytest.raises(DatasetError, match=what):
            do(source, tmp_path / "out")
    with pytest.raises(OptionError, match="not a path or URL that can be opened"):
        do("nonsense://x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_listing_finds_the_units_of_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of all sizes, none of them divided between two groups of rows, however large it is."""
    monkeypatch.setattr(listing, "_GROUP", 5)
    sizes = [3, 1, 12, 4, 4, 1, 30]
    written = [
        listing.Row(part, Unit("picture", f"{part}/{i}", 0, 1, 10, ""))
        for part, n in enumerate(sizes)
        for i in range(n)
    ]
    facts = listing.write(written, place(tmp_path / "list.parquet"))
    assert (facts.parts, facts.files, facts.words) == (7, sum(sizes), sum(sizes))
    found = listing.Listing(place(tmp_path / "list.parquet"))
    assert [row for part in range(7) for row in ((part, unit) for unit in found.part(part))] == written
    assert found.sizes().tolist() == [10 * n for n in sizes]


@pytest.mark.parametrize("seed", range(20))
def test_parts_divide_units(seed: int) -> None:
    chance = random.Random(seed)
    kinds = ("picture", "picture", "picture", "tar")
    units = [Unit(chance.choice(kinds), str(i), 0, 1, 1, "") for i in range(chance.randrange(1, 60))]  # type: ignore[arg-type]
    words = chance.randrange(1, 9)
    made = list(parts(units, words))
    assert [unit for part in made for unit in part] == units
    for part, following in zip(made, [*made[1:], None], strict=True):
        assert len(part) <= words and (len(part) == 1 or {unit.kind for unit in part} == {"picture"})
        if following is not None and following[0].kind == part[0].kind == "picture":
            assert len(part) == words


@pytest.mark.parametrize("pattern", ["**", "*", "**/*", "[!x]*"])
@pytest.mark.parametrize("storage", ["", "memory://"])
def test_a_pattern_finds_everything_once(pattern: str, storage: str, tmp_path: Path, memory: Any) -> None:
    root = place(f"{storage}/{tmp_path}/in" if storage else tmp_path / "in")
    names = ["1.png", "sub/2.png", "sub/deep/3.png", "sub-x/4.png"]
    for name in (*names, ".5.png", "sub/.6.png", ".hidden/7.png", "text.txt"):
        root.fs.makedirs((root / name).path.rpartition("/")[0], exist_ok=True)
        root.fs.pipe_file((root / name).path, numbered(1))
    _, units = find_units(root / pattern, Layout())
    assert sorted(unit.name for unit in units) == sorted(names)


def test_the_output_is_not_an_input(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", range(3))
    for inside, output in (("", "out"), ("/", "a/out"), ("/*", "out"), ("/**", "a/out"), ("/*/*.parquet", "out")):
        with pytest.raises(OptionError, match="lies in the input, which would grow"):
            do(f"{source}{inside}", source / output)
    for _ in range(2):
        assert do(f"{source}/*.png", source / "out")["counts"]["words"] == 2


def test_links(tmp_path: Path) -> None:
    folder(tmp_path / "in", range(1, 3))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "9.png").write_bytes(numbered(9))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere" / "9.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "nowhere.png").symlink_to("gone")
    _, units = find_units(place(tmp_path / "in"), Layout())
    assert [unit.name for unit in units] == ["000001.png", "000002.png", "link.png", "nowhere.png"]
    do(tmp_path / "in", tmp_path / "out")
    assert [(row["text"], row["error"]) for row in rows(tmp_path / "out")][2:] == [
        ("000009", None),
        (None, "cannot be opened (No such file or directory)"),
    ]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder(tmp_path / "in", range(1, 2))
    (tmp_path / "in" / "a\udcff.png").write_bytes(numbered(7))
    do(tmp_path / "in", tmp_path / "out")
    assert [row["source"].rpartition("/")[2] for row in rows(tmp_path / "out")] == ["000001.png", r"a\udcff.png"]
    assert do(tmp_path / "in", tmp_path / "out")["complete"]
