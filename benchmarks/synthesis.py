"""How many synthetic words one core draws a second, by stage: ``python benchmarks/synthesis.py --fonts DIR``."""

from __future__ import annotations

import argparse
import time

import cv2

from crnn.training.sources import word_generator


def main() -> None:
    """Prints words/s of drawing alone, and of drawing with the preparation for the network."""
    from PIL import Image

    from crnn.images import prepare
    from crnn.spec import ModelSpec

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fonts", action="append", required=True)
    parser.add_argument("--backgrounds", default="")
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    generator = word_generator(tuple(options.fonts), "", options.backgrounds, seed=0)
    for n in range(2_000):  # opens fonts and photographs
        generator.word(n)
    start = time.perf_counter()
    words = [generator.word(n).image for n in range(2_000, 2_000 + options.count)]
    drawn = time.perf_counter()
    for image in words:
        prepare(Image.fromarray(image), ModelSpec())
    prepared = time.perf_counter()
    print(f"drawn: {options.count / (drawn - start):.0f} words/s on one core")
    print(f"drawn and prepared: {options.count / (prepared - start):.0f} words/s on one core")


if __name__ == "__main__":
    main()
