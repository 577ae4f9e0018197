"""A request's body, within its limits."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from crnn.serve.faults import Fault, busy
from crnn.serve.metrics import Metrics
from crnn.serve.settings import Settings


class Bodies:
    """The bodies of all requests that are not answered yet, as few bytes as the settings allow."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._bytes = 0

    async def receive(self, request: Request) -> bytes:
        """The whole body. What it takes is counted until :meth:`release`.

        Raises Fault: larger than it may be, slower than it may be, cut off, or too much for now.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Fault(415, "encoding", "compressed bodies are not taken; send it without Content-Encoding")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._settings.request_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise Fault(400, "cut_off", "the connection was closed before the whole body was there")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._settings.request_bytes:
                        raise self._too_large()
                    if self._bytes + len(chunk) > self._settings.queue_bytes:
                        raise busy("the bodies of other requests take all the room there is")
                    chunks.append(chunk)
                    self._count(len(chunk))
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except BaseException as error:
            self._count(-sum(map(len, chunks)))
            if isinstance(error, TimeoutError):
                what = f"the body took longer than {self._settings.body_seconds:g} seconds"
                raise Fault(408, "slow_body", what) from None
            raise

    def release(self, body: bytes) -> None:
        """To be called once the request is done with."""
        self._count(-len(body))

    def _count(self, size: int) -> None:
        self._bytes += size
        self._metrics.waiting_bytes.set(self._bytes)

    def _too_large(self) -> Fault:
        limit = self._settings.request_bytes
        return Fault(413, "too_large", f"a request may have {limit:,} bytes; send fewer pictures, or smaller ones")
