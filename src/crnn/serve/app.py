"""The application: the routes, and the door that every request comes through."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import crnn
from crnn.engines import Engine
from crnn.engines.lanes import Lanes
from crnn.engines.processors import usable_processors
from crnn.serve.batching import Batcher
from crnn.serve.body import Bodies
from crnn.serve.faults import Fault
from crnn.serve.metrics import Metrics
from crnn.serve.page import Page
from crnn.serve.schemas import READ, ErrorAnswer, ModelAnswer, ReadAnswer, ReadRequest
from crnn.serve.settings import Settings
from crnn.serve.tensors import HEADER_LENGTH
from crnn.serve.v1 import V1
from crnn.serve.v2 import V2, Endpoint

_log = logging.getLogger("crnn.serve")

_OPEN = ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
"""What needs no API key, besides the page's files: whether the service is there, and the page that asks for the key."""


def create_app(settings: Settings, network: Engine | Lanes) -> ASGIApp:
    """The service on an opened engine: for any ASGI server that runs its lifespan, in one process.

    Lanes give a crowd several calls beside each other, and a client alone one call in all threads; with an engine all
    calls have its threads.

    Without :func:`crnn.serve.server.run` the limits on connections and on the heads of requests are that server's.
    """
    metrics = Metrics()
    lanes = network if isinstance(network, Lanes) else Lanes.of(network, usable_processors())
    engine = lanes.single.engine
    batcher = Batcher(lanes, settings, metrics)
    bodies = Bodies(settings, metrics)
    v1 = V1(settings, engine, batcher, bodies, metrics)
    v2 = V2(settings, engine, batcher, bodies, metrics)
    page = Page()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        await batcher.warm_up()
        yield
        batcher.close()

    async def health(request: Request) -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        """Whether words can be read now."""
        trouble = await batcher.trouble()
        if trouble is not None:
            raise Fault(503, "not_ready", trouble, retry_after=5)
        return JSONResponse({"status": "ready"})

    async def show_metrics(request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def model(request: Request) -> Response:
        """The model that reads, what runs it, and the limits on requests."""
        return JSONResponse(v1.description)

    app = FastAPI(
        title="crnn",
        version=crnn.__version__,
        summary="Reads words in pictures.",
        lifespan=lifespan,
        docs_url=None,  # their scripts come from a public network
        redoc_url=None,
        responses={code: {"model": ErrorAnswer} for code in (400, 401, 408, 413, 415, 500, 503)},
    )
    app.router.route_class = _Direct

    def add(method: str, path: str, endpoint: Endpoint, **described: Any) -> None:
        summary, _, more = (endpoint.__doc__ or "").partition("\n")
        app.add_api_route(path, endpoint, methods=[method], summary=summary, description=more.strip(), **described)

    add("POST", "/v1/read", v1.read, response_model=ReadAnswer, openapi_extra=READ)
    add("GET", "/v1/model", model, response_model=ModelAnswer)
    add("GET", "/healthz", health)
    add("GET", "/readyz", ready)
    add("GET", "/metrics", show_metrics)
    for method, path, endpoint in v2.routes(ready):
        add(method, path, endpoint, include_in_schema="/versions/" not in path)
    add("GET", "/", page.index, include_in_schema=False)
    add("GET", "/static/{name:path}", page.static, include_in_schema=False)
    _document(app)

    async def refuse(request: Request, error: Exception) -> Response:
        return door.refuse(error, request.url.path)

    for kind, handler in ((HTTPException, _unknown), (Fault, refuse), (Exception, refuse)):
        app.add_exception_handler(kind, handler)
    door = _Door(app, {("POST", "/v1/read"): v1.read}, settings, metrics)
    if not settings.cors:
        return door
    return CORSMiddleware(
        door,
        allow_origins=settings.cors,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "X-API-Key", "Content-Type", HEADER_LENGTH],
        expose_headers=["Retry-After", HEADER_LENGTH],
    )


class _Direct(APIRoute):
    """A route that OpenAPI describes as any other, but whose endpoint gets the request as it is, and checks it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint


class _Door:
    """Lets in who may come in, counts and logs who comes out, and turns what goes wrong into answers.

    Behind it is FastAPI, but for the endpoints in ``direct``, by method and path: its way to an endpoint takes as long
    as all that is ours on the way to the queue. The log says nothing of what requests hold, nor of paths that are none
    of ours, for those are the client's words.
    """

    def __init__(
        self, app: ASGIApp, direct: Mapping[tuple[str, str], Endpoint], settings: Settings, metrics: Metrics
    ) -> None:
        self._app, self._direct, self._metrics = app, direct, metrics
        self._key = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        endpoint = self._direct.get((scope["method"], scope["path"]))
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._key is not None and not self._may(scope):
                raise Fault(401, "key", "show the API key: Authorization: Bearer KEY, or X-API-Key: KEY")
            if endpoint is None:
                await self._app(scope, receive, noted)
            else:
                response = await endpoint(Request(scope, receive))
                await response(scope, receive, noted)
        except Exception as error:
            if not status:  # otherwise FastAPI has answered, and raises it once more
                await self.refuse(error, scope["path"])(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - began
            route = scope["path"] if endpoint else getattr(scope.get("route"), "path", "-")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.observe(seconds)
            words = scope.get("crnn.words", 0)
            _log.info("%s %s %d %d words %.1f ms", scope["method"], route, status, words, 1000 * seconds)

    def refuse(self, error: Exception, path: str) -> Response:
        """The answer to a request that raised this."""
        fault = error if isinstance(error, Fault) else Fault(500, "internal", "a fault of the service; see its log")
        if fault is not error:
            _log.error("crnn: a request failed", exc_info=error)
        self._metrics.errors.labels(fault.code).inc()
        return answer(fault, path)

    def _may(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in _OPEN or path.startswith("/static/"):
            return True
        shown = b""
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                shown = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                shown = value[7:].strip()
        return hmac.compare_digest(shown, self._key or b"")


def answer(fault: Fault, path: str) -> Response:
    """A fault as a response; under /v2 in the form of that protocol."""
    message: Any = {"code": fault.code, "message": fault.message}
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    if fault.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    text = json.dumps({"error": fault.message if path.startswith("/v2") else message})  # ASCII: a client's words may be
    return Response(text, fault.status, headers, "application/json")  # surrogates, which UTF-8 does not have


async def _unknown(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = getattr(error, "headers", None) or {}
    code = {404: "not_found", 405: "method"}.get(status, "http")
    messages = {404: "there is nothing here; /openapi.json lists what there is", 405: "not with this method"}
    response = answer(Fault(status, code, messages.get(status, "refused")), request.url.path)
    response.headers.update(headers)
    return response


def _document(app: FastAPI) -> None:
    """Put the JSON form of a request among the schemas, which READ refers to."""
    made = app.openapi()
    schema = ReadRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"] |= {**schema.pop("$defs"), "ReadRequest": schema}
