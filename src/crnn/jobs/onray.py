"""The same job on Ray: Ray Data gives the parts to a pool of workers, each with one Reader, which write the shards.

Only the numbers of parts, and what they came to, go through Ray: workers fetch pictures from the storage themselves, as
they need them, so nothing piles up in Ray's object store. A worker that dies is started again, and reads the part that
it had; a part whose shard is there by then is not read again.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crnn.datasets.tar import why
from crnn.errors import CrnnError, EngineError, OptionError
from crnn.jobs import manifest
from crnn.jobs.reading import Plan, read_parts
from crnn.jobs.shards import Done, whole
from crnn.reader import Reader

_BLOCKS = 10_000  # into which Ray Data divides the parts at most; each costs its scheduler some work

_TRIES = 5  # to read a part; Ray itself would for ever start workers that a picture kills

_CHOOSE_PRECISION = frozenset(("onnxruntime", "openvino"))
"""Engines that by themselves compute in what the processor is fastest in; the others have one way, or the model's."""

_STORE = 128 << 20  # bytes of the object store of a Ray of our own


class OnRay:
    """Reads on Ray; a context manager, which connects and disconnects.

    Args:
        address: of a cluster, by default ``$RAY_ADDRESS``; without any, a Ray on this machine is started, and ended.
        workers: how many; as many as the cluster has room for by default. With more, it works with what there is room
            for, until the cluster grows.
        cpus: processors of each worker.
        npus: Ascend NPUs of each worker. Ray counts them itself as the resource ``NPU`` and shows each worker its own.

    A Ray that this process is connected to already is used as it is. Raises OptionError if ray is not installed, cannot
    be reached, or has no room for one worker.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, cpus: float = 1, npus: float = 0
    ) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._workers, self._own = workers, False
        self._needs: dict[str, Any] = {"num_cpus": cpus, "resources": {"NPU": npus} if npus else {}}
        self._reader: dict[str, Any] = {}
        self._sha256 = ""
        self._pool = 1, 1  # workers, at least and at most

    def __enter__(self) -> Self:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise OptionError(f"--on ray needs {error.name or 'ray'}: pip install 'crnn[jobs,ray]'") from None
        if not ray.is_initialized():
            self._own = True
            of_own: dict[str, Any] = {}
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it warns us of what Ray Data itself does
            if self._address is None:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for a report to Ray's makers
                of_own = {"include_dashboard": False, "object_store_memory": _STORE}
            try:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, **of_own)
            except Exception as error:  # ConnectionError, ValueError, RuntimeError and others
                what = "Ray does not start" if self._address is None else f"--address {self._address}: no Ray there"
                raise OptionError(f"{what} ({why(error)})") from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._own:
            import ray

            ray.shutdown()

    def read_by(self, reader: Mapping[str, Any]) -> dict[str, Any]:
        """What will read: a worker opens a Reader, for this machine need not have what it takes.

        Engine and precision that it has chosen are those of all workers; on a machine that cannot, the job stops.
        """
        import ray

        room = self._room()
        if not room:
            needs = f"{self._needs['num_cpus']:g} processors"
            needs += "".join(f" and {count:g} {name}" for name, count in self._needs["resources"].items())
            raise OptionError(f"no machine of the Ray cluster has room for a worker ({needs})")
        self._pool = min(room, self._workers or room), self._workers or room
        model = reader.get("model")
        self._reader = {**reader, "model": None if model is None else Path(model).absolute()}
        task = ray.remote(max_calls=1, **self._needs)(_answer)
        found, failure = self._result(lambda: ray.get(task.remote(self._reader)))
        if failure:
            raise EngineError(failure)
        self._sha256 = _weights(found)
        if isinstance(reader.get("engine", "auto"), str):  # what it has chosen for itself, all workers are to read with
            self._reader["engine"] = found["engine"]["name"]
            if found["engine"]["name"] in _CHOOSE_PRECISION:
                self._reader["precision"] = found["engine"]["precision"]
        return dict(found)

    def read(self, plan: Plan, parts: list[int], tick: Callable[[int, int], None]) -> Generator[Done, None, None]:
        """Read parts, in any order. Raises EngineError with what a worker says that cannot go on."""
        import ray

        if not plan.output.shared or not plan.base.shared:
            raise OptionError("--on ray needs an input and an output that all workers see; memory:// is of one process")
        if not parts:
            return
        least, most = (min(size, len(parts)) for size in self._pool)
        run = secrets.token_hex(4)
        told = {"plan": plan, "reader": self._reader, "sha256": self._sha256, "run": run, "tries": _TRIES}
        rows = ray.data.from_items(parts, override_num_blocks=min(len(parts), _BLOCKS)).map_batches(
            _Worker,
            batch_size=1,
            fn_constructor_kwargs=told,
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
            **self._needs,
        )
        batches = iter(rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        while (batch := self._result(lambda: next(batches, None))) is not None:
            for row in batch.to_pylist():
                if row["failure"]:
                    raise EngineError(row["failure"])
                done = Done(row["part"], row["words"], row["errors"])
                yield done
                tick(done.words, done.errors)

    def _room(self) -> int:
        """How many workers the machines of the cluster have room for."""
        import ray

        needs = {"CPU": self._needs["num_cpus"], **self._needs["resources"]}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return sum(min(int(node.get(name, 0) // count) for name, count in needs.items()) for node in nodes)

    def _result(self, ask: Callable[[], Any]) -> Any:
        from ray.exceptions import RayError

        try:
            return ask()
        except RayError as error:
            cause = getattr(error, "cause", None)  # what a worker raised; the message begins with where it was
            what = why(error) if cause is None else f"{type(cause).__name__}: {why(cause)}"
            raise EngineError(f"the job on Ray has failed ({what}); the same command goes on") from None


def _answer(reader: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(what reads, nothing), or (nothing, why it cannot)."""
    try:
        return manifest.read_by(Reader(**reader)), ""
    except CrnnError as error:
        return {}, f"{socket.gethostname()}: {error}"


def _weights(read_by: dict[str, Any]) -> str:
    """What the weights are: the model's checksum and, of int8, that of its ranges."""
    return f"{read_by['model']['sha256']} {read_by['engine'].get('ranges', '')}"


class _Worker:
    """One Reader in a process of its own. Errors are told in rows: as exceptions, Ray would wrap and log them."""

    def __init__(self, plan: Plan, reader: dict[str, Any], sha256: str, run: str, tries: int) -> None:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self._plan, self._failure, self._run, self._tries = plan, "", run, tries
        try:
            self._reader = Reader(**reader)
            found = manifest.read_by(self._reader)
            if _weights(found) != sha256:
                what = f"{found['model']['path']} is not the job's model, or has other ranges for int8"
                self._failure = f"{socket.gethostname()}: {what}; copy it there"
        except CrnnError as error:
            self._failure = f"{socket.gethostname()}: {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        part = int(batch["item"][0])
        failure, done = self._failure, Done(part, 0, 0)
        try:
            if not failure:
                done = self._read(part)
        except CrnnError as error:
            failure = f"{socket.gethostname()}: {error}"
        return {"part": [part], "words": [done.words], "errors": [done.errors], "failure": [failure]}

    def _read(self, part: int) -> Done:
        there = whole(self._plan.output, part, self._plan.job)
        if there is not None:  # by a worker that died before it could say so
            return there
        begun = self._plan.output / f".part-{part:06d}.{self._run}.tmp"  # a byte each time; _tidy takes what is left
        try:
            before = begun.read()
        except FileNotFoundError:
            before = b""
        if len(before) >= self._tries:
            first = self._plan.base / self._plan.listing().part(part)[0].name
            what = f"reading it has ended its worker {len(before)} times; crnn read shows whether a picture does that"
            raise EngineError(f"part {part}, which begins with {first}: {what}")
        begun.fs.pipe_file(begun.path, before + b".")
        done = next(read_parts(self._plan, self._reader, [part]))
        begun.fs.rm_file(begun.path)
        return done
