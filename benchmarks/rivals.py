"""This package beside RapidOCR, Tesseract and a plain loop: the same words, the same threads, warm, in turn.

``python benchmarks/rivals.py [--data LMDB] [--python .venv-rivals/bin/python]``; benchmarks/rivals-requirements.txt
says how to install the others. Accuracy is by the package's own protocol (alnum36), to which all texts are brought.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from common import ROOT, Report, default_data, parser

from crnn.datasets.lmdb import LmdbReader
from crnn.engines import bundled_model
from crnn.engines.processors import usable_processors
from crnn.evaluation.words import usable_labels
from crnn.protocols import alnum36

HERE = Path(__file__).parent
OURS = {
    "crnn": ("crnn", ()),
    "crnn on ONNX Runtime": ("crnn", ("onnxruntime",)),
    "plain ONNX Runtime loop": ("loop", (str(bundled_model()),)),
}
THEIRS = {
    "PP-OCRv6 small (RapidOCR)": ("rapidocr-v6", ()),
    "PP-OCRv4 mobile (RapidOCR)": ("rapidocr-v4", ()),
    "Tesseract": ("tesseract", ()),
}


class Reader:
    """A reader in a process of its own; see rivals_reader.py."""

    def __init__(self, python: str, name: str, threads: int, data: Path, arguments: tuple[str, ...]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [python, str(HERE / "rivals_reader.py"), name, str(threads), str(data), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.version: str = self._answer()["version"]
        self.speeds: list[float] = []
        self.texts: list[str] = []

    def read(self, first: int, end: int) -> None:
        """Read words ``first`` to ``end``."""
        assert self.process.stdin
        print(json.dumps([first, end]), file=self.process.stdin, flush=True)
        answer = self._answer()
        self.speeds.append((end - first) / answer["seconds"])
        self.texts += answer["texts"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self.process.args[1:3])}: ended with status {self.process.wait()}")  # type: ignore
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Prints words/s, how many times as fast this package is, and accuracy, a line a reader."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--python", type=Path, default=ROOT / ".venv-rivals" / "bin" / "python")
    options.add_argument("--threads", type=int, default=usable_processors())
    options.add_argument("--count", type=int, default=0, help="words (default: all)")
    options.add_argument("--turns", type=int, default=6, help="parts of the words; each reader reads each part")
    options.add_argument("--only", action="append", choices=[*OURS, *THEIRS], help="besides crnn; may be repeated")
    chosen = options.parse_args()
    labels, _ = usable_labels(LmdbReader(chosen.data))
    count = min(chosen.count or len(LmdbReader(chosen.data)), len(LmdbReader(chosen.data)))
    wanted = {"crnn", *(chosen.only or [*OURS, *THEIRS])}
    if any(name in wanted for name in THEIRS) and not chosen.python.exists():
        options.error(
            f"{chosen.python}: there is no such Python; benchmarks/rivals-requirements.txt says how to make it"
        )
    readers = {
        name: Reader(str(python), kind, chosen.threads, chosen.data, arguments)
        for python, group in ((sys.executable, OURS), (chosen.python, THEIRS))
        for name, (kind, arguments) in group.items()
        if name in wanted
    }
    report = Report("rivals", chosen.json, [reader.process.pid for reader in readers.values()])
    edges = [count * i // chosen.turns for i in range(chosen.turns + 1)]
    for first, end in pairwise(edges):
        for reader in readers.values():
            reader.read(first, end)
    rows = []
    for name, reader in readers.items():
        ratios = sorted(a / b for a, b in zip(readers["crnn"].speeds, reader.speeds, strict=True))
        used = [i for i in labels if i < count]
        right = sum(alnum36(reader.texts[i]) == labels[i] for i in used) / len(used)
        speed = median(reader.speeds)
        rows.append(
            {
                "reader": name,
                "version": reader.version,
                "words_per_second": speed,
                "ratio": median(ratios),
                "ratios": [ratios[0], ratios[-1]],
                "accuracy": right,
            }
        )
        print(
            f"{name}: {speed:.0f} words/s, crnn {median(ratios):.2f} times as fast "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f}), {right:.2%} right ({reader.version})"
        )
    report.write({"data": chosen.data.name, "count": count, "threads": chosen.threads, "rows": rows})
    for reader in readers.values():
        reader.process.kill()


if __name__ == "__main__":
    main()
