from __future__ import annotations

import base64
import json
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.serve.light import Answer, Bars, Client, png, serving
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from crnn.images import normalise, prepare

WORDS = ("one", "two", "three", "4", "")
BAD = b"not a picture"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(images=8, max_batch=3) as made:
        yield made


@pytest.fixture(scope="module")
def triton(client: Client) -> Iterator[Any]:
    with InferenceServerClient(f"127.0.0.1:{client.port}") as made:
        yield made


def own_input(*words: str) -> NDArray[np.float32]:
    spec = Bars().spec
    batch: NDArray[np.float32] = normalise(np.stack([prepare(png(word), spec) for word in words]), spec)
    return batch


def tensor(name: str, values: NDArray[Any], datatype: str, binary: bool = True) -> Any:
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def pictures(*data: bytes) -> NDArray[np.object_]:
    return np.array(data, np.object_)


def infer(client: Client, head: dict[str, Any], tail: bytes = b"", length: int | None = None) -> Answer:
    body = json.dumps(head).encode()
    named = {} if length is None and not tail else {"Inference_Header_Content_Length": str(length or len(body))}
    return client.send("POST", "/v2/models/crnn/infer", body + tail, **named)


def test_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("crnn") and triton.is_model_ready("crnn", "1") and not triton.is_model_ready("other")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    said = triton.get_model_metadata("crnn")
    assert said["inputs"] == [
        {"name": "actual_input_1", "datatype": "FP32", "shape": [-1, 1, 32, 100]},
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
    ]
    assert said["outputs"][:2] == [
        {"name": "output1", "datatype": "FP32", "shape": [26, -1, 37]},
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_networks_own_tensors(triton: Any, binary_in: bool, binary_out: bool) -> None:
    batch = own_input(*WORDS)
    given = tensor("actual_input_1", batch, "FP32", binary_in)
    asked = [InferRequestedOutput("output1", binary_data=binary_out)]
    answer = triton.infer("crnn", [given], outputs=asked, request_id="r 1")
    assert np.array_equal(answer.as_numpy("output1"), Bars().run(batch))
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r 1", "crnn", "1")


def test_pictures(triton: Any) -> None:
    given = tensor("image", pictures(*map(png, WORDS)), "BYTES")
    answer = triton.infer("crnn", [given])
    assert answer.as_numpy("text").tolist() == [word.encode() for word in WORDS]
    assert answer.as_numpy("confidence").dtype == np.float32 and (answer.as_numpy("confidence") > 0.2).all()
    assert answer.as_numpy("error").tolist() == [b""] * len(WORDS)
    asked = [InferRequestedOutput("text", binary_data=False)]
    assert triton.infer("crnn", [given], outputs=asked).get_response()["outputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [5], "data": list(WORDS)}
    ]


def test_pictures_in_json(client: Client) -> None:
    data = [base64.b64encode(png(word)).decode() for word in WORDS]
    answer = infer(client, {"inputs": [{"name": "image", "shape": [5], "datatype": "BYTES", "data": data}]})
    assert answer.json["outputs"][0]["data"] == list(WORDS) and "id" not in answer.json


def test_a_bad_picture_is_never_an_empty_text_in_silence(triton: Any) -> None:
    given = tensor("image", pictures(png("good"), BAD), "BYTES")
    answer = triton.infer("crnn", [given])
    assert answer.as_numpy("text").tolist() == [b"good", b""]
    assert answer.as_numpy("error")[0] == b"" and answer.as_numpy("error")[1].startswith(b"not a picture")
    with pytest.raises(InferenceServerException, match=r"image\[1\]: not a picture"):
        triton.infer("crnn", [given], outputs=[InferRequestedOutput("text")])


def test_other_things_are_refused(triton: Any, client: Client) -> None:
    image, batch = tensor("image", pictures(png("x")), "BYTES"), tensor("actual_input_1", own_input("x"), "FP32")
    for inputs, message in (
        ([image, batch], "one input"),
        ([tensor("other", own_input("x"), "FP32")], "one input"),
        ([tensor("actual_input_1", own_input("x").astype(np.float16), "FP16")], "datatype FP32"),
        ([tensor("actual_input_1", own_input("x")[:, :, :, :50].copy(), "FP32")], r"shape \[1, 1, 32, 50\]"),
        ([tensor("actual_input_1", own_input(*"123456789"), "FP32")], "may have 8"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            triton.infer("crnn", inputs)
    with pytest.raises(InferenceServerException, match="no output 'text'"):
        triton.infer("crnn", [batch], outputs=[InferRequestedOutput("text")])
    sizes = {"binary_data_size": 9}
    own = {"name": "image", "shape": [1], "datatype": "BYTES"}
    network = {"name": "actual_input_1", "shape": [1, 1, 32, 100], "datatype": "FP32"}
    for head, tail, length in (
        ({"inputs": [{**own, "parameters": sizes}]}, b"12345678", None),
        ({"inputs": [{**own, "parameters": sizes}]}, struct.pack("<I", 99) + b"12345", None),
        ({"inputs": [{**own, "shape": [2], "parameters": sizes}]}, struct.pack("<I", 5) + b"12345", None),
        ({"inputs": [own]}, b"123", None),
        ({"inputs": [own]}, b"", 10_000),
        ({"inputs": [{**own, "shape": [-1], "data": []}]}, b"", None),
        ({"inputs": [{**own, "shape": [1], "data": ["?"]}]}, b"", None),
        ({"inputs": [{**own, "shape": "1", "data": ["aa=="]}]}, b"", None),
        ({"inputs": "image"}, b"", None),
        ({"inputs": [{**own, "name": [], "data": [""]}]}, b"", None),
        ({"inputs": [{**own, "data": [""]}], "outputs": [{"name": "text"}] * 2}, b"", None),
        ({"inputs": [{**network, "data": ["x" * 10**6] + ["y"] * 3199}]}, b"", None),
        ({"inputs": [{**network, "data": [10**400] + [0] * 3199}]}, b"", None),
        ({"inputs": [{**network, "data": [1e39] + [0] * 3199}]}, b"", None),
        ({"inputs": [{**network, "data": [math.nan] + [0] * 3199}]}, b"", None),
        ({"inputs": [{**network, "parameters": {"binary_data_size": 12_800}}]}, b"\xff" * 12_800, None),
        ({"inputs": [own]}, b"", int("9" * 4000)),
        ({"inputs": [own], "parameters": 1}, b"", None),
        ({"inputs": [{**network, "data": ["1"]}]}, b"", 0),
    ):
        answer = infer(client, head, tail, length or None)
        assert answer.status == 400 and isinstance(answer.json["error"], str), (head, answer.body)
    assert client.read(png("still")).texts == ["still"]


def test_nested_data(client: Client) -> None:
    batch = own_input("one", "two")
    given = {"name": "actual_input_1", "shape": [2, 1, 32, 100], "datatype": "FP32", "data": batch.tolist()}
    (output,) = infer(client, {"inputs": [given]}).json["outputs"]
    assert np.allclose(np.reshape(output["data"], output["shape"]), Bars().run(batch))


def test_small_elements_are_counted_before_they_are_taken_apart(client: Client) -> None:
    size = 30_000_000
    own = {"name": "image", "shape": [size // 4], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    began = time.process_time()
    assert infer(client, {"inputs": [own]}, b"\0" * size).status == 413
    assert time.process_time() - began < 2


def test_batches_are_shared_with_the_other_api() -> None:
    engine = Bars()
    with serving(engine, max_batch=4) as client, InferenceServerClient(f"127.0.0.1:{client.port}") as triton:
        batch = own_input(*"abcdefghij")
        answer = triton.infer("crnn", [tensor("actual_input_1", batch, "FP32")])
        assert np.array_equal(answer.as_numpy("output1"), Bars().run(batch))
        assert max(engine.sizes) <= 4 and sum(engine.sizes) == 1 + 10
