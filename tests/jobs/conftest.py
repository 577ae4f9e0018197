"""Inputs of every kind, with numbered pictures in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.jobs.light import Light, numbered

from crnn.datasets.lmdb import LmdbWriter
from crnn.jobs.run import Here, Job, run
from crnn.jobs.units import Layout


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's memory://, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def archive(numbers: range, bad: bytes | None = None, mode: str = "w") -> bytes:
    """A tar archive of numbered pictures, with the labels that WebDataset has beside them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for i in numbers:
            for name, data in ((f"{i:06}.png", numbered(i)), (f"{i:06}.txt", b"label")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        if bad is not None:
            member = tarfile.TarInfo("bad.png")
            member.size = len(bad)
            tar.addfile(member, io.BytesIO(bad))
    return file.getvalue()


def table(numbers: range, rows_a_group: int, struct: bool = False) -> bytes:
    """A Parquet file of numbered pictures, with a name for each."""
    images: list[Any] = [numbered(i) for i in numbers]
    if struct:
        images = [{"bytes": image, "path": None} for image in images]
    file = io.BytesIO()
    pq.write_table(pa.table({"id": [f"id {i}" for i in numbers], "image": images}), file, row_group_size=rows_a_group)
    return file.getvalue()


def lmdb(path: Path, numbers: range) -> Path:
    """An LMDB data set of numbered pictures."""
    with LmdbWriter(path) as writer:
        for i in numbers:
            writer.add(numbered(i), "label")
    return path


def folder(path: Path, numbers: range) -> Path:
    """A folder, with folders in it, of numbered pictures."""
    for i in numbers:
        place = path / ("" if i % 3 else f"sub{i % 2}") / f"{i:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(numbered(i))
    return path


def job(source: object, output: object, part: int = 10, **options: Any) -> Job:
    """A job with the light network. ``options`` are those of Job, or of Layout."""
    layout = {key: options.pop(key) for key in ("image_column", "source_column") if key in options}
    reader = {"engine": Light(options.pop("log", None)), "batch_size": 8, "threads": 2, **options.pop("reader", {})}
    return Job(str(source), str(output), reader, Layout(part, **layout), **options)


def do(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Do such a job here; its manifest."""
    return run(job(*arguments, **options), Here())


def rows(output: object) -> list[dict[str, Any]]:
    """All rows of a job's results, as somebody else reads them: hidden names and those with _ passed over."""
    fs, path = fsspec.core.url_to_fs(str(output))
    names = sorted(name for name in fs.ls(path, detail=False) if name.rpartition("/")[2][0] not in "._")
    assert all(name.endswith(".parquet") for name in names)
    found: list[dict[str, Any]] = []
    for name in names:
        with fs.open(name, "rb") as file:
            found += pq.read_table(file).to_pylist()
    return found


def texts(output: object) -> list[str]:
    """The texts of all rows, sorted."""
    return sorted(row["text"] for row in rows(output))
