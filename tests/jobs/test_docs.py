"""What docs/jobs.md says to type. (Its Ray job is run in test_ray.py.)"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main

import crnn
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")


def test_its_options_exist() -> None:
    command = typer.main.get_command(app).commands["job"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - {"--resources", "--count", "--json", "--page"} <= known


def function(library: str) -> Any:
    """The function that the page gives to a library: its block, but for what needs the library itself."""
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if library in block]
    whole = ast.parse(code)
    whole.body = [node for node in whole.body if library not in ast.unparse(node)]
    last = next(i for i, node in enumerate(whole.body) if isinstance(node, ast.FunctionDef))
    whole.body = [node for node in whole.body[: last + 1] if "spark" not in ast.unparse(node)]
    names: dict[str, Any] = {}
    exec(compile(whole, "jobs.md", "exec"), names)
    return names["read"]


@pytest.mark.parametrize(("library", "column"), [("pyspark", "content"), ("dask", "bytes")])
def test_its_functions_read(library: str, column: str) -> None:
    source = LmdbReader(Path(crnn.__file__).parent / "samples" / "words_lmdb")
    pictures = [source.image_bytes(i) for i in range(5)] + [b"nothing"]
    frame = pd.DataFrame({"path": list("abcdef"), column: pictures, "other": 0})
    read = function(library)
    found = next(read(iter([frame]))) if library == "pyspark" else read(frame)
    words = list(crnn.Reader().read_many(pictures, on_error="record"))
    assert list(found["path"]) == list("abcdef") and list(found["text"]) == [word.text for word in words]
    if library == "pyspark":
        assert found["error"].isna().sum() == 5 and found["error"].iloc[5].startswith("not a picture")
