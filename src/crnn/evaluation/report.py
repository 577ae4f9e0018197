"""The report of an evaluation: one dictionary, whatever was read and from where; and ModelZoo's short form of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn import __version__, quantization
from crnn.engines.processors import processor
from crnn.errors import DatasetError
from crnn.evaluation.calibration import calibration
from crnn.evaluation.metrics import score
from crnn.protocols import ALNUM36

if TYPE_CHECKING:
    from crnn.engines import Engine

SCHEMA = "crnn.evaluation/1"


def model_entries(engine: Engine) -> dict[str, Any]:
    """The entries of a report that say what read the words: ``model``, ``engine`` and ``temperature``.

    Of int8 the engine has ``ranges`` as well, the SHA-256 of those it was made from.
    """
    entries: dict[str, Any] = {
        "model": {"path": str(engine.path), "sha256": _file_sha256(engine.path)},
        "engine": {"name": engine.name, "version": engine.version, "precision": engine.precision},
        "temperature": engine.spec.temperature,
    }
    if engine.precision == "int8" and (ranges := quantization.place(engine.path)).is_file():
        entries["engine"]["ranges"] = _file_sha256(ranges)
    return entries


def measured_entries(engine: Engine) -> dict[str, Any]:
    """The entry of a report that says where it was measured: with which version of ours, on what.

    Which engine and precision are chosen, and the speed, depend on the processor.
    """
    return {"measured": {"crnn": __version__, "device": engine.device, "processor": processor()["name"]}}


def dataset_entry(
    path: str,
    sha256: str,
    words: Sequence[dict[str, Any]],
    skipped: Sequence[dict[str, Any]],
    seconds: float | None,
) -> dict[str, Any]:
    """One entry of a report's ``datasets``; ``words`` and ``skipped`` as :func:`crnn.evaluation.evaluate.evaluate`
    describes them. ``seconds`` is what reading took, None if that was not measured.

    Raises DatasetError if there are no ``words``.
    """
    total = len(words) + len(skipped)
    if not words:
        reasons = f"; the first: {skipped[0]['reason']}" if skipped else ""
        raise DatasetError(f"{path}: no word of {total} can be used{reasons}")
    return {
        "path": path,
        "sha256": sha256,
        **_figures(words),
        "total": total,
        "used": len(words),
        "skipped": list(skipped),
        "words_per_second": None if seconds is None else len(words) / seconds,
        "words": list(words),
    }


def report(
    datasets: Sequence[dict[str, Any]],
    source: Mapping[str, Any],
    *,
    protocol: str = ALNUM36,
    subset: str = "all",
    knowledge: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report over entries of :func:`dataset_entry`.

    ``source`` is what :func:`model_entries` and :func:`measured_entries` give.

    ``knowledge``, if any, is what texts were decoded with (:attr:`crnn.decoding.decoder.Decoder.known`).
    """
    return {
        "schema": SCHEMA,
        "protocol": protocol,
        "subset": subset,
        **({"knowledge": dict(knowledge)} if knowledge else {}),
        **source,
        "datasets": list(datasets),
        "overall": {
            **_figures([word for data in datasets for word in data["words"]]),
            "total": sum(data["total"] for data in datasets),
            "used": sum(data["used"] for data in datasets),
        },
    }


def modelzoo(full: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """The overall result of a report as ModelZoo's scripts write it: strings only, the accuracy with its per cent."""
    overall = full["overall"]
    values = {
        "Number of images": str(overall["used"]),
        "Number of classes": str(classes),
        "Top1 accuracy": f"{100 * overall['accuracy']:.2f}%",
    }
    return {
        "title": "Overall statistical evaluation",
        "value": [{"key": key, "value": value} for key, value in values.items()],
    }


def known_in_words(knowledge: Mapping[str, Any]) -> str:
    """A report's ``knowledge`` in a line."""
    parts = []
    if lists := knowledge.get("lists"):
        parts.append(f"a list of {lists['size']:,} words for each word, our own lists (seed {lists['seed']})")
    if lexicon := knowledge.get("lexicon"):
        parts.append(
            f"the lexicon {lexicon['name']} ({lexicon['readable']:,} of {lexicon['words']:,} words can be read)"
        )
    if prior := knowledge.get("prior"):
        parts.append(f"the prior {prior['name']} ({prior['words']:,} words, weight {prior['weight']:g})")
    if characters := knowledge.get("characters"):
        parts.append(f"the characters {characters}")
    if beam := knowledge.get("beam"):
        parts.append(f"a beam of {beam}")
    if how := knowledge.get("second_look"):
        parts.append(f"a second look at confidences {how}")
    return ", ".join(parts)


def most_confident_errors(words: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The ``count`` wrongly read words of a report that the network was surest of, surest first."""
    wrong = [word for word in words if word["text"] != word["label"]]
    return sorted(wrong, key=lambda word: -word["confidence"])[:count]


def _figures(words: Sequence[dict[str, Any]]) -> dict[str, Any]:
    labels, texts = [word["label"] for word in words], [word["text"] for word in words]
    scores = score(labels, texts)
    right = [label == text for label, text in zip(labels, texts, strict=True)]
    return {
        "accuracy": scores.accuracy,
        "interval": list(scores.interval),
        "ned": scores.ned,
        "cer": scores.cer,
        **calibration([word["confidence"] for word in words], right).as_json(),
    }


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
