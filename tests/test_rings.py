"""Reading needs neither torch nor OpenCV, and ``import crnn`` needs nothing at all."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import crnn

ROOT = Path(crnn.__file__).parent
HEAVY = {"torch", "cv2", "onnxruntime", "PIL", "typer", "lmdb"}
TRAINING_ROOMS = ("training", "synthesis", "export")
ASKED_FOR = {"engines/torch.py", "bench/products.py"}  # torch is what the user named there
TRAINING_ONLY = {
    "torch",
    "cv2",
    "accelerate",
    "tensorboard",
    "uharfbuzz",
    "fontTools",
    "wordfreq",
    "onnx",
    "safetensors",
}


def loaded_by(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after ``code``."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing() -> None:
    assert not loaded_by("import crnn") & (HEAVY | {"numpy"})


def test_public_names_load_little() -> None:
    names = "[name for name in crnn.__all__ if name not in ('Reader', 'Item')]"
    loaded = loaded_by(f"import crnn\nfor name in {names}: getattr(crnn, name)\nimport crnn.ctc")
    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_the_reader_loads_no_engine_before_it_is_made() -> None:
    loaded = loaded_by("import crnn; crnn.Reader")
    assert loaded & HEAVY == {"PIL"}


def test_public_names() -> None:
    assert set(crnn.__all__) <= set(dir(crnn))
    assert all(getattr(crnn, name) is not None for name in crnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Rader'"):
        crnn.Rader  # noqa: B018


def test_help_is_quick() -> None:
    code = "import sys; sys.argv = ['crnn', '--help']\nfrom crnn.__main__ import main\n"
    code += "try: main()\nexcept SystemExit: pass"
    assert not loaded_by(code) & (HEAVY - {"typer"})


def imports(node: ast.AST, at_import: bool) -> Iterator[str]:
    """Full names of what a module imports; with ``at_import``, only what importing it already loads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (name for other in child.orelse for name in imports(other, at_import))
        elif not (at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports(child, at_import)


def reading_ring() -> list[Path]:
    files = [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py"))]
    return [path for path in files if path.parts[0] not in TRAINING_ROOMS and path.as_posix() not in ASKED_FOR]


@pytest.mark.parametrize("path", reading_ring(), ids=str)
def test_reading_ring_does_not_import_the_training_ring(path: Path) -> None:
    # A command may load the training ring once it runs; everything else never does.
    names = list(imports(ast.parse((ROOT / path).read_text(encoding="utf-8")), at_import=path.parts[0] == "cli"))
    assert not [name for name in names if name.partition(".")[0] in TRAINING_ONLY]
    assert not [name for name in names if name.startswith(tuple(f"crnn.{room}" for room in TRAINING_ROOMS))]


def rooms() -> list[str]:
    """The rooms in the order of the page about them, the lowest first."""
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(r"src/crnn/\n(.*?)```", page, re.DOTALL)
    assert found
    listed = re.findall(r"^  (\w[\w./]*(?:, [\w./]+)*)", found[1], re.MULTILINE)
    return [name.rstrip("/").removesuffix(".py") for names in listed for name in names.split(", ")]


def test_the_page_names_every_room() -> None:
    there = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert there - {"__init__", "__main__"} <= set(rooms())


@pytest.mark.parametrize("path", [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py"))], ids=str)
def test_a_room_knows_only_those_below_it(path: Path) -> None:
    order = rooms()
    own = path.parts[0].removesuffix(".py")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    known = {name.split(".")[1] for name in imports(tree, at_import=True) if name.startswith("crnn.")} & set(order)
    if own in order:  # the package itself belongs to no room
        assert not known - {own} - set(order[: order.index(own)])
