"""AIPP configuration files, and AIPP's integer arithmetic on uint8 NHWC pixels, as far as the documents give it.

Order: channel swap, crop, colour conversion (``matrix * pixel >> 8``), then
``(in - mean_chn - min_chn) * var_reci_chn``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = {"RGB888_U8": 3, "YUV400_U8": 1}
"""The input formats modelled here, and how many channels their pixels have."""

_NUMBERED = re.compile(r"(matrix_r[0-2]c|mean_chn_|min_chn_|var_reci_chn_|input_bias_|output_bias_)([0-2])")
_SWITCHES = ("csc_switch", "rbuv_swap_switch", "crop")
_SIZES = ("src_image_size_w", "src_image_size_h", "load_start_pos_w", "load_start_pos_h", "crop_size_w", "crop_size_h")
_ENTRY = re.compile(r"(\w+)\s*:\s*([^\s{}:]+)")


class AippError(ValueError):
    """The configuration file breaks a rule; the text says which."""


@dataclass(frozen=True)
class Aipp:
    """One static ``aipp_op``. Triples and the matrix are by channel."""

    input_format: str = ""
    width: int = 0
    height: int = 0
    switches: Mapping[str, bool] = field(default_factory=dict)
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, width, height
    matrix: tuple[tuple[int, ...], ...] = ((0, 0, 0), (0, 0, 0), (0, 0, 0))
    input_bias: tuple[int, ...] = (0, 0, 0)
    output_bias: tuple[int, ...] = (0, 0, 0)
    mean: tuple[int, ...] = (0, 0, 0)
    minimum: tuple[float, ...] = (0.0, 0.0, 0.0)
    reciprocal: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def channels(self) -> int:
        """Of the pixels that go in."""
        return CHANNELS[self.input_format]

    def apply(self, pixels: NDArray[np.uint8], channels: int) -> NDArray[np.float32]:
        """uint8[N, H, W, self.channels] -> float32[N, channels, H, W], what the network sees."""
        values = pixels.astype(np.int64)
        if self.switches.get("rbuv_swap_switch"):
            values = values[..., ::-1]
        if self.switches.get("crop"):
            x, y, width, height = self.crop
            values = values[:, y : y + height, x : x + width]
        if self.switches.get("csc_switch"):
            values = ((values - self.input_bias) @ np.array(self.matrix).T >> 8) + self.output_bias
            values = values.clip(0, 255)
        values = values[..., :channels]
        mean, minimum, reciprocal = (
            np.array(each[:channels], np.float32) for each in (self.mean, self.minimum, self.reciprocal)
        )
        normal: NDArray[np.float32] = (values.astype(np.float32) - mean - minimum) * reciprocal
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def parse(text: str, width: int, height: int, channels: int) -> Aipp:
    """A configuration file for a network that reads ``channels`` x ``height`` x ``width``. Raises AippError."""
    body = re.fullmatch(r"\s*aipp_op\s*:?\s*\{(.*)\}\s*", re.sub(r"#.*", "", text), re.DOTALL)
    if body is None:
        raise AippError("the file is not one aipp_op { ... }")
    if rest := _ENTRY.sub("", body[1]).strip():
        raise AippError(f"cannot be parsed near {rest.split()[0]}")
    entries: dict[str, str] = {}
    for key, value in _ENTRY.findall(body[1]):
        if key in entries:
            raise AippError(f"{key} appears more than once")
        entries[key] = value
    if entries.pop("aipp_mode", None) != "static":
        raise AippError("aipp_mode must be static (this double knows no other)")
    entries.pop("related_input_rank", None)
    aipp = _fill(entries)
    if aipp.input_format not in CHANNELS:
        raise AippError(f"input_format {aipp.input_format or 'missing'}: must be one of {', '.join(CHANNELS)}")
    if aipp.channels == 1 and (aipp.switches.get("csc_switch") or aipp.switches.get("rbuv_swap_switch")):
        raise AippError("YUV400_U8 has neither csc_switch nor rbuv_swap_switch")
    if aipp.channels < channels:
        raise AippError(f"{aipp.input_format} does not give the {channels} channels the model reads")
    if aipp.channels > channels and not aipp.switches.get("csc_switch"):
        raise AippError("csc_switch must be true to turn three channels into one")
    if (aipp.width, aipp.height) == (0, 0):  # without a size, the model's own is meant
        aipp = replace(aipp, width=width, height=height)
    x, y, cut_width, cut_height = aipp.crop
    seen = (cut_width, cut_height) if aipp.switches.get("crop") else (aipp.width, aipp.height)
    if seen != (width, height):
        raise AippError(f"gives {seen[0]} x {seen[1]} pixels, the model reads {width} x {height}; AIPP does not resize")
    if aipp.switches.get("crop") and (x + cut_width > aipp.width or y + cut_height > aipp.height):
        raise AippError("the crop reaches over the picture's edge")
    return aipp


def _fill(entries: Mapping[str, str]) -> Aipp:
    switches: dict[str, bool] = {}
    sizes = dict.fromkeys(_SIZES, 0)
    numbers: dict[str, list[Any]] = {
        name: [1.0 if name == "var_reci_chn_" else 0] * 3
        for name in ("mean_chn_", "min_chn_", "var_reci_chn_", "input_bias_", "output_bias_")
    } | {f"matrix_r{row}c": [0] * 3 for row in range(3)}
    input_format = ""
    for key, value in entries.items():
        try:
            if key == "input_format":
                input_format = value
            elif key in _SWITCHES:
                switches[key] = {"true": True, "false": False}[value]
            elif key in sizes:
                sizes[key] = int(value)
            elif found := _NUMBERED.fullmatch(key):
                kind = float if found[1] in ("min_chn_", "var_reci_chn_") else int
                numbers[found[1]][int(found[2])] = kind(value)
            else:
                raise AippError(f"unknown field {key}")
        except (KeyError, ValueError) as error:
            if isinstance(error, AippError):
                raise
            raise AippError(f"{key} cannot be {value}") from None
    return Aipp(
        input_format,
        sizes["src_image_size_w"],
        sizes["src_image_size_h"],
        switches,
        (sizes["load_start_pos_w"], sizes["load_start_pos_h"], sizes["crop_size_w"], sizes["crop_size_h"]),
        tuple(tuple(numbers[f"matrix_r{row}c"]) for row in range(3)),
        tuple(numbers["input_bias_"]),
        tuple(numbers["output_bias_"]),
        tuple(numbers["mean_chn_"]),
        tuple(numbers["min_chn_"]),
        tuple(numbers["var_reci_chn_"]),
    )
