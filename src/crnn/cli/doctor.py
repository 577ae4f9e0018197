"""``crnn doctor``: whether reading works here, with what, and what is in the way."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from crnn import __version__
from crnn.errors import CrnnError

_WORDS = 8  # of the bundled sample are read
_PACKAGES = ("numpy", "pillow", "lmdb")
_DISTRIBUTIONS = {"cann": "onnxruntime-cann"}  # where an engine is not called as the package is


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    require: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An engine that has to work too; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation by reading words of the bundled sample. Nothing is sent or fetched.

    The exit status is 0 if reading works and every engine named with --require
    does, 1 otherwise. Engines that reading does not need are looked up, but not
    started unless they are required. The engines for Ascend devices, ascend and
    cann, have not yet been run on hardware.
    """
    report = examine(require or [])
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        _show(report)
    if report["problems"]:
        raise typer.Exit(1)


def examine(require: list[str]) -> dict[str, Any]:
    """The report, ready for JSON; ``problems`` is empty if reading works and the required engines do."""
    from crnn.engines import NAMES, probe
    from crnn.engines.processors import processor

    ascend = probe.ascend()
    weights = _weights()
    reading = _read("auto")
    engines: dict[str, dict[str, Any]] = {name: {"version": _version(name), "works": None} for name in NAMES}
    engines["ascend"]["version"] = _cann(ascend)
    if (used := reading["engine"]) in engines:
        engines[used] = reading
    problems = [] if reading["works"] else [f"reading does not work: {reading['error']}"]
    for name in dict.fromkeys(require):
        if name not in engines:
            problems.append(f"--require {name}: there is no such engine; there are: {', '.join(NAMES)}")
            continue
        if name != used:
            engines[name] |= _start(name, ascend)
        if not engines[name]["works"]:
            problems.append(f"--require {name}: {engines[name]['error']}")
    return {
        "crnn": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": {name: _version(name) for name in _PACKAGES},
        "weights": weights,
        "engines": engines,
        "reading": reading,
        "processor": processor(),
        "ascend": ascend,
        "writable": {where: _writable(folder) for where, folder in _folders().items()},
        "problems": problems,
    }


def _start(name: str, ascend: dict[str, Any]) -> dict[str, Any]:
    """Whether an engine works. Those of Ascend are tried in a process of their own, which is given up if it hangs."""
    from crnn.engines import probe

    if name == "cann":
        return probe.apart("crnn.cli.doctor._read('cann')", 120)
    if name != "ascend":
        return _read(name)
    # No words are read: there is no .om for every chip to bring along
    found = probe.apart("crnn.engines.probe.start_device()", 60)
    if found["works"]:
        return found | {"precision": "as compiled", "threads": 1}
    missing = "".join(f"; missing: {what}" for what in ascend["missing"])
    return found | {"error": found["error"] + missing}


def _cann(ascend: dict[str, Any]) -> str | None:
    """The toolkit in a word; None if it is not here."""
    found = ascend["toolkit"]
    return f"CANN {found['version'] or 'of unknown version'}" if found else None


def _read(name: str) -> dict[str, Any]:
    """Really read words of the sample. Wrong texts show a broken engine; a single hard word does not."""
    began = time.perf_counter()
    found: dict[str, Any] = {"engine": name, "version": _version(name), "works": False}
    try:
        from crnn.datasets.lmdb import LmdbReader
        from crnn.engines import bundled_model, choose, open_engine
        from crnn.protocols import alnum36
        from crnn.reader import Item, Reader

        if name == "auto":
            found["engine"] = name = choose(bundled_model())[0]
        engine = open_engine(None, name)
        facts = ("version", "device", "precision", "threads")
        found |= {fact: getattr(engine, fact) for fact in facts} | {"notes": list(engine.notes)}
        sample = LmdbReader(Path(__file__).parent.parent / "samples" / "words_lmdb")
        labels = [alnum36(sample.label(i)) for i in range(_WORDS)]
        items = [Item(sample.key(i), sample.image_bytes(i)) for i in range(_WORDS)]
        texts = [word.text for word in Reader(engine=engine).read_many(items)]
    except CrnnError as error:
        return found | {"error": str(error)}
    except Exception as error:  # a broken library; its own words are the best there is
        return found | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    right = sum(text == label for text, label in zip(texts, labels, strict=True))
    found |= {"words": _WORDS, "right": right, "seconds": round(time.perf_counter() - began, 3)}
    if right < _WORDS / 2:
        return found | {"error": f"only {right} of {_WORDS} words of the bundled sample are read right"}
    return found | {"works": True}


def _weights() -> dict[str, Any]:
    from crnn.engines import bundled_model

    try:
        path = bundled_model()
        data = path.read_bytes()
    except (CrnnError, OSError) as error:
        return {"error": str(error)}
    return {"path": str(path), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _version(package: str) -> str | None:
    """As it is installed, without importing it (which takes torch seconds); None if it is not."""
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTIONS.get(package, package))
    except metadata.PackageNotFoundError:
        return None


def _folders() -> dict[str, str]:
    try:
        temporary = tempfile.gettempdir()
    except OSError:  # there is no writable folder at all
        temporary = ""
    return {"current folder": os.curdir, "temporary folder": temporary}


def _writable(folder: str) -> dict[str, Any]:
    """Whether a file can be made there; it is gone at once. Reading does without, ``--out`` does not."""
    where = {"path": os.path.abspath(folder) if folder else None}
    try:
        with tempfile.TemporaryFile(dir=folder or None) as file:
            file.write(b"crnn")
            file.flush()
    except OSError as error:
        return {**where, "works": False, "error": error.strerror or str(error)}
    return {**where, "works": True}


def _show(report: dict[str, Any]) -> None:
    python, weights, processor = report["python"], report["weights"], report["processor"]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in report["packages"].items())
    rows = [
        ("crnn", report["crnn"]),
        ("Python", f"{python['version']} ({python['executable']})"),
        ("platform", python["platform"]),
        ("processor", f"{processor['name']}, {processor['usable']} usable, {' '.join(processor['features'])}"),
        ("packages", packages),
        ("weights", weights.get("error") or f"{weights['path']} ({weights['bytes'] / 1e6:.1f} MB)"),
        ("sha256", weights.get("sha256", "-")),
    ]
    for name, engine in report["engines"].items():
        rows.append((name, _engine(engine, name)))
    rows += _ascend(report["ascend"])
    for where, found in report["writable"].items():
        state = "can be written to" if found["works"] else f"cannot be written to ({found['error']})"
        rows.append((where, f"{found['path'] or 'none'}: {state}"))
    reading = report["reading"]
    if reading["works"]:
        what = f"{reading['right']} of {reading['words']} words of the sample right, by {reading['engine']}"
        rows.append(("reading", f"works: {what}, {reading['seconds']:.2f} s"))
    for label, value in rows:
        typer.echo(f"{label:18}{value}")
    for problem in report["problems"]:
        typer.echo(f"crnn: {problem}", err=True)


def _ascend(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What of Ascend is here. A line if it is nothing."""
    toolkit, driver = found["toolkit"], found["driver"]
    if not (toolkit or driver or found["devices"] or found["pyacl"]):
        return [("Ascend", "not here (no CANN, no driver, no device); support is not yet run on hardware")]
    rows = [
        ("Ascend", "not yet run on hardware; docs/ascend.md has a checklist"),
        ("CANN", f"{_cann(found)}, {toolkit['path']}, {toolkit['atc'] or 'no ATC'}" if toolkit else "not here"),
        ("driver", f"{driver['version'] or 'of unknown version'}, {driver['path']}" if driver else "not here"),
        ("devices", ", ".join(found["devices"]) or "none"),
        ("pyACL", "importable" if found["pyacl"] else "not importable"),
    ]
    return rows + [("missing", what) for what in found["missing"]]


def _engine(found: dict[str, Any], name: str) -> str:
    if found["version"] is None and not found["works"]:
        return "not installed"
    if found["works"] is None:
        return f"{found['version']}, installed, not started (--require {name} does)"
    if not found["works"]:
        return f"{found['version']}, does not work: {found['error']}"
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    return f"{found['version'] or ''} on {found['device']}, {found['precision']}, {threads}"
