"""Prepared words -> result files, as the original's ``benchmark`` and ais_bench leave them; on any engine.

A result file holds the network's output for one word, float32[steps, 1, classes] (26 x 37 values, 3,848 bytes, by the
deliverable's contract): the batch axis of the output is 1, and it is split along that.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crnn.engines import Engine
from crnn.errors import DatasetError, OptionError
from crnn.evaluation.report import model_entries
from crnn.files import make_folder, write_whole
from crnn.offline.bins import check_preparation, problem, read_batch
from crnn.offline.files import Progress, claim, content_sha256, size_of
from crnn.offline.performance import Times, ais_bench_lines, ais_bench_summary, benchmark_text

Naming = Literal["benchmark", "ais_bench"]
Format = Literal["bin", "txt", "npy"]

CLAIM = "crnn-infer.json"
"""What says, in a folder of results, which model made them of which words."""


@dataclass(frozen=True)
class Inferred:
    """What :func:`infer` did; ``words`` were run through the network, ``kept`` had their result file already."""

    folder: Path
    """Where the result files are."""
    words: int
    kept: int
    performance: Path | None
    """The file of measured times, None where nothing was left to run."""
    lines: tuple[str, ...]
    """What the original tool prints about its speed."""


def infer(
    files: Sequence[Path],
    engine: Engine,
    out: Path,
    *,
    naming: Naming = "benchmark",
    form: Format = "bin",
    batch_size: int = 16,
    device: int = 0,
    progress: Progress | None = None,
) -> Inferred:
    """Run prepared words through ``engine`` and write one result file for each.

    ``benchmark``: ``out/dumpOutput_device{device}/test_5_1.bin`` and ``out/perf_vision_batchsize_{N}_device_{K}.txt``.
    ``ais_bench``: ``out/test_5_0.bin`` and, beside the folder, ``{out}_summary.json``. The last batch is padded with
    its first word, and the results of that dropped. One call of the engine goes before the measured ones, as warm-up.

    Results that are there, complete and of the same words and model, are kept: a run that was killed goes on where it
    was, and then measures only what was left.

    Raises DatasetError: a file is not a word as the model takes it, two files would have the same result, or ``out``
    holds results of other work. OptionError: something cannot be written, or ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, not {batch_size}")
    spec = engine.spec
    for folder in sorted({path.parent for path in files}):
        check_preparation(folder, spec)
    for path in files:
        if why := problem(path, spec):
            raise DatasetError(f"{path}: {why}")
    folder = out / f"dumpOutput_device{device}" if naming == "benchmark" else out
    if any(path.parent.resolve() == folder.resolve() for path in files):
        raise DatasetError(f"{folder}: holds the words themselves; give their results another folder")
    targets = _targets(files, folder, naming, form)
    content = {
        **model_entries(engine),
        "spec": spec.to_json(),
        "input": {"path": str(files[0].parent), "sha256": content_sha256(files)},
        "naming": naming,
        "format": form,
    }
    make_folder(folder)
    claim(folder, CLAIM, content, next((target for target in targets.values() if target.exists()), None))

    dummy = np.zeros((spec.steps, 1, spec.charset.classes), np.float32)
    size = len(encode(dummy, naming, form)) if form != "txt" else None
    todo = [path for path in files if not _is_complete(targets[path], size)]
    times = Times(batch_size)
    for start in range(0, len(todo), batch_size):
        _run_batch(todo[start : start + batch_size], engine, targets, times, naming, form)
        if progress:
            progress(len(files) - len(todo) + times.words, len(files))
    if not todo:
        return Inferred(folder, 0, len(files), None, ())
    performance, lines = _write_performance(out, naming, device, times, targets, engine)
    return Inferred(folder, len(todo), len(files) - len(todo), performance, lines)


def encode(piece: NDArray[np.float32], naming: Naming, form: Format) -> bytes:
    """The bytes of a result file: raw, NumPy's format, or text.

    As text, ais_bench writes a line of ``%f`` for each vector of the last axis; benchmark a single line, here with the
    nine digits that keep a float32 exactly.
    """
    if form == "bin":
        return piece.tobytes()
    file = io.BytesIO()
    if form == "npy":
        np.save(file, piece)
    elif naming == "ais_bench":
        np.savetxt(file, piece.reshape(-1, piece.shape[-1]), fmt="%f")
    else:
        np.savetxt(file, piece.reshape(1, -1), fmt="%.9g")
    return file.getvalue()


def _targets(files: Sequence[Path], folder: Path, naming: Naming, form: Format) -> dict[Path, Path]:
    """The result file of each input file."""
    targets: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in files:
        # benchmark counts outputs from 1; ais_bench from 0, and takes the name up to its first dot
        stem = f"{path.stem}_1" if naming == "benchmark" else f"{path.name.split('.')[0]}_0"
        target = targets[path] = folder / f"{stem}.{form}"
        if (other := taken.setdefault(target, path)) is not path:
            raise DatasetError(f"{path} and {other} would have the same result file {target.name}; rename one")
    return targets


def _is_complete(target: Path, size: int | None) -> bool:
    """Whether a result is there: of ``size`` bytes, or if that is not known, of any (files appear whole)."""
    found = size_of(target)
    return found > 0 if size is None else found == size


def _run_batch(
    paths: Sequence[Path], engine: Engine, targets: dict[Path, Path], times: Times, naming: Naming, form: Format
) -> None:
    began = time.perf_counter()
    words = read_batch(paths, engine.spec)
    read = time.perf_counter()
    padding = np.repeat(words[:1], times.batch_size - len(words), axis=0)
    batch = np.concatenate([words, padding])
    stacked = time.perf_counter()
    if not times.run:
        engine.run(batch)
    start = time.perf_counter()
    logp = engine.run(batch)
    ran = time.perf_counter()
    for k, path in enumerate(paths):
        write_whole(targets[path], encode(np.ascontiguousarray(logp[:, k : k + 1]), naming, form))
    written = time.perf_counter()
    times.words += len(paths)
    times.read.append(read - began)
    times.stack.append(stacked - read)
    times.run.append(ran - start)
    times.write.append(written - ran)


def _write_performance(
    out: Path, naming: Naming, device: int, times: Times, targets: dict[Path, Path], engine: Engine
) -> tuple[Path, tuple[str, ...]]:
    if naming == "benchmark":
        path = out / f"perf_vision_batchsize_{times.batch_size}_device_{device}.txt"
        text = benchmark_text(times)
        write_whole(path, text)
        return path, tuple(text.splitlines())
    path = out.absolute().with_name(f"{out.absolute().name}_summary.json")
    arguments = {
        "model": str(engine.path),
        "output": str(out),
        "batchsize": times.batch_size,
        "engine": engine.name,
        "device": engine.device,
        "precision": engine.precision,
    }
    summary = ais_bench_summary(times, {str(a): str(b) for a, b in targets.items()}, arguments)
    write_whole(path, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    return path, tuple(ais_bench_lines(summary, times.batch_size))
