"""``crnn describe``: what a model is, as the file itself says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli._options import Engine, Model

if TYPE_CHECKING:
    from crnn import engines


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("describe")(describe)


def describe(
    model: Model = None,
    engine: Engine = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model reads and writes, where it came from and under which licence, as its file says.

    The file is opened as for reading, so what cannot be read here is an error.
    """
    from crnn.engines import open_engine

    opened = open_engine(model, engine)
    facts = examine(opened)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for name, value in _lines(facts):
        typer.echo(f"{name:14}{value}")
    for note in opened.notes:
        typer.echo(f"crnn: {note}", err=True)


def examine(engine: engines.Engine) -> dict[str, Any]:
    """``model`` {path, bytes, sha256}, ``engine``, ``spec``, ``int8``: whether ranges for int8 lie beside the file."""
    from crnn import quantization
    from crnn.evaluation.report import model_entries

    entries = model_entries(engine)
    size = engine.path.stat().st_size
    return {
        "model": {**entries["model"], "bytes": size},
        "engine": {**entries["engine"], "device": engine.device},
        "spec": json.loads(engine.spec.to_json()),
        "int8": engine.path.suffix == ".onnx" and quantization.place(engine.path).is_file(),
    }


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from crnn.outputs import visible

    model, engine, spec = facts["model"], facts["engine"], facts["spec"]
    characters, size = spec["charset"], f"{spec['height']} x {spec['width']}"
    shape = f"{spec['channels']} x {size} {'RGB' if spec['channels'] == 3 else 'gray'}"
    pixels = f"(v / 255 - {spec['mean']:.4g}) / {spec['std']:.4g}"
    if spec["aipp"]:  # the device makes the gray, normalised input itself
        shape, pixels = f"{size} x {1 if spec['aipp'] == 'gray' else 3} {spec['aipp']}", "uint8 as they are"
    rows = [
        ("model", f"{model['path']} ({model['bytes'] / 1e6:.1f} MB)"),
        ("sha256", model["sha256"]),
        ("opened by", f"{engine['name']} {engine['version']} on {engine['device']}, {engine['precision']}"),
        ("characters", f"{len(characters)}: {characters}"),
        ("input", f"{spec['input_name']}, N x {shape}, resized {spec['resampling']}, {pixels}"),
        ("output", f"{spec['output_name']}, {spec['steps']} x N x {len(characters) + 1} log-probabilities"),
        ("trunk", spec["trunk"]),
        ("temperature", f"{spec['temperature']:.4g}"),
        ("int8", "ranges beside it" if facts["int8"] else "no ranges beside it (crnn quantize)"),
        ("licence", spec["licence"] or "not said"),
    ]
    rows += [("lineage" if k == 0 else "", step) for k, step in enumerate(spec["lineage"] or ["not said"])]
    return [(name, visible(value)) for name, value in rows]
