"""What a run computes in: float32, or mixed with bfloat16 or float16."""

from __future__ import annotations

import time
from functools import cache

import torch

from crnn.errors import OptionError
from crnn.training.processes import device_type


def precision(asked: str, so_far: str = "") -> str:
    """``bf16``, ``fp16`` or ``no`` (float32), for a run that asks for one of these or for ``auto``.

    A run that has computed in ``so_far`` stays with it under ``auto``: measured anew, another may come out, and the run
    would not go on bit for bit. Raises OptionError where this machine lacks what is needed.
    """
    if asked == "auto":
        kind = so_far or _quickest()
    else:
        kind, so_far = asked, ""
    if kind == "fp16" and device_type() == "cpu":
        needs = "fp16 needs a CUDA device or an Ascend NPU"
        if so_far:
            raise OptionError(f"the run computes in fp16, and {needs}: branch off here with --from and --precision no")
        raise OptionError(f"precision {needs}: choose bf16 or no")
    return kind


def _quickest() -> str:
    device = device_type()
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "npu":
        return "fp16"
    with_mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    built_in = with_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if built_in and _faster_in_bf16() else "no"


@cache
def _faster_in_bf16() -> bool:
    """Whether this processor multiplies matrices faster in bf16: measured, in less than a second.

    Having the instruction is not enough: with AMX bf16 is several times as fast as float32, on Intel processors that
    have avx512_bf16 alone half as fast.
    """
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        matrix = torch.ones(1024, 1024, dtype=kind)
        times = []
        for _ in range(5):  # the shortest counts: the first compiles, and other processes disturb
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
        seconds[kind] = min(times)
    return seconds[torch.bfloat16] < seconds[torch.float32]
