"""ATC's command line: which flags there are, which values they take, which exclude each other, and the codes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_KNOWN = """mode framework model weight output input_format input_shape input_shape_range dynamic_batch_size
dynamic_image_size dynamic_dims precision_mode precision_mode_v2 output_type input_fp16_nodes op_select_implmode
optypelist_for_implmode op_precision_mode log insert_op_conf enable_small_channel fusion_switch_file out_nodes
keep_dtype modify_mixlist deterministic op_debug_level display_model_info check_report soc_version auto_tune_mode
op_bank_path mdl_bank_path"""
KNOWN = frozenset(_KNOWN.split())
PRECISIONS = {
    "precision_mode": (
        "force_fp16",
        "force_fp32",
        "cube_fp16in_fp32out",
        "allow_fp32_to_fp16",
        "must_keep_origin_dtype",
        "allow_mix_precision",
        "allow_mix_precision_fp16",
        "allow_mix_precision_bf16",
        "allow_fp32_to_bf16",
    ),
    "precision_mode_v2": (
        "fp16",
        "origin",
        "cube_fp16in_fp32out",
        "mixed_float16",
        "mixed_bfloat16",
        "mixed_hif8",
        "cube_hif8",
    ),
}
IMPLEMENTATIONS = ("high_performance", "high_precision", "high_performance_for_all", "high_precision_for_all")
LOGS = ("debug", "info", "warning", "error", "null")
CHIP = re.compile(r"Ascend(310|310P\d|310B\d|910|910A|910B|910Pro[AB]|910B[1-4]|910_\d{4}|950\w+)")
NO_BF16 = re.compile(r"Ascend(310|310P\d|910A?)")
EXCLUSIVE = (
    ("precision_mode", "precision_mode_v2"),
    ("dynamic_batch_size", "dynamic_image_size"),
    ("dynamic_batch_size", "dynamic_dims"),
    ("dynamic_batch_size", "input_shape_range"),
    ("dynamic_image_size", "dynamic_dims"),
    ("dynamic_dims", "insert_op_conf"),
)
MOST_GEARS = 100


class UnknownFlag(Exception):
    """The command line cannot be taken apart."""


class AtcError(Exception):
    """ATC gives up with this code and text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Flags(dict[str, str]):
    """Flag -> value, as given."""

    def check(self, version: str, chips: Sequence[str] | None) -> None:
        """Raise AtcError for the first rule that is broken; ``version`` is the toolkit's."""
        self._auto_tune(version)
        for name, value in self.items():
            if not value:
                raise AtcError("E10004", f"Value for parameter [--{name}] is empty.")
        if self.get("mode", "0") != "0":
            raise NotImplementedError("the double knows --mode=0 alone")
        if self.get("framework") not in ("0", "1", "3", "5"):
            raise AtcError(
                "E10007", "[--framework] is required. The value must be [0(Caffe), 1(MindSpore), 3, 5(ONNX)]."
            )
        if self["framework"] != "5":
            raise NotImplementedError("the double reads ONNX alone (--framework=5)")
        for name in ("model", "output", "soc_version"):
            if name not in self:
                raise AtcError("E10054", f"The required parameter [--{name}] for ATC is empty.")
        self._values(chips)
        for one, other in EXCLUSIVE:
            if one in self and other in self:
                raise AtcError("E10047", f"Parameters [--{one}] and [--{other}] are mutually exclusive.")
        self._files()
        self._gears()

    def _auto_tune(self, version: str) -> None:
        tuned = self.get("auto_tune_mode")
        if tuned is None:
            return
        if version.split(".")[0] not in ("3", "5", "20", "21"):
            raise invalid("auto_tune_mode", tuned, "Auto Tune has been deprecated, use AOE.")
        if not set(tuned.split(",")) <= {"GA", "RL"}:
            raise invalid("auto_tune_mode", tuned, "the value must be in [GA, RL, GA,RL].")

    def _values(self, chips: Sequence[str] | None) -> None:
        soc = self["soc_version"]
        if not CHIP.fullmatch(soc):
            raise invalid("soc_version", soc, "the chip is not supported.")
        if chips is not None and soc not in chips:
            raise AtcError("E19999", f"the operator package of {soc} is not installed")
        if self.get("log", "null") not in LOGS:
            raise AtcError("E10010", f"Value [{self['log']}] for parameter [--log] is invalid. It must be {LOGS}.")
        for name, allowed in PRECISIONS.items():
            value = self.get(name, allowed[0])
            if value not in allowed or (NO_BF16.fullmatch(soc) and "bf" in value):
                raise AtcError("E10003", f"Value [{value}] for parameter [--{name}] is invalid.")
        if self.get("op_select_implmode", IMPLEMENTATIONS[0]) not in IMPLEMENTATIONS:
            raise AtcError("E10003", f"Value [{self['op_select_implmode']}] for [--op_select_implmode] is invalid.")
        if self.get("output_type", "FP32") not in ("FP32", "FP16", "UINT8", "INT8"):
            raise invalid("output_type", self["output_type"], "unsupported type.")
        formats = ("NCHW", "NHWC") if "insert_op_conf" in self else ("NCHW", "NCDHW", "ND")
        if self.get("input_format", "NCHW") not in formats:
            raise invalid("input_format", self["input_format"], f"it must be one of {', '.join(formats)} here.")
        if self.get("enable_small_channel", "0") not in ("0", "1"):
            raise AtcError(
                "E10006", f"Value [{self['enable_small_channel']}] for [--enable_small_channel] must be 0 or 1."
            )
        if self.get("enable_small_channel") == "1" and "insert_op_conf" not in self:
            raise invalid("enable_small_channel", "1", "it works with static AIPP only.")

    def _files(self) -> None:
        if not Path(self["model"]).is_file():
            raise AtcError("E13000", f"File [{self['model']}] of parameter [--model] does not exist.")
        if "insert_op_conf" in self and not Path(self["insert_op_conf"]).is_file():
            raise AtcError("E10410", f"Cannot find the config file [{self['insert_op_conf']}].")
        if not Path(self["output"]).parent.is_dir() or self["output"].endswith("/"):
            raise invalid("output", self["output"], "the folder does not exist, or no file name is given.")

    def _gears(self) -> None:
        text = self.get("dynamic_batch_size")
        if text is not None:
            if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
                raise invalid("dynamic_batch_size", text, "it must be digits separated by commas.")
            _count(len(text.split(",")))
            shape = self.shape
            if shape is None or shape[0] != -1:
                raise AtcError("E10012", "[--dynamic_batch_size] needs -1 as the first dimension of [--input_shape].")
            if -1 in shape[1:]:
                raise AtcError("E10018", f"Only batch may be -1 with [--dynamic_batch_size]: [{self['input_shape']}].")
        text = self.get("dynamic_dims")
        if text is not None:
            if self.get("input_format") != "ND":
                raise invalid("input_format", self.get("input_format", "NCHW"), "[--dynamic_dims] needs ND.")
            gears = text.split(";")
            _count(len(gears))
            free = (self.shape or []).count(-1)
            if any(len(gear.split(",")) != free for gear in gears):
                raise AtcError("E10037", f"each gear of [--dynamic_dims] must have {free} numbers.")

    @property
    def gears(self) -> tuple[int, ...]:
        """Batches to choose from at run time, ascending; empty for a fixed batch."""
        text = self.get("dynamic_batch_size") or (self.get("dynamic_dims", "").replace(";", ","))
        return tuple(sorted({int(gear) for gear in text.split(",") if gear}))

    @property
    def shape(self) -> list[int] | None:
        """The dimensions that --input_shape gives to its only input; -1 for a free one or a range."""
        text = self.get("input_shape")
        if text is None:
            return None
        _, _, dims = text.rpartition(":")
        found = [part.strip() for part in dims.split(",")]
        if ";" in text.rstrip(";"):
            raise AtcError(
                "E10001", f"Value [{text}] for parameter [--input_shape] is invalid. Reason: one input alone."
            )
        if ":" not in text or not all(re.fullmatch(r"-1|[1-9]\d*(~([1-9]\d*|-1))?", part) for part in found):
            raise AtcError("E10002", f"Value [{text}] for parameter [--input_shape] is invalid: name:n,c,h,w expected.")
        return [-1 if "~" in part else int(part) for part in found]

    @property
    def shape_name(self) -> str:
        """The input that --input_shape names."""
        return self.get("input_shape", "").rpartition(":")[0].strip()


def parse_flags(arguments: Sequence[str]) -> Flags:
    """``--name=value`` or ``--name value``, quotes already gone. Raises UnknownFlag."""
    flags = Flags()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, given, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in KNOWN:
            raise UnknownFlag(f"unknown command line flag '{name}'")
        if not given:
            if not rest:
                raise UnknownFlag(f"flag '--{name}' is missing its argument")
            value = rest.pop(0)
        if name in flags:
            raise UnknownFlag(f"flag '--{name}' is given twice")
        flags[name] = value
    return flags


def _count(gears: int) -> None:
    if gears < 2:
        raise AtcError("E10035", f"[{gears}] gears are too few: at least 2.")
    if gears > MOST_GEARS:
        raise AtcError("E10036", f"[{gears}] gears are too many: at most {MOST_GEARS}.")


def invalid(name: str, value: str, reason: str) -> AtcError:
    return AtcError("E10001", f"Value [{value}] for parameter [--{name}] is invalid. Reason: {reason}")
