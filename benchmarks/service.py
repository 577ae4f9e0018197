"""The service under load: 64 clients with one word each, beside the engine's own batches, in turn in one run.

``python benchmarks/service.py [--engine NAME] [--precision P] [--threads N]``, which needs wrk (https://github.com/wg/wrk,
Debian's package ``wrk``); ``--memory`` sends 100,000 words instead, and watches the memory of the service.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any

import numpy as np
from common import Report, default_data, parser, words

from crnn.engines import resolve
from crnn.engines.lanes import Lane, Lanes
from crnn.engines.processors import usable_processors
from crnn.images import normalise, prepare

BATCH = 64
FORM = 32  # words of one request, for --memory
SAMPLES = 10

SCRIPT = """
local pictures = {}
for line in io.lines(os.getenv("PICTURES")) do
  local file = io.open(line, "rb")
  pictures[#pictures + 1] = wrk.format("POST", "/v1/read", {["Content-Type"] = "image/*"}, file:read("*a"))
  file:close()
end
local sent = 0
request = function()
  sent = sent + 1
  return pictures[sent % #pictures + 1]
end
done = function(summary, latency, requests)
  local errors = 0
  for _, count in pairs(summary.errors) do errors = errors + count end
  io.write(string.format("RESULT %d %d %d %d %d\\n",
    summary.requests, summary.duration, errors, latency:percentile(50), latency:percentile(99)))
end
"""


def main() -> None:
    """Prints the service's share of the engine's words/s, and its latencies; or how its memory grows."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=default_data())
    options.add_argument("--engine", default="auto")
    options.add_argument("--precision")
    options.add_argument("--threads", type=int, default=usable_processors(), help="that the network may use")
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--pictures", type=int, default=500, help="different ones that are sent")
    options.add_argument("--seconds", type=float, default=15.0, help="of each turn")
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--memory", type=int, nargs="?", const=100_000, metavar="WORDS", help="watch the memory")
    chosen = options.parse_args()
    files, _ = words(chosen.data, chosen.pictures)
    command = ["--engine", chosen.engine, "--threads", str(chosen.threads)]
    command += ["--precision", chosen.precision] if chosen.precision else []
    with service(command) as (process, port):
        report = Report("service", chosen.json, [process.pid])
        if chosen.memory:
            figures: dict[str, Any] = {"memory": memory(port, process.pid, files, chosen.memory)}
            engine = described(port)
        else:
            path, name, _ = resolve(None, chosen.engine)
            lanes = Lanes(path, name, chosen.threads, chosen.precision)
            engine = described(port)
            figures = load(lanes, port, files, chosen.clients, chosen.seconds, chosen.turns)
        report.write({"engine": engine, "data": chosen.data.name, "clients": chosen.clients, **figures})


@contextmanager
def service(options: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``crnn serve`` as a process of its own, with its port."""
    command = [sys.executable, "-m", "crnn", "serve", "--port", "0", "--no-log", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = ""
        while "http://" not in line:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the service did not start: {' '.join(command)}")
        print(line.strip().removeprefix("crnn: "))
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        end = time.monotonic() + 60
        while not is_up(port):
            if time.monotonic() > end:
                raise SystemExit("the service does not answer")
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


def is_up(port: int) -> bool:
    """Whether the service reads words."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def described(port: int) -> dict[str, Any]:
    """What the service says of its engine."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/model")
    said: dict[str, Any] = json.loads(connection.getresponse().read())["engine"]
    connection.close()
    return said


def load(lanes: Lanes, port: int, files: list[bytes], clients: int, seconds: float, turns: int) -> dict[str, Any]:
    """Words/s of the engine alone and of the service, in turn, and the service's latencies.

    The engine's words/s are those of one call at a time in all threads, or of several beside each other, whichever are
    more over all turns (taking the better of each turn would add its noise to them); a batch's time is that of one call
    in all threads.
    """
    if which("wrk") is None:
        raise SystemExit("this needs wrk: apt-get install wrk")
    spec = lanes.single.engine.spec
    pixels = np.stack([prepare(data, spec) for data in (files * (BATCH // len(files) + 1))[:BATCH]])
    batch = normalise(pixels, spec)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        wrk = prepared(Path(folder), files)
        for turn in range(turns + 1):
            length = seconds if turn else min(seconds, 1.0)  # the first is to warm up
            one_call, batch_seconds = alone(lanes.single, batch, length)
            beside = alone(lanes.stream(), batch, length)[0] if lanes.stream() is not lanes.single else one_call
            served = crowd(wrk, port, clients, length)
            if turn:
                rows.append({"one_call": one_call, "beside": beside, "batch_seconds": batch_seconds, **served})
    better = max(("one_call", "beside"), key=lambda way: median(row[way] for row in rows))
    for row in rows:
        row["network"] = row[better]
    shares = [row["words_per_second"] / row["network"] for row in rows]
    delays = [row["p99"] / row["batch_seconds"] for row in rows]
    middle = {key: median(row[key] for row in rows) for key in rows[0]}
    print(
        f"{clients} clients: {middle['words_per_second']:.0f} words/s, {median(shares):.0%} of the engine's own "
        f"{middle['network']:.0f} in batches of {BATCH} ({min(shares):.0%}-{max(shares):.0%})"
    )
    print(
        f"p50 {1000 * middle['p50']:.0f} ms, p99 {1000 * middle['p99']:.0f} ms: {median(delays):.1f} times a batch's "
        f"{1000 * middle['batch_seconds']:.0f} ms (below 5); {sum(row['errors'] for row in rows)} errors"
    )
    return {**middle, "share": median(shares), "p99_batches": median(delays), "turns": rows}


def alone(lane: Lane, batch: np.ndarray[Any, Any], seconds: float) -> tuple[float, float]:
    """(words/s, seconds of a batch) of the engine, with as many calls at once as the lane has."""
    began = time.perf_counter()

    def run(_: int) -> int:
        done = 0
        while time.perf_counter() < began + seconds or not done:
            lane.run(batch)
            done += 1
        return done

    with ThreadPoolExecutor(lane.calls) as pool:
        batches = sum(pool.map(run, range(lane.calls)))
    taken = time.perf_counter() - began
    return batches * len(batch) / taken, taken * lane.calls / batches


def prepared(folder: Path, files: list[bytes]) -> Path:
    """The folder with wrk's script and its pictures."""
    for number, data in enumerate(files):
        (folder / f"{number}").write_bytes(data)
    (folder / "pictures.txt").write_text("".join(f"{folder / str(number)}\n" for number in range(len(files))))
    (folder / "words.lua").write_text(SCRIPT)
    return folder


def crowd(folder: Path, port: int, clients: int, seconds: float) -> dict[str, float]:
    """Words/s and latencies in seconds of clients who send a word each and wait for it, over and over.

    Words that are being read when the time is up are not counted, a batch or so: the longer, the nearer to the truth.
    """
    command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command += ["-s", str(folder / "words.lua"), f"http://127.0.0.1:{port}"]
    environment = {**os.environ, "PICTURES": str(folder / "pictures.txt")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    result = next((line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    requests, microseconds, errors, p50, p99 = map(int, result)
    speed = 1e6 * (requests - errors) / microseconds
    return {"words_per_second": speed, "p50": p50 / 1e6, "p99": p99 / 1e6, "errors": errors}


def memory(port: int, pid: int, files: list[bytes], count: int) -> list[dict[str, int]]:
    """The service's memory in bytes, after more and more words, sent by two clients at once."""
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(2)]

    def send(connection: http.client.HTTPConnection, requests: int) -> None:
        for number in range(requests):
            parts = [files[(number * FORM + i) % len(files)] for i in range(FORM)]
            head = b'--edge\r\nContent-Disposition: form-data; name="images"; filename=""\r\n\r\n'
            body = b"".join(head + part + b"\r\n" for part in parts) + b"--edge--\r\n"
            connection.request("POST", "/v1/read", body, {"Content-Type": "multipart/form-data; boundary=edge"})
            answer = connection.getresponse()
            read = json.loads(answer.read())
            if answer.status != 200 or any(word["error"] for word in read["words"]):
                raise SystemExit(f"the service answered {answer.status}")

    each = max(1, count // (SAMPLES * FORM * len(connections)))
    rows = []
    with ThreadPoolExecutor(len(connections)) as pool:
        for sample in range(1, SAMPLES + 1):
            list(pool.map(send, connections, [each] * len(connections)))
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            rows.append({"words": sample * each * FORM * len(connections), "bytes": pages * os.sysconf("SC_PAGE_SIZE")})
            print(f"{rows[-1]['words']:,} words: {rows[-1]['bytes'] / 2**20:.0f} MiB", flush=True)
    growth = (rows[-1]["bytes"] - rows[0]["bytes"]) / 2**20
    print(f"{growth:+.1f} MiB from the first {rows[0]['words']:,} words to the last")
    return rows


if __name__ == "__main__":
    main()
