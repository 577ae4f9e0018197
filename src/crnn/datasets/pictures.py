"""Decoded pictures of a data set, kept up to a bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # height x width


class Pictures:
    """The pictures of a data set by index. Decoding costs more than distorting one, so they are kept decoded.

    Once ``most`` bytes are kept, the others are decoded each time: which are drawn is random, so no picture deserves
    the place of another. A copy in another process begins with none.
    """

    def __init__(self, decode: Callable[[int], Gray], most: int) -> None:
        self._decode, self._most = decode, most
        self._kept: dict[int, Gray] = {}
        self.bytes = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def __getitem__(self, index: int) -> Gray:
        """uint8[height, width]; raises what decoding it raises."""
        picture = self._kept.get(index)
        if picture is None:
            picture = self._decode(index)
            if self.bytes + picture.nbytes <= self._most:
                self._kept[index] = picture
                self.bytes += picture.nbytes
        return picture

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}, "bytes": 0}
