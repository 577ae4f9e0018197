"""The application behind Uvicorn: connections with limits of their own, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crnn.errors import OptionError
from crnn.serve.settings import Settings

_HEAD_BYTES = 64 << 10  # of a request's head; browsers and proxies send a few kilobytes at most

_LEAVING = 16  # connections that were refused, and may take their time to go


def _refusal(status: str, code: str, message: str, *headers: str) -> bytes:
    body = f'{{"error":{{"code":"{code}","message":"{message}"}}}}'
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "connection: close", "", body]).encode()


_FULL = _refusal("503 Service Unavailable", "busy", "no connection is free; try again in a moment", "retry-after: 1")
_LONG = _refusal("431 Request Header Fields Too Large", "too_large", "the head of the request is too long")


class _Connection(HttpToolsProtocol):
    """Uvicorn's own, with limits that it lacks: on the time of a request, on the length of its head and trailers, on
    the time that a client does not take its answer, and on the number of connections, with an answer to those over it.

    A request that asks for another protocol, as Java's client does of each server, is taken as if it did not (RFC 9110,
    7.8); httptools alone would lose its body.
    """

    most: int
    """Connections at a time."""
    patience: float
    """Seconds from a request's first byte, or the connection's start, to its end; and for an answer to be taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self._steps = 0  # that the parser made
        self._text = -1  # bytes of the head or the trailers without a step, or -1 between two requests
        self._in_head = True
        self._data = b""  # what the parser is at
        self._took_again = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._refused = len(self.connections) > self.most
        if self._refused:
            transport.write(_FULL)
            if len(self.connections) > self.most + _LEAVING:
                transport.close()
            else:  # what the client sends runs out; if nobody took it, most would lose the answer
                transport.write_eof()
                self._reading = self.loop.call_later(1, transport.close)
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._request_is_there()
        self._answer_is_taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        if self._refused or self.transport.is_closing():
            return
        steps, self._data, self._took_again = self._steps, data, False
        super().data_received(data)
        self._data = b""
        if self._is_idle() and self.timeout_keep_alive_task is None:  # Uvicorn's own was ended by some empty line
            self._await_request()
        if self._text >= 0 and self._steps == steps:
            self._text += len(data)
            if self._text > _HEAD_BYTES and not self.transport.is_closing():
                if self._in_head:
                    self.transport.write(_LONG)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request starts."""
        super().on_message_begin()
        self._step(0)
        self._in_head = True
        self._request_is_there()  # the time of this one begins, whatever came before
        self._await_request()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._step(0)
        self._in_head = False
        if not self._asks_for_another_protocol():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body is there."""
        self._step(0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._step(-1)
        self._request_is_there()
        if not self._asks_for_another_protocol():
            super().on_message_complete()

    def _is_idle(self) -> bool:
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._text < 0 and not self.transport.is_closing()

    def _step(self, text: int) -> None:
        self._steps += 1
        self._text = text

    def _asks_for_another_protocol(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Take the request again without the wish. Uvicorn calls this where the parser left off, behind the head."""
        error = sys.exception()
        offset = error.args[0] if error is not None else 0
        asked = isinstance(error, httptools.HttpParserUpgrade) and self._asks_for_another_protocol()
        if not asked or self._took_again:  # what is taken again does not ask
            self.transport.close()
            return
        self._took_again = True
        head = self.parser.get_method() + b" " + self.url + b" HTTP/1.1\r\n"
        for name, value in self.headers:
            if name not in (b"connection", b"upgrade", b"http2-settings"):
                head += name + b": " + value + b"\r\n"
        self.parser = httptools.HttpRequestParser(self)
        super().data_received(head + b"\r\n" + self._data[offset:])

    def pause_writing(self) -> None:
        """The client does not take the answer as fast as it comes."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.patience, self.transport.abort)  # or it would be kept

    def resume_writing(self) -> None:
        """It does again."""
        self._answer_is_taken()
        super().resume_writing()

    def _await_request(self) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(self.patience, self.transport.close)

    def _request_is_there(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _answer_is_taken(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


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
