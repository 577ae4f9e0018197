"""Writes what scripts/release.sh measured into the pages that name a figure of the bundled weights.

``python scripts/figures.py FOLDER`` with the folder of its results, from the repository's root. Each figure has one
place, found by the words around it: where these have changed, nothing is written and an error names the page. The
learning curve, what a stage was and what it brought are for a person to write; the tables of docs/accuracy.md are
benchmarks/accuracy.py's.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crnn.evaluation.calibration import calibration
from crnn.evaluation.saved import load_result
from crnn.files import write_whole

CARD = "src/crnn/weights/README.md"
READMES = {
    "README.md": "Of the {} words of IIIT5K that are misread, {} have a\nconfidence below 0.5; of the {} that are read "
    "right, {} have",
    "README.zh-CN.md": "在 IIIT5K 读错的 {} 个单词中，\n有 {} 个的置信度低于 0.5；在读对的 {} 个中，这样的有 {} 个",
}
"""And how each says how telling the confidences are."""
SECOND_LOOK_BELOW = 0.8
LOOKALIKES = ("465", "884", "886", "658", "1322", "2311", "1480", "2357", "2479", "2270", "2454")
"""Test words of IIIT5K that look like a training word (``crnn data check IIIT5K_train_lmdb IIIT5K_lmdb``)."""

Edit = tuple[str, str | Callable[[re.Match[str]], str]]  # what is looked for, once; what takes its place


class Results:
    """The results of a folder, by file name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self._read:
            self._read[name] = load_result(self.folder / f"{name}.json")
        return self._read[name]

    def words(self, name: str) -> list[dict[str, Any]]:
        """Those of all data sets of a result."""
        return [word for dataset in self[name]["datasets"] for word in dataset["words"]]

    def accuracy(self, name: str) -> str:
        """In percent, with two digits."""
        return f"{100 * right(self.words(name)):.2f}"

    def interval(self, name: str) -> str:
        """Of its one data set, in percent."""
        low, high = self[name]["datasets"][0]["interval"]
        return f"{100 * low:.1f}-{100 * high:.1f}"

    def ece(self, name: str) -> str:
        """The expected calibration error of all its words."""
        words = self.words(name)
        confidences = [word["confidence"] for word in words]
        return f"{calibration(confidences, [word['label'] == word['text'] for word in words]).ece:.3f}"

    def speed(self, name: str) -> str:
        """Words a second."""
        return f"{self[name]['datasets'][0]['words_per_second']:.0f}"

    def looked_again(self, name: str) -> str:
        """How many of its words are below the bound of ``--second-look``."""
        return f"{sum(word['confidence'] < SECOND_LOOK_BELOW for word in self.words(name)):,}"


def right(words: list[dict[str, Any]]) -> float:
    """The share of words that were read right."""
    return sum(word["label"] == word["text"] for word in words) / len(words)


def command() -> str:
    """What the README's first command prints, without the installation."""
    run = [sys.executable, "-m", "crnn"]
    outputs = [
        subprocess.run([*run, *rest, "--engine", "onnxruntime"], check=True, stdout=subprocess.PIPE, text=True).stdout
        for rest in (("read", "examples"), ("evaluate", "src/crnn/samples/words_lmdb"))
    ]
    return "\n".join(line.rstrip() for line in "".join(outputs).splitlines())


def readme(results: Results, printed: str, sentence: str) -> list[Edit]:
    """Of README.md and of its translation: what the command prints, accuracy, how telling the confidences are."""
    words = results.words("test")
    wrong = [word for word in words if word["label"] != word["text"]]
    unsure = {id(word) for word in words if word["confidence"] < 0.5}
    counts = [len(wrong), sum(id(word) in unsure for word in wrong), len(words) - len(wrong)]
    counts.append(len(unsure) - counts[1])
    given = [f"{count:,}" for count in counts]
    wanted = re.escape(sentence).replace(r"\{\}", r"[\d,]+")
    return [
        (r"(?<=```text\n)904173\t[^`]*(?=\n```)", lambda _: printed),
        (r"(?<=\| IIIT5K test \| 3000 \| ).*", f"{results.accuracy('test')} % | {results.interval('test')} |"),
        (wanted, sentence.format(*given)),
    ]


def card(results: Results) -> list[Edit]:
    """Of the model card: its table, calibration, int8."""
    kept = {Path(d["path"]).name: f"{100 * right(d['words']):.1f} %" for d in results["held_out"]["datasets"]}
    like = {f"image-{int(number):09d}" for number in LOOKALIKES}
    others = [word for word in results.words("test") if word["key"] not in like]
    assert len(others) == len(results.words("test")) - len(LOOKALIKES)
    again = r"(?<=\| {} \| {} \| )[\d.]+ %"
    return [
        (r"(?<=\| IIIT5K test \| 3000 \| ).*", f"{results.accuracy('test')} % | {results.interval('test')} |"),
        (again.format("ICDAR 2015 train, held out", 447), kept["IC15_train_lmdb"]),
        (again.format("ICDAR 2003 train, held out", 91), kept["IC03_train_lmdb"]),
        (again.format("SVT train, held out", 26), kept["SVT_train_lmdb"]),
        (r"(?<=without them the figure is\n)[\d.]+(?= %)", f"{100 * right(others):.2f}"),
        (r"(?<=at temperature )[\d.]+(?=, fitted)", f"{results['test']['temperature']:.4f}"),
        (r"(?<=on\nIIIT5K test: )0\.\d+", results.ece("test")),
        (
            r"(?<=IIIT5K test: )[\d]+ % of words of one to three[^)]*",
            "{} % of words of one to three\ncharacters, {} % of four to six, {} % of seven to nine, "
            "{} % of ten to twelve, {} % of the {} longer ones".format(*by_length(results.words("test"))),
        ),
        (r"(?<=The file read )[\d.]+(?= % of IIIT5K test in int8)", results.accuracy("int8")),
    ]


def airport() -> str:
    """The confidence that docs/service.md shows."""
    run = [sys.executable, "-m", "crnn", "read", "examples/airport.png", "--engine", "onnxruntime", "--json"]
    printed = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    return str(json.loads(printed)[0]["confidence"])


def by_length(words: list[dict[str, Any]]) -> list[str]:
    """Percent of those of 1 to 3 characters, of 4 to 6, 7 to 9, 10 to 12 and more; how many these last ones are."""
    groups = [[word for word in words if (len(word["label"]) + 2) // 3 == each] for each in (1, 2, 3, 4)]
    groups.append([word for word in words if len(word["label"]) > 12])
    return [f"{100 * right(group):.0f}" for group in groups] + [str(len(groups[-1]))]


def pages(results: Results, printed: str, confidence: str) -> dict[str, list[Edit]]:
    """Of each page, what is to be replaced by what."""
    decoding: list[Edit] = []
    for row, plain, again, timed in (
        (r"IIIT5K test, 3,000", "test", "test_again", True),
        (r"held out, 1,011 \([^)]*\)", "cuts", "cuts_again", False),
    ):
        cells = [results.looked_again(plain), results.accuracy(plain), results.accuracy(again)]
        cells += [results.ece(plain), results.ece(again)]
        ends = [results.speed(plain), results.speed(again)] if timed else ["", ""]
        line = " | ".join(cells + ends) if timed else " | ".join(cells) + " | | "
        decoding.append(
            (rf"(?<=\n)(\| {row} \| ).*", lambda found, line=line: f"{found[1]}{line} |".replace("  ", " "))
        )
    for row, name in (("none", "test"), ("50 words, our own", "list50"), ("1,000 words, our own", "list1000")):
        cell = f"{results.accuracy(name)} | {results.interval(name)} | {results.ece(name)}"
        decoding.append((rf"(?<=\n\| {row} \| )[\d.]+ \| [\d.-]+ \| 0\.\d+", cell))
    return {
        **{name: readme(results, printed, sentence) for name, sentence in READMES.items()},
        CARD: card(results),
        "docs/decoding.md": decoding,
        "docs/performance.md": [
            (r"(?<=these read )[\d.]+(?= % with ONNX Runtime)", results.accuracy("test")),
            (r"(?<=float32, and )[\d.]+(?= % with OpenVINO in int8)", results.accuracy("int8")),
            (r"(?<=the present ones read )[\d.]+(?= %)", results.accuracy("test")),
        ],
        "docs/service.md": [(r'(?<="text": "airport", "confidence": )[\d.]+', confidence)],
    }


def edited(name: str, text: str, edits: list[Edit]) -> str:
    """The page's text with every edit made."""
    for pattern, new in edits:
        text, count = re.subn(pattern, new if callable(new) else lambda _, new=new: new, text)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"{name}: {count} places for {pattern!r}, not one: nothing was written")
    return text


def main() -> None:
    """Writes all pages, or none."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    found = pages(Results(options.parse_args().folder), command(), airport())
    texts = {name: edited(name, Path(name).read_text(encoding="utf-8"), edits) for name, edits in found.items()}
    for name, text in texts.items():
        write_whole(Path(name), text)
        print(f"{name}: {len(found[name])} figures")


if __name__ == "__main__":
    main()
