"""AIPP, which turns pixels into the network's input on an Ascend device: its configuration, and its arithmetic.

Facts from "AIPP Configuration" in CANN's ATC user guide: the order is channel swap, colour conversion (an integer
matrix, its products shifted right by 8), then ``(v - mean - min) * var_reci`` in float16. AIPP does not resize.
Not yet run on hardware; :func:`emulate` says what the documents lead one to expect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crnn.errors import OptionError
from crnn.spec import ModelSpec

LUMA = (76, 150, 30)
"""Red, green and blue in 256ths: the matrix that ModelZoo's CRNN uses. Pillow's has 65536ths (19595, 38470, 7471)."""


def configuration(spec: ModelSpec) -> str:
    """The text of the file for ``--insert_op_conf``, for a spec whose ``aipp`` is set.

    Raises OptionError if AIPP cannot do the spec's normalisation: its ``min_chn`` lies within 0..255.
    """
    lowest, factor = _normalisation(spec)
    values: dict[str, str | int] = {
        "aipp_mode": "static",
        "input_format": "RGB888_U8" if spec.colour else "YUV400_U8",
        "src_image_size_w": spec.width,
        "src_image_size_h": spec.height,
        "csc_switch": "true" if spec.colour else "false",
    }
    if spec.colour:
        values["rbuv_swap_switch"] = "true" if spec.aipp == "bgr" else "false"
        for row in range(3):
            for column in range(3):
                values[f"matrix_r{row}c{column}"] = LUMA[column] if row == 0 else 0
    values["min_chn_0"] = f"{lowest:.10g}"
    values["var_reci_chn_0"] = f"{factor:.10g}"
    lines = "".join(f"    {key}: {value}\n" for key, value in values.items())
    return f"aipp_op {{\n{lines}}}\n"


def emulate(pixels: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.float32]:
    """What AIPP makes of uint8[N, H, W, 1 or 3]: the network's input float32[N, 1, H, W], rounded to float16."""
    lowest, factor = (np.float16(value) for value in _normalisation(spec))
    if spec.colour:
        rgb = pixels[..., ::-1] if spec.aipp == "bgr" else pixels
        gray = rgb.astype(np.int32) @ np.array(LUMA, np.int32) >> 8  # at most 255, because LUMA adds up to 256
    else:
        gray = pixels[..., 0].astype(np.int32)
    values = (gray.astype(np.float32) - np.float32(lowest)) * np.float32(factor)
    return values.astype(np.float16).astype(np.float32)[:, np.newaxis]


def _normalisation(spec: ModelSpec) -> tuple[float, float]:
    """``(v / 255 - mean) / std`` as AIPP's ``(v - min_chn) * var_reci_chn``."""
    if not spec.aipp:
        raise OptionError("the spec has no AIPP; choose gray, rgb or bgr")
    lowest, factor = 255 * spec.mean, 1 / (255 * spec.std)
    if not 0 <= lowest <= 255:
        raise OptionError(
            f"AIPP cannot subtract a mean of {spec.mean} (it must lie within 0..1): compile without --aipp"
        )
    return lowest, factor
