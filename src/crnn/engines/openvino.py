"""OpenVINO on the CPU: the fastest engine for ONNX files. Needs ``crnn[openvino]``."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import quantization
from crnn.engines import cache
from crnn.engines.artefact import Port, first_line, read_spec, run_in_pieces
from crnn.engines.canary import check_mates
from crnn.engines.processors import processor, usable_processors
from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import SPEC_KEY

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8: of what is not quantised
_FAST_INT8 = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))
_LINKED = (b"\x0a\x08location", b"<")
"""An ONNX file with weights in a second file has the first of these in it (the key of onnx.proto's external_data);
OpenVINO's own .xml begins with the second."""
_BUILD = "1"
"""Part of the cache's keys: to be raised when the network is prepared for OpenVINO in another way."""


class OpenVinoEngine:
    """An ONNX file in OpenVINO.

    The spec comes from the file's metadata (:func:`crnn.engines.artefact.read_spec`). Without a ``precision``, it is
    the fastest that is exact enough (:func:`choose_precision`). The compiled network is kept in the user's cache folder
    (:mod:`crnn.engines.cache`), unless its weights lie in a second file, and is tried on two pictures each time
    (:mod:`crnn.engines.canary`).

    As many ``calls`` run at once, by default as their threads fit on the processors, and further ones wait.

    Raises EngineError if OpenVINO is missing, cannot do what is asked on this processor, or computes wrongly;
    ModelError if the file is no ONNX network of the spec's shapes, or has no ranges for int8.
    """

    name = "openvino"
    device = "CPU"

    def __init__(
        self, path: Path, threads: int | None = None, precision: str | None = None, calls: int | None = None
    ) -> None:
        if precision is not None and precision not in _HINTS:
            raise OptionError(f"the engine openvino does not compute in {precision}: choose {', '.join(_HINTS)}")
        try:
            import openvino
        except ImportError as error:
            raise EngineError(f"the engine openvino cannot be used ({error}): pip install 'crnn[openvino]'") from None
        self._openvino: Any = openvino
        self._core: Any = openvino.Core()
        self.path = path
        self.version: str = openvino.__version__.partition("-")[0]
        machine = processor()
        self.threads = machine["usable"] if threads is None else threads
        data = _read(path)
        digest = hashlib.sha256(data).hexdigest()
        ranges = quantization.load(path) if precision in (None, "int8") else None
        self.precision = precision or choose_precision(machine["features"], ranges, digest)
        tops = quantization.require(path, digest, ranges).tops if self.precision == "int8" else {}

        calls = calls or max(1, usable_processors() // self.threads)
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": calls * self.threads,
            "NUM_STREAMS": calls,
            "ENABLE_CPU_PINNING": False,  # a pinned thread waits for its processor while another one idles
        }
        facts = (_BUILD, openvino.__version__, digest, json.dumps([machine["name"], machine["features"]]))
        name = cache.key(*facts, self.precision, json.dumps(tops, sort_keys=True))
        if _LINKED[0] in data or data.startswith(_LINKED[1]):  # the digest says nothing about the other file
            compiled, text = self._build(path, options, tops)
        else:
            compiled, text = self._load(name, options) or self._build(data, options, tops, name)
        kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if kind != _HINTS[self.precision]:
            raise EngineError(f"this processor does not compute in {self.precision}: choose float32")
        ports = [[_port(node) for node in nodes] for nodes in (compiled.inputs, compiled.outputs)]
        self.spec, self.notes, self._fixed_batch = read_spec(path, text, *ports)
        if precision is None and ranges is not None and ranges.model != digest:
            where = quantization.place(path)
            self.notes += (
                f"{where.name} belongs to other weights, so int8 was not considered: {quantization.remedy(path)}",
            )
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(calls):
            self._idle.put(compiled.create_infer_request())
        check_mates(self.run, self.spec, path, self.precision)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`. A file of a fixed batch size gets its batches in pieces of that size."""
        return run_in_pieces(self._call, batch, self._fixed_batch, self.spec, self.path)

    def _call(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self._idle.get()
        try:
            request.infer({self.spec.input_name: np.ascontiguousarray(batch)}, share_inputs=True)
            return np.array(request.get_tensor(self.spec.output_name).data)  # a copy: the next call writes there
        except Exception as error:  # its errors share no base class of their own
            raise ModelError(f"{self.path}: failed on a batch of {len(batch)} ({first_line(error)})") from None
        finally:
            self._idle.put(request)

    def _load(self, name: str, options: Mapping[str, Any]) -> tuple[Any, str | None] | None:
        """The compiled network and its spec's text from the cache; None if they are not there or of no use."""
        data = cache.load(name)
        if data is None:
            return None
        try:
            head, _, compiled = data.partition(b"\n")
            return self._core.import_model(compiled, "CPU", options), json.loads(head)
        except Exception:  # of another build of OpenVINO: what is built in its stead replaces it
            cache.discard(name)
            return None

    def _build(
        self, source: bytes | Path, options: Mapping[str, Any], tops: Mapping[str, float], name: str | None = None
    ) -> tuple[Any, str | None]:
        """The same from the file's bytes, which go into the cache under ``name``, or from the file."""
        try:
            model = self._core.read_model(source)
            where = ["framework", SPEC_KEY]
            text: str | None = model.get_rt_info(where).value if model.has_rt_info(where) else None
            self._turn_for_lstms(model)
            self._quantise(model, tops)
            model.validate_nodes_and_infer_types()
            compiled = self._core.compile_model(model, "CPU", options)
        except ModelError:
            raise
        except Exception as error:
            hint = "; open it with --engine torch or `crnn export` it first" if self.path.suffix != ".onnx" else ""
            raise ModelError(f"{self.path}: OpenVINO cannot load it ({first_line(error)}){hint}") from None
        if name:
            stream = io.BytesIO(json.dumps(text).encode() + b"\n")
            stream.seek(0, io.SEEK_END)
            compiled.export_model(stream)
            cache.store(name, stream.getvalue())
        return compiled, text

    def _turn_for_lstms(self, model: Any) -> None:
        """Bring each LSTM's input to [words, steps, values] in a way that OpenVINO leaves alone.

        Its own transposition it melts into the LSTM's node, as a remark that is lost when the compiled network is
        saved, and that two LSTMs which read the same tensor get wrong.
        """
        from openvino import opset13 as ops

        for node in model.get_ordered_ops():
            if node.get_type_name() != "LSTMSequence":
                continue
            turn = node.input_value(0).get_node()
            if turn.get_type_name() != "Transpose":
                continue
            first = ops.constant(np.array([0]))
            order = ops.constant(np.array([0, 2, 1, 3]))
            turned = ops.transpose(ops.unsqueeze(turn.input_value(0), first), order)
            node.input(0).replace_source_output(ops.squeeze(turned, first).output(0))

    def _quantise(self, model: Any, tops: Mapping[str, float]) -> None:
        """Put the ranges in front of the convolutions: OpenVINO makes int8 of them when it compiles."""
        from openvino import opset13 as ops

        found = set()
        for node in model.get_ordered_ops():
            if node.get_type_name() != "Convolution":
                continue
            name = next((name for name in node.input_value(0).get_names() if name in tops), None)
            if name is None:
                continue
            found.add(name)
            stored = node.input_value(1).get_node()
            if stored.get_type_name() == "Convert":  # weights that are stored as float16
                stored = stored.input_value(0).get_node()
            kernels = np.array(stored.data, np.float32)
            bounds = [ops.constant(np.float32(value)) for value in (0, tops[name])]
            values = ops.fake_quantize(node.input_value(0), *bounds, *bounds, 256)
            limit = quantization.channel_tops(kernels)[:, None, None, None]
            bounds = [ops.constant(value) for value in (-limit, limit)]
            weights = ops.fake_quantize(ops.constant(kernels), *bounds, *bounds, 255)
            node.input(0).replace_source_output(values.output(0))
            node.input(1).replace_source_output(weights.output(0))
        if missing := sorted(tops.keys() - found):
            raise ModelError(f"{self.path}: no convolution reads {', '.join(missing)}, which its ranges name")


def choose_precision(features: list[str], ranges: quantization.Ranges | None, digest: str) -> str:
    """What a processor with these instruction sets computes a network in fastest, if it is exact enough.

    bfloat16 where there are AMX tiles for it. Without them it was no gain: with avx512_bf16 alone, on an Intel Xeon of
    family 6, model 207, a batch of 64 took three times as long as in float32. int8 where there is VNNI (half the time
    of float32 on the same processor) or AVX2 without AVX-512 (half the time as well, and texts that differed from
    float32's as seldom, on an AMD EPYC of family 25, model 1; AVX-512 without VNNI was never measured), if the ranges
    belong to the file of that SHA-256 and lost little accuracy on held-out words. Otherwise float32.
    """
    if "amx_bf16" in features:
        return "bfloat16"
    exact = ranges is not None and ranges.model == digest and ranges.exact_enough
    quick = not _FAST_INT8.isdisjoint(features) or ("avx2" in features and "avx512f" not in features)
    return "int8" if exact and quick else "float32"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None


def _port(node: Any) -> Port:
    kind = node.get_element_type().get_type_name()
    shape = [size.get_length() if size.is_static else None for size in node.get_partial_shape()]
    return Port(node.get_any_name(), {"f32": "tensor(float)", "f16": "tensor(float16)"}.get(kind, kind), shape)
