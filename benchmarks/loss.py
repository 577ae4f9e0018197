"""How well weights know the words of data sets: the share read right, the loss of the labels, and their probability.

``python benchmarks/loss.py [--held-out] --data LMDB... --model MODEL...`` takes whatever ``crnn evaluate --model``
does. The share tells two weights apart by the words that one of them reads and the other does not; the other two
figures by all words, so they show smaller differences. The loss is CTC's in nats a character, above 1 its logarithm and
1 more, as training has it, so that a few hopeless words do not make most of it; the mean is over words. So is that of
the label's probability. Labels of more characters than the network has steps for are left out, and counted.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from common import parser

from crnn import ctc
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import Engine, open_engine
from crnn.evaluation.words import prepared, usable_labels
from crnn.files import write_whole
from crnn.images import normalise
from crnn.protocols import COMPARED, protocol_of
from crnn.training.trainer import bounded


def known(engine: Engine, datasets: list[Path], held_out: bool) -> dict[str, float]:
    """``words`` that were read, the share read ``right``, mean ``loss`` and ``probability``; ``impossible`` labels."""
    spec = engine.spec
    protocol = protocol_of(spec.charset)
    right: list[bool] = []
    losses: list[float] = []
    probabilities: list[float] = []
    impossible = 0
    for path in datasets:
        reader = LmdbReader(path)
        labels, _ = usable_labels(reader, held_out, protocol)
        possible = [i for i, label in labels.items() if ctc.required_steps(label) <= spec.steps]
        impossible += len(labels) - len(possible)
        for indices, pixels, _ in prepared(reader, possible, spec, 64):
            if not indices:
                continue
            logp = engine.run(normalise(pixels, spec))
            wanted = [labels[i] for i in indices]
            texts = ctc.greedy(logp).texts(spec.charset)
            right += [COMPARED[protocol](text) == label for text, label in zip(texts, wanted, strict=True)]
            found = ctc.log_probability(logp, wanted, spec.charset)
            each = -found / [len(label) for label in wanted]
            losses += bounded(torch.from_numpy(each)).tolist()
            probabilities += np.exp(found).tolist()
    if not right:
        raise SystemExit(f"{', '.join(map(str, datasets))}: no word that could be read")
    means = {"right": float(np.mean(right)), "loss": float(np.mean(losses))}
    return {"words": len(right), **means, "probability": float(np.mean(probabilities)), "impossible": impossible}


def main() -> None:
    """Prints a line for each of the weights."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, nargs="+", action="extend", required=True, metavar="LMDB")
    what = "bundled, .onnx, .safetensors or a run's folder"
    options.add_argument("--model", nargs="+", action="extend", required=True, help=what)
    options.add_argument("--held-out", action="store_true", help="only the words that training leaves out")
    options.add_argument("--engine", help="default: the fastest that runs the model")
    chosen = options.parse_args()
    rows = []
    for model in chosen.model:
        path = None if model == "bundled" else model
        row = known(open_engine(path, chosen.engine, precision="float32"), chosen.data, chosen.held_out)
        rows.append({"model": model, **row})
        left = f" ({row['impossible']} labels left out)" if row["impossible"] else ""
        print(
            f"{model}: {row['right']:.2%} of {row['words']} words right, loss {row['loss']:.4f}, "
            f"probability {row['probability']:.4f}{left}",
            flush=True,
        )
    if chosen.json is not None:
        found = {"data": [path.name for path in chosen.data], "held_out": chosen.held_out, "rows": rows}
        write_whole(chosen.json, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
