"""ATC, the compiler of CANN: its command for the version that is installed, running it, and what its errors mean.

Flags and messages are those of CANN's "ATC user guide"; what the toolkit of 2021 took is the deliverable's
``atc_crnn.sh``. Not yet run against a real ATC.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crnn.engines import toolkit
from crnn.engines.compiled import MAGIC
from crnn.engines.toolkit import Toolkit
from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import ModelSpec

LOG_LEVELS = ("debug", "info", "warning", "error", "null")

_MODES = (
    "force_fp16",
    "force_fp32",
    "cube_fp16in_fp32out",
    "allow_fp32_to_fp16",
    "must_keep_origin_dtype",
    "allow_mix_precision",
    "allow_mix_precision_fp16",
    "allow_mix_precision_bf16",
    "allow_fp32_to_bf16",
)
_MODES_2 = ("fp16", "origin", "mixed_float16", "mixed_bfloat16")
_NO_BFLOAT16 = re.compile(r"Ascend(310(P\d*)?|910(A|ProA)?)")

_CODES = {
    "E10001": "a flag has a value that this ATC does not take; --cann-version tells crnn which version it is",
    "E10002": "the input shape is not written as ATC wants it",
    "E10003": "a flag has a value that ATC does not know: is --soc-version Ascend and what npu-smi info says?",
    "E10004": "a flag has no value",
    "E10005": "a flag must be true or false",
    "E10006": "a flag must be 0 or 1",
    "E10007": "a flag that this ATC requires is missing or has none of the allowed values",
    "E10010": "the log level is unknown",
    "E10012": "with gears only the batch size may be free",
    "E10018": "with gears only the batch size may be free",
    "E10035": "there are too few gears: it takes 2 at least",
    "E10036": "there are too many gears: it takes 100 at most",
    "E10037": "the gears differ in their number of dimensions",
    "E10047": "two flags exclude each other",
    "E10054": "a required flag is empty",
    "E10055": "this chip or version does not support what a flag asks for",
    "E10410": "a file is missing",
    "E10501": "ATC does not know an operator of the model",
    "E13000": "a file is missing",
    "E16001": "the model has no input or output",
    "E16002": "ATC has no parser for an operator: this CANN is too old for the model's opset",
    "E16004": "the file holds no graph",
    "E16005": "the model names several versions of one operator set",
    "E19010": "ATC has no parser for an operator: this CANN is too old for the model's opset",
    "E19999": "internal error of ATC; look at $HOME/ascend/log, and compile again with --log debug",
    "E20001": "an operator does not compile: is the operator package of this CANN and chip installed?"
    " With --gears, compile one file a batch size instead",
    "EZ9999": "an operator does not compile: is the operator package of this CANN and chip installed?",
}


@dataclass(frozen=True)
class Job:
    """What to compile. ``output`` is a prefix, to which ATC adds ``.om``; ``batches`` one size, or the gears."""

    onnx: Path
    output: Path
    spec: ModelSpec
    soc_version: str
    batches: tuple[int, ...] = (1,)
    precision: str | None = None
    aipp: Path | None = None
    log: str = "error"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"Ascend\w+", self.soc_version):
            example = f"Ascend{self.soc_version}" if re.fullmatch(r"\d+\w*", self.soc_version) else "Ascend310P3"
            raise OptionError(
                f"--soc-version {self.soc_version!r}: name the chip like {example} (npu-smi info says it)"
            )
        if self.precision not in (None, *_MODES, *_MODES_2):
            raise OptionError(f"--precision {self.precision}: choose one of {', '.join((*_MODES, *_MODES_2))}")
        if "bf" in (self.precision or "") and _NO_BFLOAT16.fullmatch(self.soc_version):
            raise OptionError(f"--precision {self.precision}: {self.soc_version} does not compute in bfloat16")
        if self.log not in LOG_LEVELS:
            raise OptionError(f"--log {self.log}: choose one of {', '.join(LOG_LEVELS)}")
        low, high = min(self.batches), max(self.batches)
        if low < 1 or len(set(self.batches)) != len(self.batches):
            raise OptionError("batch sizes must be 1 or more, each named once")
        if len(self.batches) > 1 and (len(self.batches) > 100 or high > 2048):
            raise OptionError("ATC takes 2 to 100 gears of at most 2048")

    @property
    def file(self) -> Path:
        """The file that ATC writes."""
        return self.output.with_name(f"{self.output.name}.om")


def precision_of(job: Job) -> str:
    """What ATC compiles to: its own default is float16."""
    return job.precision or "force_fp16"


def script(job: Job, found: Toolkit | None, version: str, tune: bool | None = None) -> str:
    """One line for bash: the environment of the toolkit, and the command.

    Without a toolkit it is the line for one in CANN's usual place. ``tune`` looks for faster kernels, which needs a
    device and can take hours; None does as the deliverable did where ATC still has ``--auto_tune_mode``, and not
    elsewhere, where it takes a run of ``aoe`` before.

    Raises OptionError if this version does not have the precision's name.
    """
    auto_tune = toolkit.has_auto_tune(version)
    if auto_tune and job.precision in _MODES_2:
        raise OptionError(f"--precision {job.precision}: CANN {version} has no --precision_mode_v2; choose force_fp16")
    parts = [_environment(found, version, tuning=auto_tune and tune is not False)]
    common = _common_flags(job)
    if tune and not auto_tune:
        parts.append(shlex.join(["aoe", "--job_type=2", *common]))
    flags = [*common, f"--soc_version={job.soc_version}", f"--log={job.log}"]
    if job.precision:
        flags.append(f"--precision_mode{'_v2' * (job.precision in _MODES_2)}={job.precision}")
    if auto_tune and tune is not False:
        flags.append("--auto_tune_mode=GA,RL")
    program = str(found.atc) if found and found.atc else "atc"
    return " && ".join([*parts, shlex.join([program, *flags])])


def _common_flags(job: Job) -> list[str]:
    """What ATC and AOE take alike."""
    gears = len(job.batches) > 1
    batch = -1 if gears else job.batches[0]
    shape = f"{batch},{job.spec.channels},{job.spec.height},{job.spec.width}"  # the network's own, with AIPP too
    flags = [
        f"--model={job.onnx}",
        "--framework=5",
        f"--output={job.output}",
        "--input_format=NCHW",
        f"--input_shape={job.spec.input_name}:{shape}",
    ]
    if gears:
        flags.append(f"--dynamic_batch_size={','.join(map(str, sorted(job.batches)))}")
    if job.aipp:
        flags += [f"--insert_op_conf={job.aipp}", "--enable_small_channel=1"]
    return flags


def _environment(found: Toolkit | None, version: str, *, tuning: bool) -> str:
    """``. set_env.sh && export ...``: what the programs need, and the log on standard output."""
    extended: dict[str, list[str]] = {}
    if found:
        set_env = found.set_env
        if set_env is None and found.atc and found.atc.parent.parent.name == "atc":
            extended = toolkit.environment_of_2021(found.root, found.base)
    elif toolkit.has_auto_tune(version) and not version.startswith("5"):
        set_env, root = None, Path(toolkit.USUAL_ROOT)
        extended = toolkit.environment_of_2021(root, root)
    else:
        set_env = Path(toolkit.USUAL_ROOT).parent / "set_env.sh"
    if found and toolkit.driver() is None:  # no device here: CANN brings stub libraries to link against
        devlib = found.root / f"{platform.machine()}-linux" / "devlib"
        if devlib.is_dir():
            extended.setdefault("LD_LIBRARY_PATH", []).append(str(devlib))
    assigned = ["ASCEND_SLOG_PRINT_TO_STDOUT=1"]
    if toolkit.has_auto_tune(version):
        assigned.append("SLOG_PRINT_TO_STDOUT=1")  # its name in 2021
    if tuning:
        assigned.append("REPEAT_TUNE=true")
    for name, folders in extended.items():
        kept = "" if name == "ASCEND_OPP_PATH" else f"${{{name}:+:${name}}}"  # what was there before, if anything
        assigned.append(f"{name}={shlex.quote(':'.join(folders))}{kept}")
    source = f". {shlex.quote(str(set_env))} && " if set_env else ""
    return f"{source}export {' '.join(assigned)}"


def run(line: str, job: Job, folder: Path, echo: Callable[[str], None]) -> list[str]:
    """Run the line of :func:`script` in ``folder``, giving each line of the log to ``echo``; ATC's warnings.

    It counts as done only if the exit status, the verdict in the log and the file agree. Stopping this call, by an
    exception or Ctrl-C, stops ATC.

    Raises ModelError with what ATC's error code means, EngineError if ATC does not start or is killed.
    """
    lines: list[str] = []
    # A session of its own, so that ATC's own children can be stopped with it
    process = subprocess.Popen(
        ["bash", "-c", line],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    try:
        for text in process.stdout:
            lines.append(text.rstrip())
            echo(lines[-1])
        status = process.wait()
    finally:
        if process.poll() is None:  # something has stopped us
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _judge(status, lines, job)
    return [text for text in lines if re.match(r"\s*W\d{5}\b", text)]


def _judge(status: int, lines: list[str], job: Job) -> None:
    if status in (126, 127):
        last = next((text for text in reversed(lines) if text), "no message")
        raise EngineError(f"ATC does not start: {last[:200]}")
    number = -status if status < 0 else status - 128  # bash adds 128 to the signal that ended its command
    if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGINT):
        hint = ": is there enough memory?" if number == signal.SIGKILL else ""
        raise EngineError(f"ATC was stopped by {signal.Signals(number).name}{hint}")
    failed = any("ATC run failed" in text for text in lines)
    if status != 0 or failed:
        raise ModelError(f"ATC failed (exit status {status}): {explain(lines)}")
    if not any("ATC run success" in text for text in lines):
        raise ModelError(
            "ATC ended without its verdict 'ATC run success'; run it by hand: --dry-run prints the command"
        )
    try:
        with job.file.open("rb") as file:
            whole = file.read(len(MAGIC)) == MAGIC
    except OSError:
        raise ModelError(f"ATC said that it succeeded but wrote no {job.file.name}") from None
    if not whole:
        raise ModelError(f"ATC said that it succeeded but what it wrote as {job.file.name} is no compiled model")


def explain(lines: list[str]) -> str:
    """The first error code of ATC's log in a sentence, and ATC's own words."""
    for text in lines:
        if found := re.search(r"\b(E[A-Z]?\d{4,5})\s*:\s*(.*)", text):
            code = found[1]
            words = re.sub(r"^\[PID: \d+\]\s*(\d{4}-\S+\s*)?", "", found[2]).strip()
            meaning = _CODES.get("EZ9999" if code.startswith("EZ") else code, "an error that crnn does not know")
            return f"{code}, {meaning} ({words[:300] or 'no message'})"
    last = next((text for text in reversed(lines) if text.strip()), "it said nothing")
    return f"no error code in its log, whose last line is: {last[:300]}"
