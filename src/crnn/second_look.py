"""A second look at the words that were read unsurely: the same picture, a little smaller and a little larger.

A network that has seen too few words is not quite indifferent to how a word lies in its picture. Where it hesitates,
the mean over several views (test-time augmentation) is right more often than one view. Most words are read surely, and
cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crnn.ctc import Scores
from crnn.decoding.decoder import Decoder, Reading
from crnn.errors import OptionError
from crnn.images import normalise

UNSURE = 0.8
"""Words of less confidence are looked at again."""

ZOOMS = (0.93, 1.06)
"""How large the other views show the picture, about its middle; what lies beyond its edge is its edge."""

KNOWN = f"below {UNSURE:g}, at {' and '.join(f'{zoom:g}' for zoom in ZOOMS)}"
"""What reports and jobs say of it: all that decides what is read."""


class Look(NamedTuple):
    """What was read, and how large the view showed the picture in which it was (1: as it is)."""

    reading: Reading
    zoom: float = 1.0


def check(known: Iterable[str]) -> None:
    """Raises OptionError where more is known of the texts (:attr:`Decoder.known`) than which characters are allowed."""
    if set(known) - {"characters"}:
        raise OptionError("a second look is for reading without a lexicon, a prior or a beam; give only one of the two")


def look_again(
    pixels: NDArray[np.uint8],
    logp: Scores,
    readings: Sequence[Reading],
    decoder: Decoder,
    run: Callable[[NDArray[Any]], Scores],
) -> list[Look]:
    """Reads the unsure ones of N words again in two more views.

    Of the texts that the three views give, each takes the one of the highest mean probability over them; its
    confidence is that mean. With allowed characters, a view counts as much as it keeps, so that the confidence is
    among what the three together keep.

    Args:
        pixels: prepared pictures (:func:`crnn.images.prepare`), uint8[N, *spec.picture_shape].
        logp: what the network gave for them, float[T, N, C].
        readings: what ``decoder`` made of that.
        run: the network, as :meth:`crnn.engines.Engine.run`; called with N words at most, once if a half are sure.
    """
    looks = [Look(reading) for reading in readings]
    unsure = [n for n, reading in enumerate(readings) if reading.confidence < UNSURE]
    if not unsure:
        return looks
    views = normalise(np.stack([zoomed(pixels[n], zoom) for zoom in ZOOMS for n in unsure]), decoder.spec)
    more = np.concatenate([run(views[i : i + len(pixels)]) for i in range(0, len(views), len(pixels))], axis=1)
    outputs = [logp[:, unsure], *np.split(more, len(ZOOMS), axis=1)]
    seen = [[looks[n] for n in unsure]]
    seen += [
        [Look(reading, zoom) for reading in decoder.decode(output)]
        for zoom, output in zip(ZOOMS, outputs[1:], strict=True)
    ]
    kept = np.array([[1.0 if look.reading.kept is None else look.reading.kept for look in view] for view in seen])
    weights = kept / np.maximum(kept.sum(axis=0), 1e-300)  # float64[view, word]
    probable = np.array(
        [
            sum(
                weight * decoder.probabilities(output, [look.reading.text for look in view])
                for weight, output in zip(weights, outputs, strict=True)
            )
            for view in seen
        ]
    )  # float64[view, word], of the text of that view
    for k, (n, best) in enumerate(zip(unsure, probable.argmax(axis=0).tolist(), strict=True)):
        reading, zoom = seen[best][k]
        share = None if reading.kept is None else float(kept[:, k].mean())
        looks[n] = Look(reading._replace(confidence=float(probable[best, k]), kept=share), zoom)
    return looks


def zoomed(pixels: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    """A prepared picture, uint8[H, W] or uint8[H, W, 3], shown so large about its middle; of the same shape."""
    height, width = pixels.shape[:2]
    beyond = [side / 2 * (1 / zoom - 1) for side in (width, height)]  # pixels to each side; negative: cut off
    border = [max(0, int(np.ceil(each))) for each in beyond]
    edges = [(border[1],) * 2, (border[0],) * 2, *[(0, 0)] * (pixels.ndim - 2)]
    left, top = (edge - out for edge, out in zip(border, beyond, strict=True))
    box = (left, top, left + width + 2 * beyond[0], top + height + 2 * beyond[1])
    picture = Image.fromarray(np.pad(pixels, edges, mode="edge"))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.uint8)
