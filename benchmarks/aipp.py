"""What AIPP changes in accuracy: python benchmarks/aipp.py DATASET...   (LMDB training sets; their held-out words)

An Ascend device with AIPP makes the network's input itself: gray in 256ths after resizing in colour, normalised in
float16. Here its arithmetic is emulated (crnn.export.aipp) and the network is ONNX Runtime's in float32, so the figures
say what AIPP does alone. Beside them, the float path. Accuracy under the alnum36 protocol; "changed" is against the
float path.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine, open_engine
from crnn.evaluation.words import prepared, usable_labels
from crnn.export.aipp import emulate
from crnn.images import normalise
from crnn.protocols import alnum36

INPUTS = ("", "gray", "rgb", "bgr")


def texts(reader: LmdbReader, indices: list[int], engine: Engine, kind: str) -> dict[int, str]:
    """Index -> what is read, with the pixels taken as ``kind`` says."""
    spec = dataclasses.replace(engine.spec, aipp=kind)
    found: dict[int, str] = {}
    for batch, pixels, _ in prepared(reader, indices, spec, 64):
        given = normalise(pixels, spec)
        logp = engine.run(emulate(given, spec) if kind else given)
        words = ctc.decode(logp, spec.charset, spec.temperature)
        found |= {i: alnum36(word.text) for i, word in zip(batch, words, strict=True)}
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, help="an .onnx (default: the bundled weights)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    engine = open_engine(options.model, "onnxruntime", options.threads)
    print(f"{'data set':28}{'words':>7}" + "".join(f"{kind or 'float':>10}{'changed':>9}" for kind in INPUTS))
    sums = dict.fromkeys(INPUTS, (0, 0))
    total = 0
    for path in options.datasets:
        reader = LmdbReader(path)
        labels, _ = usable_labels(reader, held_out=True)
        read = {kind: texts(reader, list(labels), engine, kind) for kind in INPUTS}
        total += len(read[""])
        cells = []
        for kind in INPUTS:
            right = sum(text == labels[i] for i, text in read[kind].items())
            changed = sum(text != read[""][i] for i, text in read[kind].items())
            sums[kind] = (sums[kind][0] + right, sums[kind][1] + changed)
            cells.append(f"{right / len(read['']):10.2%}{changed:9}")
        print(f"{path.name:28}{len(read['']):7}" + "".join(cells), flush=True)
    cells = [f"{right / total:10.2%}{changed:9}" for right, changed in sums.values()]
    print(f"{'all':28}{total:7}" + "".join(cells))


if __name__ == "__main__":
    main()
