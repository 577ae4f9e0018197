"""Words n, n + 1, ... of a generator, drawn by several processes and in order; and a picture of many of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

from PIL import Image, ImageDraw

from crnn.errors import CrnnError
from crnn.images import prepare
from crnn.spec import ModelSpec
from crnn.synthesis.generator import WordGenerator

CHUNK = 64  # words a task: large enough that handing them over costs nothing


class StoredWord(NamedTuple):
    """A word ready to be stored: ``png`` is its gray picture, ``drawn`` its text with case and punctuation.

    ``unreadable`` photographs could not be decoded, and another became its ground.
    """

    png: bytes
    label: str
    drawn: str
    unreadable: int = 0


_generator: WordGenerator  # of this worker process


def draw(generator: WordGenerator, start: int, count: int, workers: int = 1) -> Iterator[StoredWord]:
    """Words ``start`` to ``start + count`` in order. The number of workers changes nothing but the time it takes."""
    chunks = (range(n, min(n + CHUNK, start + count)) for n in range(start, start + count, CHUNK))
    if workers == 1:
        for chunk in chunks:
            yield from _drawn(generator, chunk)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (generator,)) as pool:
        try:
            waiting = [pool.submit(_chunk, chunk) for chunk in islice(chunks, 3 * workers)]
            while waiting:
                yield from waiting.pop(0).result()
                waiting += [pool.submit(_chunk, chunk) for chunk in islice(chunks, 1)]
        except BrokenProcessPool as error:
            raise CrnnError(
                "a process that draws words has died, most likely because memory ran out: take fewer --workers"
            ) from error


def _begin(generator: WordGenerator) -> None:
    global _generator
    import cv2

    cv2.setNumThreads(1)
    _generator = generator


def _chunk(numbers: range) -> list[StoredWord]:
    return _drawn(_generator, numbers)


def _drawn(generator: WordGenerator, numbers: range) -> list[StoredWord]:
    words = []
    for n in numbers:
        before = generator.unreadable
        word = generator.word(n)
        png = BytesIO()
        Image.fromarray(word.image).save(png, "PNG", compress_level=1)
        words.append(StoredWord(png.getvalue(), word.label, word.drawn, generator.unreadable - before))
    return words


def contact_sheet(words: list[StoredWord], spec: ModelSpec, columns: int = 8, scale: int = 2) -> Image.Image:
    """The words as a network of ``spec`` sees them, stretched to its input, ``scale`` times larger and with labels."""
    width, height, caption = spec.width * scale + 6, spec.height * scale + 16, 12
    rows = -(-len(words) // columns)
    sheet = Image.new("L", (columns * width, rows * height), 255)
    pen = ImageDraw.Draw(sheet)
    for n, word in enumerate(words):
        x, y = n % columns * width, n // columns * height
        tile = Image.fromarray(prepare(word.png, spec)).resize((spec.width * scale, spec.height * scale))
        sheet.paste(tile, (x, y))
        pen.text((x + 1, y + height - caption - 3), word.label, fill=0)
    return sheet
