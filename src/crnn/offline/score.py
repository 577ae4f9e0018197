"""Result files, or prepared words and a model, against ``label.txt``: the report of `crnn evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from crnn import ctc
from crnn.ctc import Decoded
from crnn.engines import Engine
from crnn.errors import DatasetError, OptionError
from crnn.evaluation.report import dataset_entry, measured_entries, model_entries, report
from crnn.offline import infer
from crnn.offline.bins import check_preparation, prepared_words, problem, read_batch
from crnn.offline.files import Progress, content_sha256, read_claim
from crnn.offline.labels import read_labels
from crnn.offline.results import Dtype, Reading, find_folder, read_results, result_files
from crnn.protocols import COMPARED, Protocol, protocol_of
from crnn.spec import DELIVERABLE, ModelSpec


@dataclass(frozen=True)
class Scored:
    """A report as :func:`crnn.evaluation.evaluate.evaluate` describes it, over one folder, and what was amiss there.

    The report's words are called by their file names; its ``words_per_second`` is None where nothing was run, and so
    are ``model`` and ``engine`` where nobody knows. ``missing`` and ``malformed`` words are among those skipped.
    """

    report: dict[str, Any]
    spec: ModelSpec
    missing: tuple[str, ...]
    malformed: tuple[str, ...]
    extra: tuple[str, ...]
    """Files of the folder that no label belongs to."""
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether each label has its result."""
        return not (self.missing or self.malformed)


def score_results(
    place: Path,
    labels_file: Path,
    *,
    spec: ModelSpec | None = None,
    protocol: Protocol | None = None,
    dtype: Dtype = "float32",
    progress: Progress | None = None,
) -> Scored:
    """Compare the result files of ``place`` (their folder, or what holds the ``dumpOutput_device{K}``) with labels.

    If every file holds one word, files and labels belong together by name: ``test_5_1.bin`` and ``test_5.bin:label``.
    If some hold more, the files in natural order hold the words of the label file in its order, and their numbers must
    agree. ``spec`` is the model's; without it the one that `crnn infer` left in the folder, or else the deliverable's.
    ``protocol`` None is that of the spec's charset (:func:`crnn.protocols.protocol_of`). ``dtype`` is what ``.bin``
    files hold, float32 or float16.

    Raises DatasetError: a folder or the labels cannot be read, the numbers of words in batch files and labels differ,
    a batch file is malformed, or there is no word to score.
    """
    labels = read_labels(labels_file)
    folder = find_folder(place)
    spec, source, notes = _source(folder, spec)
    protocol = protocol or protocol_of(spec.charset)
    files = result_files(folder)
    reading = read_results(list(files), spec, dtype, progress)
    if reading.logits:
        notes += ("the results are no log-probabilities: confidences are of their softmax",)

    malformed: dict[str, str] = {}
    extra: tuple[str, ...] = ()
    if any(len(words) > 1 for words in reading.words.values()):
        found = _in_order(folder, list(files), reading, labels, labels_file)
    else:
        name_of = {Path(name).stem: name for name in labels}
        if len(name_of) != len(labels):
            raise DatasetError(f"{labels_file}: names that differ only in their suffix: results cannot be told apart")
        known = {path: name_of[stem] for path, stem in files.items() if stem in name_of}
        found = {known[path]: words[0] for path, words in reading.words.items() if path in known}
        malformed = {known[path]: why for path, why in reading.malformed.items() if path in known}
        extra = tuple(path.name for path in files if path not in known)
    words, skipped, missing = _compare(labels, found, malformed, protocol)
    entry = dataset_entry(str(place), content_sha256([labels_file, *files]), words, skipped, None)
    return Scored(report([entry], source, protocol=protocol), spec, missing, tuple(malformed), extra, notes)


def evaluate_bins(
    folder: Path,
    labels_file: Path,
    engine: Engine,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Scored:
    """Read the prepared words that the label file names, as post_CRNN_pytorch_acl.py does, and compare.

    The protocol is that of the model's charset (:func:`crnn.protocols.protocol_of`).

    Raises DatasetError: the folder or the labels cannot be read, the words were prepared for another model, or none of
    them is usable.
    """
    if batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, not {batch_size}")
    labels = read_labels(labels_file)
    files = prepared_words(folder)
    check_preparation(folder, engine.spec)
    problems = {name: problem(folder / name, engine.spec) for name in labels}
    good = [name for name in labels if problems[name] is None]
    found: dict[str, Decoded] = {}
    start = time.perf_counter()
    for k in range(0, len(good), batch_size):
        names = good[k : k + batch_size]
        logp = engine.run(read_batch([folder / name for name in names], engine.spec))
        found.update(zip(names, ctc.decode(logp, engine.spec.charset, engine.spec.temperature), strict=True))
        if progress:
            progress(len(found), len(good))
    seconds = time.perf_counter() - start
    malformed = {name: why for name, why in problems.items() if why and (folder / name).exists()}
    extra = tuple(path.name for path in files if path.name not in labels)
    sha256 = content_sha256([labels_file, *(folder / name for name in good)])
    protocol = protocol_of(engine.spec.charset)
    words, skipped, missing = _compare(labels, found, malformed, protocol)
    entry = dataset_entry(str(folder), sha256, words, skipped, seconds)
    source = model_entries(engine) | measured_entries(engine)
    return Scored(report([entry], source, protocol=protocol), engine.spec, missing, tuple(malformed), extra)


def _in_order(
    folder: Path, files: Sequence[Path], reading: Reading, labels: Mapping[str, str], labels_file: Path
) -> dict[str, Decoded]:
    """The words of files that hold several each: they are the labels' in the labels' order."""
    if reading.malformed:
        path, why = next(iter(reading.malformed.items()))
        raise DatasetError(f"{path}: {why}; where files hold several words each, none behind it can be told")
    words = [word for path in files for word in reading.words[path]]
    if len(words) != len(labels):
        counts = f"{len(files):,} files hold {len(words):,} words, but {labels_file} has {len(labels):,} labels"
        raise DatasetError(f"{folder}: {counts}")
    return dict(zip(labels, words, strict=True))


def _source(folder: Path, spec: ModelSpec | None) -> tuple[ModelSpec, dict[str, Any], tuple[str, ...]]:
    """(spec, the report's entries about the model, notes) of a folder of results."""
    claimed = read_claim(folder, infer.CLAIM) or {}
    source = {key: claimed.get(key) for key in ("model", "engine")}
    notes: tuple[str, ...] = ()
    if spec is None and "spec" in claimed:
        spec = ModelSpec.from_json(str(claimed["spec"]))
    if spec is None:
        spec, notes = DELIVERABLE, (f"{folder} does not say which model it is of: read as 26 steps, blank and 0-9a-z",)
    return spec, {**source, "temperature": spec.temperature, "measured": None}, notes


class _Compared(NamedTuple):
    words: list[dict[str, Any]]
    skipped: list[dict[str, Any]]
    missing: tuple[str, ...]


def _compare(
    labels: Mapping[str, str], found: Mapping[str, Decoded], malformed: Mapping[str, str], protocol: Protocol
) -> _Compared:
    """The report's words and what is left out, in the labels' order."""
    compared = COMPARED[protocol]
    result = _Compared([], [], tuple(name for name in labels if name not in found and name not in malformed))
    for name, stored in labels.items():
        label = compared(stored)
        reason = malformed.get(name) or ("missing" if name not in found else None)
        if reason is None and not label and protocol == "alnum36":
            reason = f"nothing is left of the label {stored!r} under {protocol}"
        if reason is not None:
            result.skipped.append({"key": name, "reason": reason})
        else:
            text, confidence = compared(found[name].text), found[name].confidence
            result.words.append({"key": name, "label": label, "text": text, "confidence": confidence})
    return result
