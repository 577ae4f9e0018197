"""Which words of a real training set are never trained on, by their place in the data set.

Training, calibration and evaluation ask here, so that a word one of them learns from cannot be a word that another
measures on. The rule looks at the place alone: two data sets that hold the same words in the same order (IC15, upright
and rectified) hold out the same words.
"""

from __future__ import annotations

HELD_OUT = 10
"""One word in so many is held out."""


def is_held_out(index: int) -> bool:
    """Whether the word at ``index``, from 0 in the data set's own order, is held out: 0, 10, 20, ..."""
    return index % HELD_OUT == 0
