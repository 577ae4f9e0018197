"""``/v2``: the Open Inference Protocol, version 2, over HTTP, as Triton's and KServe's clients speak it.

Two ways in, of which a request takes one: the network's own input, which gives its own output, and encoded pictures,
which give texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import crnn
from crnn.engines import Engine
from crnn.serve.batching import Batcher
from crnn.serve.body import Bodies
from crnn.serve.faults import Fault
from crnn.serve.metrics import Metrics
from crnn.serve.settings import Settings
from crnn.serve.tasks import Seen
from crnn.serve.tensors import HEADER_LENGTH, Inference, Output, Values, read_request, write_answer
from crnn.serve.v1 import picture_error

NAME, VERSION = "crnn", "1"
IMAGE, TEXT, CONFIDENCE, ERROR = "image", "text", "confidence", "error"

Endpoint: TypeAlias = Callable[[Request], Any]

_Tensor: TypeAlias = tuple[str, Sequence[int], Values]  # datatype, shape, values


class V2:
    """The endpoints of ``/v2``."""

    def __init__(self, settings: Settings, engine: Engine, batcher: Batcher, bodies: Bodies, metrics: Metrics) -> None:
        self._settings, self._batcher, self._bodies, self._metrics = settings, batcher, bodies, metrics
        self._spec = engine.spec
        self._platform = f"crnn_{engine.name}"
        self._kind = "UINT8" if engine.spec.aipp else "FP32"
        self._inputs = {engine.spec.input_name: (self._kind, engine.spec.input_shape), IMAGE: ("BYTES", ())}

    def routes(self, ready: Endpoint) -> list[tuple[str, str, Endpoint]]:
        """(method, path, endpoint) of each. ``ready`` answers whether the service is."""
        model = f"/v2/models/{NAME}"
        return [
            ("GET", "/v2", self.server),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", ready),
            *(
                route
                for path in (model, f"{model}/versions/{VERSION}")
                for route in (
                    ("GET", path, self.model),
                    ("GET", f"{path}/ready", ready),
                    ("POST", f"{path}/infer", self.infer),
                )
            ),
        ]

    async def server(self, request: Request) -> Response:
        """Server metadata."""
        return JSONResponse({"name": "crnn", "version": crnn.__version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """Whether the service lives."""
        return JSONResponse({"live": True})

    async def model(self, request: Request) -> Response:
        """Model metadata: the network's own input and output, and pictures and texts."""
        spec = self._spec

        def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
            return {"name": name, "datatype": datatype, "shape": list(shape)}

        return JSONResponse(
            {
                "name": NAME,
                "versions": [VERSION],
                "platform": self._platform,
                "inputs": [tensor(name, kind, -1, *each) for name, (kind, each) in self._inputs.items()],
                "outputs": [
                    tensor(spec.output_name, "FP32", spec.steps, -1, spec.charset.classes),
                    tensor(TEXT, "BYTES", -1),
                    tensor(CONFIDENCE, "FP32", -1),
                    tensor(ERROR, "BYTES", -1),
                ],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Run the network on its own input, or read pictures."""
        body = await self._bodies.receive(request)
        try:
            length = request.headers.get(HEADER_LENGTH)
            wanted = read_request(body, length, self._inputs, self._settings.images)
            tensors = await self._run(wanted)
        finally:
            self._bodies.release(body)
        request.scope["crnn.words"] = len(wanted.values)  # for the log
        outputs = wanted.outputs or tuple(Output(name, wanted.binary) for name in tensors)
        head = {"model_name": NAME, "model_version": VERSION} | ({} if wanted.id is None else {"id": wanted.id})
        answer, json_length = write_answer(head, [(output, *tensors[output.name]) for output in outputs])
        if json_length is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={HEADER_LENGTH: str(json_length)})

    async def _run(self, wanted: Inference) -> dict[str, _Tensor]:
        """The tensors, by name. Raises Fault for a picture that cannot be read, if nobody asked for errors."""
        given = (self._spec.output_name,) if wanted.name != IMAGE else (TEXT, CONFIDENCE, ERROR)
        if unknown := [output.name for output in wanted.outputs if output.name not in given]:
            raise Fault(
                400, "malformed", f"no output {unknown[0][:60]!r} of {wanted.name}; there is {', '.join(given)}"
            )
        if not isinstance(wanted.values, list):
            logp = await self._batcher.infer(wanted.values)
            return {self._spec.output_name: ("FP32", logp.shape, logp)}
        seen = await self._batcher.read(wanted.values)
        texts, confidences, errors = [], [], []
        wants_errors = not wanted.outputs or any(output.name == ERROR for output in wanted.outputs)
        for number, each in enumerate(seen):
            if isinstance(each, Seen):
                texts.append(each.word.text.encode())
                confidences.append(each.word.confidence)
                errors.append(b"")
                continue
            error = picture_error(each)
            if not wants_errors:
                what = f"{IMAGE}[{number}]: {error['message']}; ask for the output {ERROR!r} to have the others' texts"
                raise Fault(400, error["code"], what)
            self._metrics.errors.labels(error["code"]).inc()
            texts.append(b"")
            confidences.append(0.0)
            errors.append(error["message"].encode())
        shape = [len(seen)]
        return {
            TEXT: ("BYTES", shape, texts),
            CONFIDENCE: ("FP32", shape, np.array(confidences, np.float32)),
            ERROR: ("BYTES", shape, errors),
        }
