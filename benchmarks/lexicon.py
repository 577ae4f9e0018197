"""Decoding with a lexicon: what a word costs, and whether it is the word that scoring every word finds. On one core.

``python benchmarks/lexicon.py [--data LMDB] [--count N] [--words FILE]``

Lexicons are the labels of the pictures that are read, and the most frequent English words of wordfreq (or the first
words of FILE) up to the size; those too small for the labels have the frequent words alone. Beside the search, which is
exact, stands what the paper does for large lexicons: it scores the words within an edit distance of the best path's
text, here found with RapidFuzz.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Report, default_data, parser, typical, words
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from crnn import ctc
from crnn.charset import Charset
from crnn.decoding.decoder import Decoder
from crnn.decoding.lexicon import Lexicon
from crnn.engines import open_engine
from crnn.images import normalise, prepare
from crnn.protocols import alnum36

BATCH = 64
SIZES = (50, 1000, 5000, 90_000)
DISTANCES = (1, 2, 3)
LIMIT = 2.0  # milliseconds a word, in a lexicon of any of these sizes
PIECE = 5000  # words scored together


def main() -> None:
    """Prints a line for each size: milliseconds a word, agreement with scoring every word, and the paper's way."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--count", type=int, default=512, help="pictures")
    options.add_argument("--checked", type=int, default=64, help="of these, every word of the lexicon is scored for")
    options.add_argument("--words", type=Path, help="other words than wordfreq's, one a line, the most frequent first")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of lexicons")
    options.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    chosen = options.parse_args()
    report = Report("lexicon", chosen.json)
    engine = open_engine(name="onnxruntime", threads=1)
    spec = engine.spec
    files, labels = words(chosen.data, chosen.count)
    labels = [alnum36(label) for label in labels]
    pictures = [np.stack([prepare(data, spec) for data in files[i : i + BATCH]]) for i in range(0, len(files), BATCH)]
    outputs = [engine.run(normalise(batch, spec)) for batch in pictures]
    together = np.concatenate(outputs, axis=1)
    read = ctc.greedy(together).texts(spec.charset)
    # Spread over the pictures, so that they are of every kind.
    checked = np.linspace(0, len(files) - 1, min(chosen.checked, len(files))).astype(int)
    frequent = [word for word in listed(chosen.words, max(chosen.sizes)) if spec.charset.can_encode(word)]
    rows = []
    for size in chosen.sizes:
        known = list(dict.fromkeys([*labels, *frequent]))[:size] if size > len(set(labels)) else frequent[:size]
        began = time.perf_counter()
        lexicon = Decoder(spec, Lexicon(known))
        opening = time.perf_counter() - began

        def search(decoder: Decoder = lexicon) -> list[str]:
            return [word.text for logp in outputs for word in decoder.decode(logp)]

        texts = search()
        exact = [every_word(together[:, n], known, spec.charset) for n in checked]
        milliseconds = 1000 * typical(search, chosen.seconds) / len(files)
        row: dict[str, Any] = {
            "words": len(known),
            "milliseconds": milliseconds,
            "limit": LIMIT,
            "opening": opening,
            "checked": len(checked),
            "recall": float(np.mean([texts[n] == best for n, best in zip(checked, exact, strict=True)])),
            "accuracy": float(np.mean([a == b for a, b in zip(texts, labels, strict=True)])),
            "in_lexicon": float(np.mean([label in set(known) for label in labels])),
            "candidates": [candidates(together, read, known, spec.charset, checked, exact, k) for k in DISTANCES],
        }
        rows.append(row)
        print(
            f"{len(known):,} words: {milliseconds:.3f} ms a word (at most {LIMIT:g}), "
            f"{row['recall']:.1%} as scoring every word ({len(checked)} pictures); "
            f"opened in {opening:.2f} s; accuracy {row['accuracy']:.1%}, "
            f"{row['in_lexicon']:.1%} in the lexicon"
        )
        for each in row["candidates"]:
            found = f"{each['milliseconds']:.3f} ms a word, {each['recall']:.1%} as scoring every word"
            print(f"  within {each['distance']} edits of the best path's text: {found}")
    plain = float(np.mean([a == b for a, b in zip(read, labels, strict=True)]))
    print(f"without a lexicon: accuracy {plain:.1%}")
    report.write({"data": chosen.data.name, "count": len(files), "accuracy": plain, "rows": rows})


def listed(file: Path | None, count: int) -> list[str]:
    """Words by frequency; more than ``count``, for some cannot be written."""
    if file is not None:
        return list(Lexicon.from_file(file).words)
    from wordfreq import top_n_list

    return list(top_n_list("en", 2 * count))


def every_word(logp: NDArray[np.floating[Any]], known: Sequence[str], charset: Charset) -> str:
    """The word of the highest probability for one picture, float[T, C]: every one is scored."""
    scores = [
        ctc.log_probability(logp[:, None].repeat(len(known[i : i + PIECE]), 1), known[i : i + PIECE], charset)
        for i in range(0, len(known), PIECE)
    ]
    return known[int(np.concatenate(scores).argmax())]


def candidates(
    together: NDArray[np.floating[Any]],
    read: Sequence[str],
    known: Sequence[str],
    charset: Charset,
    checked: NDArray[np.int_],
    exact: Sequence[str],
    distance: int,
) -> dict[str, Any]:
    """How often the words within an edit distance of what was read hold the exact choice, and what that costs."""
    began = time.perf_counter()
    found = []
    for n in checked.tolist():
        far = cdist([read[n]], known, scorer=Levenshtein.distance, score_cutoff=distance, dtype=np.uint8)[0]
        near = [known[k] for k in np.flatnonzero(far <= distance)]
        found.append(every_word(together[:, n], near, charset) if near else None)
    milliseconds = 1000 * (time.perf_counter() - began) / len(found)
    recall = float(np.mean([a == b for a, b in zip(found, exact, strict=True)]))
    return {"distance": distance, "milliseconds": milliseconds, "recall": recall}


if __name__ == "__main__":
    main()
