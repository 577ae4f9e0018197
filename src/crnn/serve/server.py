"""The application behind Uvicorn: connections with limits of their own, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crnn.errors import OptionError
from crnn.serve.settings import Settings

_HEAD_BYTES = 64 << 10  # of a request's head; browsers and proxies send a few kilobytes at most


def _refusal(status: str, code: str, message: str, *headers: str) -> bytes:
    body = f'{{"error":{{"code":"{code}","message":"{message}"}}}}'
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "connection: close", "", body]).encode()


_FULL = _refusal("503 Service Unavailable", "busy", "no connection is free; try again in a moment", "retry-after: 1")
_LONG = _refusal("431 Request Header Fields Too Large", "too_large", "the head of the request is too long")


class _Connection(HttpToolsProtocol):
    """Uvicorn's own, with limits that it lacks: on the time of a request, on the length of its head, on the time that a
    client does not take its answer, and on the number of connections, with an answer to those over it.
    """

    most: int
    """Connections at a time."""
    patience: float
    """Seconds from a request's first byte, or the connection's start, to its end; and for an answer to be taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self._requests = 0
        self._head = -1  # bytes of the head that is coming in, without its first piece; -1: none is
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            transport.write(_FULL)
            transport.close()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        if self.transport.is_closing():
            return
        requests = self._requests
        super().data_received(data)
        if self._head >= 0 and self._requests == requests:
            self._head += len(data)
            if self._head > _HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_LONG)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request starts."""
        super().on_message_begin()
        self._requests += 1
        self._head = 0
        self._wait()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._head = -1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._stop_waiting()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not take the answer as fast as it comes."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """It does again."""
        self._stop_waiting()
        super().resume_writing()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self.flow.write_paused:
            self.transport.abort()  # or what it does not take would be kept
        elif not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket on which clients are heard. Raises OptionError if there is none to be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise OptionError(f"cannot listen on {host}, port {port} ({error.strerror or error})") from None
    return bound


def make(app: Any, settings: Settings) -> uvicorn.Server:
    """Uvicorn with the application, and the settings' limits on connections."""

    class Connection(_Connection):
        most = settings.connections
        patience = 2 * settings.body_seconds + 1  # the head, the body, and a moment for the answer that it was late

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=1024,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(2 * settings.body_seconds + settings.seconds) + 2,
        )
    )


def run(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was taken in, and return.

    Raises OptionError if the service could not be started.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    # Uvicorn puts its own handlers in place, and at the end raises what it caught for those that it found.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run([bound])
    if not server.started:
        raise OptionError("the service could not be started; its log says why")
