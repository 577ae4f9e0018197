"""The Open Inference Protocol's tensors on the wire: JSON, and the extension that appends them as bytes.

With the extension a body is a JSON header and then the tensors' bytes in the order of the header, little-endian and
row-major; the header ``Inference-Header-Content-Length`` says how long the JSON is. An element of type BYTES is its
length as uint32, and then itself. (Open Inference Protocol, "Inference Protocol - HTTP/REST"; KServe/Triton, "Binary
Tensor Data Extension".)
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn.serve.asked import from_base64, parse_json, require_few
from crnn.serve.faults import Fault

HEADER_LENGTH = "Inference-Header-Content-Length"

DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}

Values: TypeAlias = "NDArray[Any] | list[bytes]"
"""Of one tensor: an array, or for BYTES its elements."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that the client wants, and whether in bytes."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Inference:
    """A request. ``outputs`` is empty where all are wanted, in bytes if ``binary``."""

    id: str | None
    name: str
    """Of its one input."""
    values: Values
    outputs: tuple[Output, ...]
    binary: bool


def read_request(
    body: bytes, header_length: str | None, inputs: Mapping[str, tuple[str, Sequence[int]]], most: int
) -> Inference:
    """What a request asks. ``inputs`` has, by name, the datatype and the shape of one element along the first axis, of
    which there may be ``most``.

    Raises Fault if the request is malformed, its input is none of these, or has more elements.
    """
    if header_length is None:
        head, rest = body, b""
        numbers = most * max(math.prod(each) for _, each in inputs.values())
    else:
        if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
            raise _malformed(f"{HEADER_LENGTH} must be the length of the JSON, at most {len(body)}")
        head, rest = body[: int(header_length)], body[int(header_length) :]
        numbers = 0
    require_few(head, 2 * numbers + 1024)
    request = parse_json(head)
    tensors = _list(request, "inputs")
    name = tensors[0].get("name") if len(tensors) == 1 else None
    if not isinstance(name, str) or name not in inputs:
        raise _malformed(f"give one input: {' or '.join(inputs)}")
    tensor = tensors[0]
    datatype, each = inputs[name]
    if tensor.get("datatype") != datatype:
        raise _malformed(f"{name} must be of datatype {datatype}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise _malformed(f"{name} has no shape, a list of numbers above 0")
    if shape[1:] != list(each) or not shape:
        raise _malformed(f"{name} has the shape {shape} instead of {['N', *each]}".replace("'N'", "N"))
    if shape[0] > most:  # before they are taken apart, for each empty one takes a hundred times its bytes
        raise Fault(413, "too_many_images", f"a request may have {most} pictures or words")
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if rest:
            raise _malformed("there are bytes behind the JSON, and no input has binary_data_size")
        values = _from_json(tensor.get("data"), name, datatype, shape)
    else:
        if size != len(rest) or "data" in tensor:
            raise _malformed(f"{name}: binary_data_size is {size}, and {len(rest)} bytes follow the JSON")
        values = _from_bytes(rest, name, datatype, shape)
    if datatype == "FP32" and not np.isfinite(np.asarray(values)).all():
        raise _malformed(f"{name} has values that are no finite float32")
    identity = request.get("id")
    if not isinstance(identity, str | None):
        raise _malformed("id must be a string")
    binary = _parameters(request).get("binary_data_output") is True
    outputs: dict[str, Output] = {}
    for output in _list(request, "outputs") if request.get("outputs") is not None else []:
        wanted = output.get("name")
        if not isinstance(wanted, str):
            raise _malformed("an output has no name")
        if wanted in outputs:  # a small request would have an answer without end
            raise _malformed("an output is asked for twice")
        outputs[wanted] = Output(wanted, _parameters(output).get("binary_data", binary) is True)
    return Inference(identity, name, values, tuple(outputs.values()), binary)


def write_answer(
    head: Mapping[str, Any], tensors: Sequence[tuple[Output, str, Sequence[int], Values]]
) -> tuple[bytes, int | None]:
    """The body of an answer with these tensors (output, datatype, shape, values), and its JSON's length if bytes
    follow the JSON.
    """
    described, parts = [], []
    for output, datatype, shape, values in tensors:
        tensor: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": list(shape)}
        if output.binary:
            parts.append(_to_bytes(values))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        elif isinstance(values, list):
            tensor["data"] = [value.decode("utf-8", "replace") for value in values]
        else:
            tensor["data"] = values.ravel().tolist()
        described.append(tensor)
    text = json.dumps({**head, "outputs": described}, separators=(",", ":")).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _list(request: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = request.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _malformed(f"{name} must be a list of objects")
    return found


def _parameters(of: Mapping[str, Any]) -> Mapping[str, Any]:
    found = of.get("parameters") or {}
    if not isinstance(found, dict):
        raise _malformed("parameters must be an object")
    return found


def _from_json(data: Any, name: str, datatype: str, shape: Sequence[int]) -> Values:
    if not isinstance(data, list):
        raise _malformed(f"{name} has neither data nor binary_data_size")
    if datatype == "BYTES":
        if len(data) != shape[0]:
            raise _malformed(f"{name} has {len(data)} elements instead of {shape[0]}")
        return [from_base64(item, f"{name}.data[{i}]") for i, item in enumerate(data)]
    while data and all(isinstance(row, list) for row in data):  # the protocol takes it nested, too
        data = [item for row in data for item in row]
    # Looked at one by one: of texts among them NumPy would make an array with room for the longest in each place.
    try:
        if len(data) != math.prod(shape) or not all(type(item) in (int, float) for item in data):
            raise ValueError
        given = np.array(data, np.float64)
        with np.errstate(all="ignore"):
            values = given.astype(DATATYPES[datatype])
        if datatype == "UINT8" and not (values == given).all():
            raise ValueError
    except (ValueError, OverflowError):
        raise _malformed(f"{name}: data must be {math.prod(shape)} numbers of datatype {datatype}") from None
    return values.reshape(shape)


def _from_bytes(data: bytes, name: str, datatype: str, shape: Sequence[int]) -> Values:
    if datatype == "BYTES":
        elements: list[bytes] = []
        place = 0
        while place < len(data) and len(elements) < shape[0]:
            if place + 4 > len(data):
                break
            (size,) = struct.unpack_from("<I", data, place)
            elements.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        if place != len(data) or len(elements) != shape[0]:
            raise _malformed(f"{name}: the bytes are not {shape[0]} elements, each behind its length as uint32")
        return elements
    dtype = DATATYPES[datatype]
    if len(data) != math.prod(shape) * dtype.itemsize:
        what = f"{len(data)} bytes instead of {math.prod(shape) * dtype.itemsize}"
        raise _malformed(f"{name}: {what} for the shape {list(shape)} of {datatype}")
    return np.frombuffer(data, dtype).reshape(shape)


def _to_bytes(values: Values) -> bytes:
    if isinstance(values, list):
        return b"".join([part for value in values for part in (struct.pack("<I", len(value)), value)])
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _malformed(what: str) -> Fault:
    return Fault(400, "malformed", what)
