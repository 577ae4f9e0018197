"""Bar codes: pictures of words that a network made for them reads without a doubt, so that tests know the answer."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from crnn.spec import DELIVERABLE

STEP = 7  # gray levels from one class to the next: 36 * 7 = 252


def draw(text: str, blur: int = 0) -> bytes:
    """A 100 x 32 PNG with one bar a character, its gray the character's class, ``blur`` levels off."""
    picture = np.zeros((32, 100), np.uint8)
    for i, index in enumerate(DELIVERABLE.charset.encode(text)):
        picture[:, 8 * i : 8 * i + 4] = index * STEP + blur  # the gap to the next bar is the blank's 0
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
