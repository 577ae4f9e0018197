"""A service for tests: an engine that reads bar codes in no time, and a client without a library's manners."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crnn.serve.app import create_app
from crnn.serve.server import listen, make
from crnn.serve.settings import Settings
from crnn.spec import DELIVERABLE, ModelSpec

STEP = 7  # gray levels from one class to the next
COLUMNS = np.array([*range(0, 100, 4), 99])  # where time step t looks


class Bars:
    """The gray of a picture's columns is the class, black the blank. ``before`` is called with each batch."""

    name, version, precision, device, threads = "bars", "1", "float32", "CPU", 1
    path = Path("bars")
    notes: tuple[str, ...] = ()

    def __init__(self, before: Callable[[NDArray[np.float32]], object] = lambda batch: None) -> None:
        self.spec = ModelSpec(resampling="box")  # so that a larger picture is read as well
        self.before = before
        self.sizes: list[int] = []

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.before(batch)
        self.sizes.append(len(batch))
        classes = np.clip(np.rint((batch[:, 0, 16, COLUMNS] * 0.5 + 0.5) * 255 / STEP).astype(int), 0, 36)
        logp = np.full((26, len(batch), 37), np.log(0.05 / 36), np.float32)
        words, steps = np.indices(classes.shape)
        logp[steps, words, classes] = np.log(0.95)
        return logp


def bars(text: str, scale: int = 1) -> NDArray[np.uint8]:
    """A picture of 100 x 32, or so many times larger, that says ``text`` to the engine above."""
    picture = np.zeros((32, 100), np.uint8)
    for i, index in enumerate(DELIVERABLE.charset.encode(text)):
        picture[:, 8 * i : 8 * i + 4] = index * STEP
    return picture.repeat(scale, 0).repeat(scale, 1)


def png(text: str, scale: int = 1) -> bytes:
    file = io.BytesIO()
    Image.fromarray(bars(text, scale)).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def texts(self) -> list[str | None]:
        assert self.status == 200, self.body
        return [word["text"] for word in self.json["words"]]

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert error["message"] and "\n" not in error["message"]
        code: str = error["code"]
        return code


class Client:
    """One connection, which stays open; for one thread."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, named)
        response = self._connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, **headers)

    def read(self, picture: bytes, query: str = "", kind: str = "image/png") -> Answer:
        return self.send("POST", f"/v1/read{query}", picture, Content_Type=kind)

    def read_json(self, **values: Any) -> Answer:
        return self.read(json.dumps(values).encode(), kind="application/json")

    def read_form(self, *parts: tuple[str, str | None, bytes]) -> Answer:
        """Parts are (field, file name, content)."""
        body = b""
        for name, file, content in parts:
            named = "" if file is None else f'; filename="{file}"'
            body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
            body += content + b"\r\n"
        return self.read(body + b"--edge--\r\n", kind="multipart/form-data; boundary=edge")

    def metric(self, name: str) -> float:
        """The sum of a figure over its labels."""
        lines = [line.split() for line in self.get("/metrics").body.decode().splitlines() if line.startswith(name)]
        return sum(float(value) for label, value in lines if label.partition("{")[0] == name)


@contextmanager
def serving(engine: Any = None, **settings: Any) -> Iterator[Client]:
    """The service in a thread, with these limits; at the end it is stopped and must stop."""
    chosen = Settings(**settings)
    bound = listen("127.0.0.1", 0)
    server = make(create_app(chosen, engine or Bars()), chosen)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    client = Client(bound.getsockname()[1])
    try:
        bound.listen()  # so that connecting waits for the server instead of failing
        assert client.get("/readyz").status == 200
        yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def raw(port: int, *pieces: bytes) -> socket.socket:
    """A connection on which these bytes were sent."""
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    for piece in pieces:
        made.sendall(piece)
    return made


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))
