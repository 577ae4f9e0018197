"""What each engine and precision reads differently from float32 in ONNX Runtime, and how fast.

``python benchmarks/precisions.py [--data LMDB]``
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import Report, default_data, parser

from crnn.engines import Engine, open_engine
from crnn.errors import EngineError, OptionError
from crnn.evaluation.evaluate import evaluate

CHOICES = (
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("torch", "float32"),
)
"""The first is what the others are compared with."""


def main() -> None:
    """Prints accuracy, how many texts are the same, and words/s of the whole evaluation, a line each."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--model", type=Path)
    options.add_argument("--held-out", action="store_true", help="of a training set: only the words kept from training")
    chosen = options.parse_args()
    report = Report("precisions", chosen.json)
    rows: list[dict[str, Any]] = []
    reference: list[str] = []
    for name, precision in CHOICES:
        try:
            engine: Engine | None = open_engine(chosen.model, name, precision=precision) if find_spec(name) else None
        except (EngineError, OptionError) as error:  # bfloat16 on a processor without it
            print(error)
            continue
        if engine is None:
            print(f"{name} is not installed")
            continue
        found = evaluate([chosen.data], engine, held_out=chosen.held_out)["datasets"][0]
        texts = [word["text"] for word in found["words"]]
        reference = reference or texts
        same = sum(a == b for a, b in zip(texts, reference, strict=True)) / len(texts)
        row = {"engine": name, "version": engine.version, "precision": engine.precision, "same": same}
        rows.append({**row, **{key: found[key] for key in ("accuracy", "words_per_second", "used")}})
        more = 100 * (found["accuracy"] - rows[0]["accuracy"])
        print(
            f"{name} {precision}: {found['accuracy']:.2%} right ({more:+.2f} points), {same:.2%} of the texts the same"
        )
    report.write({"data": chosen.data.name, "held_out": chosen.held_out, "rows": rows})


if __name__ == "__main__":
    main()
