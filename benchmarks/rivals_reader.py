"""One reader of the comparison, in a process of its own: ``python rivals_reader.py NAME THREADS LMDB [MODEL]``.

It imports nothing of this package but for the reader ``crnn``, so that it runs in the other readers' environment. It
prints a line of JSON when it is ready and then, for each line ``[FIRST, END]`` of standard input, reads those words of
the data set: ``{"seconds": ..., "texts": [...]}``. The pictures lie encoded in memory; decoding them is part of the
time.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Read = Callable[[Sequence[bytes]], list[str]]
"""Encoded pictures -> texts."""

TESSDATA = "/usr/share/tesseract-ocr/5/tessdata"
"""Where Debian keeps Tesseract's data; $TESSDATA_PREFIX comes first."""


def crnn(engine: str | None, threads: int) -> tuple[Read, str]:
    """This package's Reader."""
    from crnn.reader import Reader

    reader = Reader(engine=engine or "auto", threads=threads)
    return (lambda files: [word.text for word in reader.read_many(files)]), reader.engine


def loop(model: str | None, threads: int) -> tuple[Read, str]:
    """What one writes in ten minutes: a word at a time through ONNX Runtime."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    symbols = "0123456789abcdefghijklmnopqrstuvwxyz"

    def read(files: Sequence[bytes]) -> list[str]:
        texts = []
        for data in files:
            gray = Image.open(io.BytesIO(data)).convert("L").resize((100, 32), Image.Resampling.BICUBIC)
            pixels = (np.asarray(gray, dtype=np.float32) / 255 - 0.5) / 0.5
            best = session.run(None, {name: pixels[None, None]})[0][:, 0].argmax(1)
            kept = [k for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1])]
            texts.append("".join(symbols[k - 1] for k in kept))
        return texts

    return read, f"onnxruntime {onnxruntime.__version__}"


def rapidocr_v6(_: str | None, threads: int) -> tuple[Read, str]:
    """The recogniser of RapidOCR with the PP-OCRv6 model that its package carries."""
    from importlib.metadata import version

    import numpy as np
    from rapidocr import RapidOCR
    from rapidocr.ch_ppocr_rec.typings import TextRecInput

    settings = {"EngineConfig.onnxruntime.intra_op_num_threads": threads, "Global.log_level": "error"}
    reader = RapidOCR(params=settings)
    reader(np.full((48, 160, 3), 255, np.uint8), use_det=False, use_cls=False)  # loads the recogniser

    def read(files: Sequence[bytes]) -> list[str]:
        return list(reader.text_rec(TextRecInput(img=[_bgr(data) for data in files], return_word_box=False)).txts)

    return read, f"rapidocr {version('rapidocr')}, PP-OCRv6 small"


def rapidocr_v4(_: str | None, threads: int) -> tuple[Read, str]:
    """The recogniser of rapidocr-onnxruntime with its PP-OCRv4 model."""
    from importlib.metadata import version

    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR(intra_op_num_threads=threads)

    def read(files: Sequence[bytes]) -> list[str]:
        return [text for text, _ in reader.text_rec([_bgr(data) for data in files])[0]]

    return read, f"rapidocr-onnxruntime {version('rapidocr-onnxruntime')}, PP-OCRv4 mobile"


def tesseract(_: str | None, threads: int) -> tuple[Read, str]:
    """Tesseract told that each picture is one word; one instance a thread, each in a single thread."""
    os.environ["OMP_THREAD_LIMIT"] = "1"
    import tesserocr
    from PIL import Image

    data = os.environ.get("TESSDATA_PREFIX", TESSDATA)
    instances = [tesserocr.PyTessBaseAPI(path=data, lang="eng", psm=tesserocr.PSM.SINGLE_WORD) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def read_some(instance: Any, files: Sequence[bytes]) -> list[str]:
        texts = []
        for encoded in files:
            instance.SetImage(Image.open(io.BytesIO(encoded)).convert("RGB"))
            texts.append(instance.GetUTF8Text().strip())
        return texts

    def read(files: Sequence[bytes]) -> list[str]:
        parts = list(pool.map(read_some, instances, [files[i::threads] for i in range(threads)]))
        return [parts[i % threads][i // threads] for i in range(len(files))]

    return read, tesserocr.tesseract_version().split("\n")[0] + ", psm 8, eng"


def _bgr(data: bytes) -> Any:
    import cv2
    import numpy as np

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


READERS: dict[str, Callable[[str | None, int], tuple[Read, str]]] = {
    "crnn": crnn,
    "loop": loop,
    "rapidocr-v6": rapidocr_v6,
    "rapidocr-v4": rapidocr_v4,
    "tesseract": tesseract,
}


def main() -> None:
    """See the module."""
    import lmdb

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    name, threads, data, *rest = sys.argv[1:]
    read, version = READERS[name](rest[0] if rest else None, int(threads))
    with lmdb.open(data, readonly=True, lock=False, subdir=os.path.isdir(data)) as env, env.begin() as entries:
        count = int(entries.get(b"num-samples"))
        files = [bytes(entries.get(f"image-{i + 1:09d}".encode())) for i in range(count)]
    read(files[:64])  # warm
    print(json.dumps({"version": version}), file=answers, flush=True)
    for line in sys.stdin:
        first, end = json.loads(line)
        began = time.perf_counter()
        texts = read(files[first:end])
        print(json.dumps({"seconds": time.perf_counter() - began, "texts": texts}), file=answers, flush=True)


if __name__ == "__main__":
    main()
