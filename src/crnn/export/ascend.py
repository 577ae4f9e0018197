"""An ONNX file -> a compiled ``.om`` for Ascend devices and the description beside it. Needs onnx, but no torch.

Not yet run against a real ATC.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper

from crnn.engines import compiled, toolkit
from crnn.engines.artefact import Port, first_line, read_spec
from crnn.engines.compiled import Compiled
from crnn.engines.toolkit import Toolkit
from crnn.errors import EngineError, ModelError, OptionError
from crnn.export import aipp, atc
from crnn.files import write_whole
from crnn.spec import SPEC_KEY, ModelSpec

OPSET, IR_VERSION = 11, 6
"""What ATC has read since 2020; later toolkits read them still."""


@dataclass(frozen=True)
class Plan:
    """A compilation that has been checked. ``line`` is for bash; in it, files lie beside ``job.output``."""

    job: atc.Job
    line: str
    version: str
    plain: bytes
    onnx_sha256: str
    notes: tuple[str, ...]
    toolkit: Toolkit | None
    tune: bool | None

    @property
    def files(self) -> dict[Path, bytes]:
        """What ATC is given, beside the command."""
        files = {self.job.onnx: self.plain}
        if self.job.aipp:
            files[self.job.aipp] = aipp.configuration(self.job.spec).encode()
        return files


def plan(
    model: Path,
    output: Path,
    soc_version: str,
    batches: tuple[int, ...] = (1,),
    *,
    precision: str | None = None,
    aipp_input: str = "",
    cann_version: str | None = None,
    tune: bool | None = None,
    log: str = "error",
) -> Plan:
    """Check everything that can be checked without ATC. ``output`` may end in ``.om``.

    ``cann_version`` is of the toolkit that will compile (default: what :func:`crnn.engines.toolkit.find` finds).
    Raises ModelError, OptionError.
    """
    output = output.absolute()
    if output.suffix == ".om":
        output = output.with_suffix("")
    if not os.path.isdir(output.parent):
        raise OptionError(f"{output}: there is no such folder to write it to")
    try:
        data = model.read_bytes()
    except OSError as error:
        raise ModelError(f"{model}: cannot be read ({error.strerror})") from None
    network, spec, notes, fixed = _load(model, data)
    if fixed is not None and batches != (fixed,):
        raise ModelError(
            f"{model}: its batch size is fixed at {fixed}: compile with --batch {fixed}, or export it again"
        )
    if aipp_input:
        spec = dataclasses.replace(spec, aipp=aipp_input)
        aipp.configuration(spec)
    found = toolkit.find()
    version = cann_version or (found.version if found else "")
    if found and not version:
        notes += (f"the version of CANN in {found.root} could not be found: taken for a current one (--cann-version)",)
    job = atc.Job(
        onnx=_beside(output, ".plain.onnx"),
        output=output,
        spec=spec,
        soc_version=soc_version,
        batches=batches,
        precision=precision,
        aipp=_beside(output, ".aipp.cfg") if aipp_input else None,
        log=log,
    )
    line = atc.script(job, found, version, tune)
    digest = hashlib.sha256(data).hexdigest()
    return Plan(job, line, version, network.SerializeToString(), digest, notes, found, tune)


def keep(planned: Plan) -> None:
    """Write what ATC is given (the plain ONNX file, AIPP's configuration) where ``planned.line`` says it is."""
    for path, data in planned.files.items():
        write_whole(path, data)


def compile_model(planned: Plan, echo: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Run ATC; (the ``.om``, ATC's warnings). Each line of ATC's log goes to ``echo``.

    ATC works in a folder of its own inside the target's, which is removed; the ``.om`` and its ``.json`` appear when
    both are whole. Raises EngineError if there is no ATC or it dies, ModelError if it refuses the model.
    """
    if planned.toolkit is None or planned.toolkit.atc is None:
        raise EngineError(
            "there is no ATC here: install the CANN toolkit and source its set_env.sh, or take the command that "
            "--dry-run --keep gives to a machine that has it"
        )
    target = planned.job.file
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{planned.job.output.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise OptionError(f"{target.parent}: cannot be written to ({error.strerror})") from None
    try:
        job = planned.job
        job = dataclasses.replace(
            job,
            onnx=folder / job.onnx.name,
            output=folder / job.output.name,
            aipp=folder / job.aipp.name if job.aipp else None,
        )
        keep(dataclasses.replace(planned, job=job))
        line = atc.script(job, planned.toolkit, planned.version, planned.tune)
        warnings = atc.run(line, job, folder, echo)
        description = Compiled(
            spec=job.spec,
            soc_version=job.soc_version,
            batches=tuple(sorted(job.batches)),
            precision=atc.precision_of(job),
            cann_version=planned.version,
            onnx_sha256=planned.onnx_sha256,
            om_sha256=hashlib.sha256(job.file.read_bytes()).hexdigest(),
        )
        compiled.beside(job.file).write_text(description.to_json(), encoding="utf-8")
        # The description first: without its .om it is refused by its checksum, an .om without it would be believed.
        os.replace(compiled.beside(job.file), compiled.beside(target))
        os.replace(job.file, target)
    except OSError as error:
        raise OptionError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target, warnings


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _load(path: Path, data: bytes) -> tuple[onnx.ModelProto, ModelSpec, tuple[str, ...], int | None]:
    """(the plain copy, its spec, notes, the batch size if the file fixes it)."""
    try:
        model = onnx.load_from_string(data)
    except Exception:  # protobuf's DecodeError, a class that has moved between its releases
        raise ModelError(f"{path}: not an ONNX file") from None
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file, or one of an empty network")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.absolute().parent))
    except Exception as error:  # of several classes: a name that leads out of the folder, a short file
        raise ModelError(f"{path}: the file that holds its weights cannot be read ({first_line(error)})") from None
    try:
        plain = plain_copy(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    text = {entry.key: entry.value for entry in model.metadata_props}.get(SPEC_KEY)
    ports = [[_port(value) for value in values] for values in (plain.graph.input, plain.graph.output)]
    return plain, *read_spec(path, text, *ports)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = [each.dim_value if each.HasField("dim_value") else each.dim_param for each in tensor.shape.dim]
    return Port(value.name, f"tensor({kind})", sizes)


def plain_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network as every ATC since 2020 reads it: opset 11, IR 6, float32, no Cast, constant LSTM weights.

    Weights that are stored as float16 behind a Cast, as ``crnn export --fp16`` does, become float32.

    Raises ModelError if the network has another opset, or computes its LSTM's weights or types while it runs.
    """
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if opsets != {"ai.onnx": OPSET}:
        found = ", ".join(f"{domain} {version}" for domain, version in opsets.items())
        raise ModelError(
            f"its operators are of {found}; ATC reads ai.onnx {OPSET} in every version: crnn export writes it"
        )
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    plain.ir_version = IR_VERSION
    graph = plain.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if not _fold(node, constants)]
    if casts := [node.name or node.output[0] for node in nodes if node.op_type == "Cast"]:
        raise ModelError(f"it changes types while it runs (Cast: {', '.join(casts[:3])}): export it in float32")
    for node in nodes:
        if node.op_type == "LSTM" and not all(name in constants for name in node.input[1:4] if name):
            raise ModelError(
                f"the weights of {node.name or node.output[0]} (LSTM) are not constants, as Ascend needs them"
            )
    used = {name for node in nodes for name in node.input}
    kept = [constants[name] for name in constants if name in used]
    inputs = [value for value in graph.input if value.name not in constants]
    for field, values in (("node", nodes), ("initializer", kept), ("input", inputs)):
        values = [
            type(value).FromString(value.SerializeToString()) for value in values
        ]  # clearing empties the originals
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    del graph.value_info[:]  # of values that no longer exist
    try:
        onnx.checker.check_model(plain, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"not a valid ONNX network ({' '.join(str(error).split())[:200]})") from None
    return plain


def _fold(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether the node gives a constant, which is then one of ``constants``."""
    if node.op_type == "Constant":
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if value is None:
            return False
    elif node.op_type in ("Cast", "Identity") and node.input[0] in constants:
        value = constants[node.input[0]]
        if node.op_type == "Cast":
            to = next(each.i for each in node.attribute if each.name == "to")
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
            value = numpy_helper.from_array(numpy_helper.to_array(value).astype(dtype))
    else:
        return False
    constant = onnx.TensorProto()
    constant.CopyFrom(value)
    constant.name = node.output[0]
    constants[constant.name] = constant
    return True
