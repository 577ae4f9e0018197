"""The service stays up, and answers whatever it took in."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serve.light import Bars, Client, everything, png, raw, serving

from crnn import images
from crnn.decoding.lexicon import Lexicon
from crnn.engines.lanes import Lanes
from crnn.serve import batching

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def head(length: int, path: str = "/v1/read", kind: str = "image/png") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


class Gate:
    """An engine that computes once it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.engine = Bars(lambda batch: self.open.wait(30))


def test_a_truncated_upload_leaves_nothing_behind() -> None:
    with serving() as client:
        for sent in (head(1000), head(1000) + b"x" * 500, head(1000)[:30]):
            raw(client.port, sent).close()
        eventually(lambda: client.metric("crnn_errors_total") == 2)
        assert client.metric("crnn_waiting_bytes") == client.metric("crnn_waiting_words") == 0
        assert client.read(png("still")).texts == ["still"]


def test_slow_clients_are_cut_off_and_hold_nobody_up() -> None:
    with serving(body_seconds=0.8) as client:
        slow = [raw(client.port, head(1000) + b"x" * 10) for _ in range(20)]
        silent = [raw(client.port, part) for part in (b"", b"POST /v1", head(10)[:-2])]
        began = time.monotonic()
        assert client.read(png("quick")).texts == ["quick"]
        assert time.monotonic() - began < 0.8
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        assert all(everything(connection) == b"" for connection in silent)
        assert client.metric("crnn_waiting_bytes") == 0


def test_a_client_that_does_not_take_its_answers_is_left() -> None:
    with serving(body_seconds=0.3) as client:
        body = json.dumps({"images": [base64.b64encode(png("x")).decode()] * 64, "posterior": True}).encode()
        request = head(len(body), kind="application/json") + body
        connection = raw(client.port)
        sender = threading.Thread(target=send_in_vain, args=(connection, request * 40))
        sender.start()
        eventually(lambda: client.metric("crnn_words_total") >= 64)
        sender.join(20)
        assert not sender.is_alive()  # it was cut off
        assert client.metric("crnn_words_total") < 40 * 64
        connection.close()


def test_requests_do_not_make_up_for_answers_that_are_not_taken() -> None:
    with serving(body_seconds=0.1) as client:
        body = json.dumps({"images": [base64.b64encode(png("x")).decode()] * 64, "posterior": True}).encode()
        request = head(len(body), kind="application/json") + body
        whole = len(client.read(body, kind="application/json").body)
        connection = raw(client.port)
        for _ in range(40):
            connection.sendall(request)
            time.sleep(0.02)
        time.sleep(2)
        taken = 0
        with connection, suppress(ConnectionError):
            while data := connection.recv(1 << 16):
                taken += len(data)
        assert taken < 35 * whole  # the system's own buffers have some


def test_a_head_and_trailers_have_an_end() -> None:
    with serving() as client:
        chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n"
        for start in (chunked, chunked + b"a: ", head(0)[:-2], head(0)[:-2] + b"a: "):
            connection = raw(client.port, start)
            with pytest.raises(ConnectionError):
                for _ in range(100):
                    connection.sendall((b"a: b\r\n" if start[-1:] == b"\n" else b"aaaaaa") * 10_000)
                    time.sleep(0.01)
            connection.close()
        assert client.read(png("still")).texts == ["still"]


def send_in_vain(connection: socket.socket, data: bytes) -> None:
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            connection.sendall(data)


def test_too_large_a_body_is_refused_before_it_is_there() -> None:
    with serving(request_bytes=10_000) as client:
        with raw(client.port, head(10_001)) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"2711\r\n" + b"x" * 10_001
        with raw(client.port, chunked) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        assert client.read(b"x" * 10_000).texts == [None]
        assert client.metric("crnn_waiting_bytes") == 0


def test_the_bytes_in_the_house_are_limited() -> None:
    with serving(request_bytes=50_000, queue_bytes=50_000) as client:
        with raw(client.port, head(50_000) + b"x" * 30_000):
            eventually(lambda: client.metric("crnn_waiting_bytes") == 30_000)
            refused = client.read(b"x" * 30_000)
            assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "1")
            assert client.read(png("small")).texts == ["small"]
        eventually(lambda: client.metric("crnn_waiting_bytes") == 0)
        assert client.read(b"x" * 30_000).status == 200


def test_connections_are_limited() -> None:
    with serving(connections=3) as client:
        held = [raw(client.port) for _ in range(2)]
        time.sleep(0.2)
        for _ in range(50):
            refused = Client(client.port).read(png("x"))
            assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "1")
        answer = everything(raw(client.port))
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer and b'"code":"busy"' in answer
        for connection in held:
            connection.close()
        eventually(lambda: everything(raw(client.port, b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200"))


def blank(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_decompression_bombs_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = blank(12_000, 10_000)
    assert len(bomb) < 20_000
    with serving(pixels=1_000_000) as client:
        began = time.process_time()
        answer = client.read_form(*[("images", "", bomb)] * 40, ("images", "", png("good")))
        assert answer.texts == [None] * 40 + ["good"]
        error = answer.json["words"][0]["error"]
        assert error["code"] == "picture_too_large" and "12000 x 10000" in error["message"]
        assert time.process_time() - began < 2  # unpacked, they would be five billion pixels


def test_huge_pictures_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    let = threading.Event()
    real = images.open_picture

    def slow(data: Any, *args: Any, **options: Any) -> Any:
        picture = real(data, *args, **options)
        if picture.width > 100:
            assert let.wait(30)
        return picture

    monkeypatch.setattr(batching, "open_picture", slow)
    huge = png("huge", scale=12)
    with serving() as client, ThreadPoolExecutor(7) as others:
        waiting = [others.submit(Client(client.port).read, huge) for _ in range(6)]
        large_file = others.submit(Client(client.port).read, png("large") + b"\0" * 100_000)
        eventually(lambda: client.metric("crnn_waiting_words") == 7)
        for word in ("these", "pass"):
            assert client.read(png(word)).texts == [word]
        assert not any(answer.done() for answer in (*waiting, large_file))
        let.set()
        assert [answer.result().texts for answer in waiting] == [["huge"]] * 6
        assert large_file.result().texts == ["large"]


def test_ten_thousand_bad_requests() -> None:
    bodies = (
        head(5) + b"PNG?!",
        head(7, kind="application/json") + b'{"ima":',
        head(4, kind="multipart/form-data; boundary=x") + b"--x\r",
        head(3, path="/v1/raed") + b"abc",
        head(2, kind="text/plain") + b"hi",
        head(2, path="/v2/models/crnn/infer") + b"[]",
    )
    each = 10_000 // (4 * len(bodies)) + 1
    last = b"GET /healthz HTTP/1.0\r\n\r\n"

    def flood(port: int) -> Counter[bytes]:
        connection = raw(port)
        sender = threading.Thread(target=connection.sendall, args=(b"".join(bodies) * each + last,))
        sender.start()
        answers = everything(connection)
        sender.join()
        return Counter(re.findall(rb"HTTP/1\.1 (\d+) ", answers))

    with serving() as client, ThreadPoolExecutor(4) as pool:
        for statuses in pool.map(flood, [client.port] * 4):
            assert statuses == {b"200": each + 1, b"400": 3 * each, b"404": each, b"415": each}
        assert client.read(png("still")).texts == ["still"]
        assert client.metric("crnn_waiting_words") == client.metric("crnn_waiting_bytes") == 0


def test_the_engine_raises_and_recovers() -> None:
    broken = False

    def maybe(batch: Any) -> None:
        if broken:
            raise RuntimeError("secret of the engine")

    with serving(Bars(maybe)) as client:
        broken = True
        for _ in range(3):
            answer = client.read(png("x"))
            assert (answer.status, answer.code) == (500, "engine") and b"secret" not in answer.body
        ready = client.get("/readyz")
        assert (ready.status, ready.code) == (503, "not_ready") and client.get("/v2/health/ready").status == 503
        assert client.get("/healthz").status == 200
        broken = False
        assert client.get("/readyz").status == 200
        assert client.read(png("again")).texts == ["again"]


def test_an_engine_that_gives_nonsense_fails_alone() -> None:
    class Nonsense(Bars):
        def run(self, batch: Any) -> Any:
            return super().run(batch) * (np.nan if self.sizes else 1)

    with serving(Nonsense()) as client:
        assert client.read(png("x")).code == "engine"
        assert client.metric("crnn_waiting_words") == 0


def test_a_fault_of_ours_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("secret")

    with serving() as client:
        monkeypatch.setattr("crnn.serve.v1.record", fails)
        monkeypatch.setattr("crnn.serve.metrics.Metrics.text", fails)
        for answer in (client.read(png("x")), client.get("/metrics")):
            assert (answer.status, answer.code) == (500, "internal") and b"secret" not in answer.body
        assert client.get("/readyz").status == 200


def test_an_engine_that_hangs_is_told() -> None:
    gate = Gate()
    with serving(gate.engine, seconds=0.3) as client:
        gate.open.clear()
        answer = client.read(png("x"))
        assert (answer.status, answer.code) == (503, "too_slow") and "retry-after" in answer.headers
        eventually(lambda: client.get("/readyz").status == 503)  # the engine was called a little after the request came
        assert "does not come back" in client.get("/readyz").json["error"]["message"]
        gate.open.set()
        eventually(lambda: client.get("/readyz").status == 200)
        assert client.read(png("back")).texts == ["back"]


def test_a_lexicon_takes_no_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any) -> Lexicon:
        time.sleep(0.5)
        return Lexicon(*args)

    monkeypatch.setattr(batching, "Lexicon", slow)
    gate = Gate()
    with serving(gate.engine, seconds=0.6) as client:
        gate.open.clear()
        threading.Timer(1.0, gate.open.set).start()
        answer = client.read_json(images=[base64.b64encode(png("x")).decode()], lexicon=["word"])
        assert (answer.status, answer.code) == (503, "too_slow")


def test_a_full_queue_refuses_and_what_was_taken_in_is_answered() -> None:
    gate = Gate()
    with serving(gate.engine, queue_words=8, images=8, max_batch=2) as client, ThreadPoolExecutor(8) as others:
        gate.open.clear()
        taken = [others.submit(Client(client.port).read, png(f"w{i}")) for i in range(8)]
        eventually(lambda: client.metric("crnn_waiting_words") == 8)
        refused = client.read(png("x"))
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "1")
        gate.open.set()
        assert [answer.result().texts for answer in taken] == [[f"w{i}"] for i in range(8)]
        assert client.read(png("x")).texts == ["x"]


def test_stopping_under_load_answers_what_was_taken_in() -> None:
    gate = Gate()
    with ThreadPoolExecutor(20) as others:
        with serving(gate.engine) as client:
            gate.open.clear()
            taken = [others.submit(Client(client.port).read, png(f"w{i}")) for i in range(20)]
            eventually(lambda: client.metric("crnn_waiting_words") == 20)
            threading.Timer(0.3, gate.open.set).start()  # when the service has begun to stop
        assert [answer.result().texts for answer in taken] == [[f"w{i}"] for i in range(20)]


def test_sigterm_ends_the_command_well() -> None:
    command = [sys.executable, "-m", "crnn", "serve", "--port", "0", "--engine", "onnxruntime", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        port = int(process.stderr.readline().partition("127.0.0.1:")[2].partition("/")[0])
        examples = {path.stem: path.read_bytes() for path in (EXAMPLES / "airport.png", EXAMPLES / "bakery.png")}
        client = Client(port)
        eventually(lambda: is_up(port))
        with ThreadPoolExecutor(8) as others:
            parts = [("images", f"{name}.png", data) for name, data in examples.items()]
            taken = [others.submit(Client(port).read_form, *parts * 4) for _ in range(8)]
            eventually(lambda: client.metric("crnn_waiting_words") > 0)
            process.send_signal(signal.SIGTERM)
            answered = 0
            for each in taken:
                try:
                    assert each.result().texts == list(examples) * 4
                    answered += 1
                except ConnectionError:  # it came too late to be taken in
                    pass
        log = process.stderr.read()
        assert process.wait(60) == 0
        assert answered == log.count("POST /v1/read 200 8 words") > 0
        assert "airport" not in log and "Traceback" not in log
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    try:
        return Client(port).get("/readyz").status == 200
    except ConnectionError:
        return False


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_stays_level() -> None:
    with serving() as client:
        parts = [("images", f"{i}.png", png(f"w{i}")) for i in range(64)]
        expected = [f"w{i}" for i in range(64)]

        def words(requests: int) -> int:
            for _ in range(requests):
                assert client.read_form(*parts).texts == expected
                client.read(b"bad")
            return resident()

        before = words(40)
        assert words(1523) - before < 8 << 20  # 100,032 words in all; their pictures and answers have some 80 MB
        assert client.metric("crnn_words_total") == 64 * (40 + 1523)


def test_crowds_share_batches_and_get_their_own_words() -> None:
    engine = Bars(lambda batch: time.sleep(0.02))
    with serving(engine) as client, ThreadPoolExecutor(16) as crowd:

        def member(number: int) -> None:
            own = Client(client.port)
            for turn in range(10):
                assert own.read(png(f"m{number}t{turn}")).texts == [f"m{number}t{turn}"]

        list(crowd.map(member, range(16)))
    assert sum(engine.sizes) == 161
    assert len(engine.sizes) < 60  # 160 words in batches of a few each


def test_one_client_alone_never_waits_for_others() -> None:
    with serving(max_wait=5) as client:
        began = time.monotonic()
        for _ in range(3):
            assert client.read(png("alone")).texts == ["alone"]
        assert time.monotonic() - began < 4


def test_who_waited_for_a_crowd_in_vain_is_the_last_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pauses.append(seconds))
    monkeypatch.setattr(batching, "time", clock)
    with serving(Lanes.of(Bars(), 2), max_wait=0.02) as client:
        assert client.read_form(*[("images", "", png("crowd"))] * 64).texts == ["crowd"] * 64
        assert client.read(png("first")).texts == ["first"] and pauses
        pauses.clear()
        for _ in range(5):
            assert client.read(png("alone")).texts == ["alone"]
        assert not pauses


TOLD_TO_STOP = """
import os, signal, sys, time
from crnn.engines import lanes

def slow(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)

lanes.Lanes = slow
sys.argv = ["crnn", "serve", "--port", "0"]
from crnn.__main__ import main
main()
"""


def test_it_can_be_stopped_while_the_engine_opens() -> None:
    """A container's first process is not ended by a signal that it does not take."""
    done = subprocess.run([sys.executable, "-c", TOLD_TO_STOP], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
