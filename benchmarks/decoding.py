"""What a word costs beside the network, on one core: the file, the picture, and the text out of the network's answer.

``python benchmarks/decoding.py [--data LMDB] [--count N]``
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from common import Report, default_data, parser, typical, words
from PIL import Image

from crnn import ctc
from crnn.engines import open_engine
from crnn.images import decode_gray, normalise, open_picture, prepare


def main() -> None:
    """Prints milliseconds a batch for decoding of text, and a word for the rest, beside what they may take at most."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--count", type=int, default=512, help="pictures")
    options.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    chosen = options.parse_args()
    report = Report("decoding", chosen.json)
    engine = open_engine(name="onnxruntime")
    spec = engine.spec
    files, _ = words(chosen.data, chosen.count)
    arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    outputs = [
        engine.run(normalise(np.stack([prepare(data, spec) for data in files[i : i + 64]]), spec))
        for i in range(0, len(files) - 63, 64)
    ]
    if not outputs:
        options.error(f"--count {chosen.count}: at least one batch of 64")

    def greedy() -> None:
        for logp in outputs:
            ctc.greedy(logp).texts(spec.charset)

    def exact() -> None:
        for logp in outputs:
            ctc.decode(logp, spec.charset, spec.temperature)

    def to_input() -> None:
        for i in range(0, len(arrays), 64):
            batch = arrays[i : i + 64]
            pixels = [prepare(open_picture(array, spec.picture_mode, order="RGB"), spec) for array in batch]
            normalise(np.stack(pixels), spec)

    def decode_files() -> None:
        for data in files:
            decode_gray(data)

    figures = {
        # what it is: (call, how many units it does, milliseconds that a unit may take)
        "greedy texts of a batch of 64": (greedy, len(outputs), 0.2),
        "texts, characters and exact probabilities of a batch of 64": (exact, len(outputs), 1.0),
        "RGB array to network input, a word": (to_input, len(arrays), 0.15),
        "file (bytes in memory) to gray picture, a word": (decode_files, len(files), None),
    }
    rows = []
    for what, (call, units, limit) in figures.items():
        taken = 1000 * typical(call, chosen.seconds) / units
        rows.append({"what": what, "milliseconds": taken, "limit": limit})
        print(f"{what}: {taken:.3f} ms" + (f" (at most {limit} ms)" if limit else ""))
    report.write({"data": chosen.data.name, "count": len(files), "rows": rows})


if __name__ == "__main__":
    main()
