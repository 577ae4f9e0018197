"""Each word twice in a batch, the second time altered; what the two readings differ by is learnt from as well.

Where a letter is hidden in one view the other view says what it is, so the network learns to read it by its neighbours;
and what should make no difference to a reading comes to make less (Yao et al., "CR-CTC: Consistency regularization on
CTC for improved speech recognition", arXiv 2410.05101; there both views of a spectrogram are altered). Letters stay in
their columns, as the readings are compared frame by frame.
"""

from __future__ import annotations

from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Gray = NDArray[np.uint8]  # height x width

HIDDEN = 0.09  # of the width: what is hidden at most in one place
NARROWEST = 3  # pixels


def altered(image: Gray, dice: Random) -> Gray:
    """Another view of a prepared picture, uint8[height, width]: other light, a little lower or higher, parts hidden.

    At middle height what is at column x stays about a pixel from it at most.
    """
    height, width = image.shape
    picture = image.astype(np.float32)
    if dice.random() < 0.5:
        picture = _moved(picture, dice)
    if dice.random() < 0.6:
        middle = np.float32(picture.mean())
        picture = (picture - middle) * np.float32(dice.uniform(0.5, 1.5)) + middle + np.float32(dice.uniform(-40, 40))
    if dice.random() < 0.3:
        picture = np.float32(255) - picture
    if dice.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), dice.uniform(0.4, 1.1))  # type: ignore[assignment]
    if dice.random() < 0.3:
        grain = np.random.default_rng(dice.getrandbits(32)).standard_normal(picture.shape, np.float32)
        picture = picture + grain * np.float32(dice.uniform(0.02, 0.08) * float(np.ptp(picture)))
    for _ in range(dice.choice((0, 1, 1, 2, 2, 3))):
        wide = dice.randint(NARROWEST, max(NARROWEST, round(HIDDEN * width)))
        left = dice.randint(0, width - wide)
        whole = dice.random() < 0.6
        top, bottom = (0, height) if whole else sorted((dice.randint(0, height), dice.randint(0, height)))
        shade = float(picture.mean()) if dice.random() < 0.5 else dice.uniform(0, 255)
        picture[top:bottom, left : left + wide] = np.float32(shade)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _moved(picture: NDArray[np.float32], dice: Random) -> NDArray[np.float32]:
    """Up or down, taller or lower, and a little slanted."""
    height, width = picture.shape
    taller, slant = dice.uniform(0.85, 1.12), dice.gauss(0, 0.08)
    side, down = dice.uniform(-1, 1), dice.gauss(0, 0.05) * height
    along = (1 - taller) * height / 2 + down
    across = side - slant * (height / 2 - along) / taller
    matrix = np.array([(1, slant, across), (0, taller, along)], np.float32)
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def apart(logp: Tensor) -> Tensor:
    """What the readings of two views differ by, in nats a word: float32[N].

    ``logp`` float32[T, 2N, classes] are log-probabilities, those of the altered views in the second half. Of each frame
    the Kullback-Leibler divergences in both directions are averaged; they are summed over frames. Each reading learns
    from the other as it is: no gradient flows through what is learnt from (CR-CTC's L_CR).
    """
    one, other = logp.chunk(2, dim=1)
    both = sum(
        F.kl_div(learns, target.detach(), reduction="none", log_target=True)
        for learns, target in ((one, other), (other, one))
    )
    assert isinstance(both, Tensor)
    return both.sum((0, 2)) / 2
