"""The process that measures: one engine, or matrix products, and nothing else in its memory.

``python -m crnn.bench.worker`` reads requests from standard input and answers on standard output, a line of JSON each.
It ends with its input. :class:`Worker` starts one and talks to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from crnn import errors
from crnn.errors import CrnnError, EngineError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Worker:
    """A process for measurements in ``threads`` threads, to be closed when done."""

    def __init__(self, threads: int) -> None:
        # Libraries that have no setting of their own (NumPy's, torch's) take the environment's.
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        command = [sys.executable, "-m", "crnn.bench.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, encoding="utf-8"
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to ``request``. What the process raises as a CrnnError is raised here; so is its end."""
        channel, answers = self._process.stdin, self._process.stdout
        assert channel is not None and answers is not None  # both are pipes
        try:
            channel.write(json.dumps(request) + "\n")
            channel.flush()
            line = answers.readline()
        except OSError:
            line = ""
        if not line:
            raise EngineError(
                f"the measuring process ended with status {self._process.wait()} while asked for {request}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # a last request that it did not take
                pipe.close()  # type: ignore[union-attr]


class _Measurements:
    """What is open in this process, and what can be asked of it."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._words: Any = None
        self._batches: dict[int, Any] = {}
        self._products: dict[tuple[str, str], Any] = {}

    def open(self, model: str | None, engine: str, precision: str | None, threads: int) -> dict[str, Any]:
        """Open an engine and prepare the words of the bundled sample for it."""
        import numpy as np

        from crnn.datasets.lmdb import LmdbReader
        from crnn.engines import open_engine
        from crnn.images import normalise, prepare

        opened = self._engine = open_engine(model, engine, threads, precision)
        sample = LmdbReader(Path(__file__).parent.parent / "samples" / "words_lmdb")
        pictures = np.stack([prepare(sample.image_bytes(i), opened.spec) for i in range(len(sample))])
        self._words = normalise(pictures, opened.spec)
        return {
            **{name: getattr(opened, name) for name in ("name", "version", "precision", "device", "threads")},
            "notes": list(opened.notes),
            "spec": opened.spec.to_json(),
        }

    def run(self, batch: int, seconds: float) -> dict[str, Any]:
        """Run batches for ``seconds``, once at least and once before that: the seconds of each call."""
        import numpy as np

        from crnn.bench.machine import peak_memory

        if batch not in self._batches:
            self._batches[batch] = self._words[np.arange(batch) % len(self._words)]
        words = self._batches[batch]
        calls: list[float] = []
        self._engine.run(words)
        end = time.perf_counter() + seconds
        while not calls or time.perf_counter() < end:
            began = time.perf_counter()
            self._engine.run(words)
            calls.append(time.perf_counter() - began)
        return {"calls": calls, "memory": peak_memory()}

    def multiply(self, library: str, precision: str, threads: int, seconds: float) -> dict[str, Any]:
        """Multiply-adds a second of a library's matrix product."""
        from crnn.bench.products import open_product, rate

        key = library, precision
        if key not in self._products:
            self._products[key] = open_product(library, precision, threads)
        return {"rate": rate(self._products[key], seconds=seconds)}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer until the requests end."""
    measurements = _Measurements()
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(measurements, request.pop("do"))(**request)
        except CrnnError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    serve(sys.stdin, answers)
