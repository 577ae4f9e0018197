"""Several training processes as one: their ranks, what they exchange at each step, and one voice for their errors.

``torchrun`` starts the processes and says in the environment which is which (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT). Tensors on a device travel through its own library (NCCL, HCCL), everything else through gloo.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils import is_npu_available
from torch import Tensor

from crnn.errors import CrnnError, OptionError
from crnn.training.config import TrainConfig

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

# How long a process waits for one that is late, say with a slow disk. One that has ended is noticed at once.
WAIT = timedelta(minutes=30)

_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}

# What other launchers than torchrun say about the number of processes they have started.
_LAUNCHERS = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec", "SLURM_STEP_NUM_TASKS": "srun"}


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from process ``rank`` of ``count``. Every method is called by all of them, or none.

    Process 0 alone writes files and speaks. Each method raises CrnnError where another process has ended.
    """

    rank: int = 0
    count: int = 1
    store: Store | None = None

    @property
    def main(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def part(self, number: int) -> range:
        """This process's part of ``number`` things; the parts follow one another in the order of ranks."""
        return range(number * self.rank // self.count, number * (self.rank + 1) // self.count)

    def gathered(self, mine: list[T]) -> list[T]:
        """What each process gives, joined in the order of ranks."""
        if self.count == 1:
            return mine
        parts: list[Any] = [None] * self.count
        with self._others():
            dist.all_gather_object(parts, mine)
        return [each for part in parts for each in part]

    def from_main(self, work: Callable[[], T]) -> T:
        """The result of ``work``, which process 0 alone does. Tensors in it are in the processor's memory."""
        if self.count == 1:
            return work()
        box: list[Any] = [work() if self.main else None]
        with self._others():
            dist.broadcast_object_list(box, src=0)
        result: T = box[0]
        return result

    def rows(self, numbers: list[int]) -> list[list[int]]:
        """The ``numbers`` of every process, as many each, in the order of ranks."""
        if self.count == 1:
            return [numbers]
        mine = torch.tensor(numbers, dtype=torch.int64)
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        with self._others():
            dist.all_gather(rows, mine)
        return [row.tolist() for row in rows]

    def average(self, tensors: list[Tensor]) -> None:
        """Replaces each tensor (one type, one device, any shape) by its mean over all processes."""
        if self.count == 1 or not tensors:
            return
        # One message for all: the network has many small tensors, and each message costs the way there and back.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._others():
            dist.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def check_same(self, config: TrainConfig) -> None:
        """Raises OptionError if this process was started with other options than process 0; workers may differ."""
        mine, first = asdict(config), self.from_main(lambda: asdict(config))
        different = [name for name in mine if name != "workers" and mine[name] != first[name]]
        if different:
            names = ", ".join("--" + name.replace("_", "-") for name in different)
            raise OptionError(f"it was started with another {names} than process 0: give all the same command")

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Makes the errors of several processes one: the first that fails raises it, the others exit with status 2.

        At the end of the block the processes part.
        """
        try:
            yield
        except CrnnError as error:
            if self.count > 1 and not self._first_to_fail():
                raise SystemExit(2) from None
            if not self.main:
                place = f"process {self.rank} of {self.count} on {socket.gethostname()}"
                raise type(error)(f"{place}: {error}") from error
            raise
        if self.count > 1:
            dist.destroy_process_group()

    def _first_to_fail(self) -> bool:
        assert self.store is not None
        try:
            return bool(self.store.add("crnn/failed", 1) == 1)
        except RuntimeError:  # the store has gone with the process that kept it
            return True

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise CrnnError(
                f"another of the {self.count} processes has ended or cannot be reached, so all end; "
                "the same command goes on from the last saved state (--debug shows what the network said)"
            ) from error


@cache
def start() -> Processes:
    """Joins the processes that ``torchrun`` started beside this one; a process started without it is alone.

    Calling it again changes nothing. Raises OptionError where another launcher has started several processes without
    telling them of each other, where they cannot find each other, and where one of them has no device.
    """
    count = _number("WORLD_SIZE")
    if count == 1:
        _check_launcher()
        return Processes()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise OptionError(
            f"WORLD_SIZE says {count} processes, but {', '.join(missing)} is missing from the environment: "
            "start them with torchrun, or unset WORLD_SIZE to train in one"
        )
    # Its functions take the group there is at their import for their default. Imported later, as happens within a run,
    # they would keep the group and its threads past its end, and such a thread may abort a process that exits.
    import torch.distributed.nn  # noqa: F401
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    device = device_type()
    if device != "cpu":
        _take_device(device)
    try:
        store, rank, _ = next(rendezvous("env://", timeout=WAIT))
        store = PrefixStore("crnn", store)
        dist.init_process_group(_BACKENDS[device], store=store, rank=rank, world_size=count, timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        why = str(error).splitlines()[0]
        raise OptionError(f"the {count} processes cannot find each other through {place}: {why}") from error
    return Processes(rank, count, store)


def launched_alone() -> str:
    """What to tell a user whose launcher was asked for several processes and has started one; else nothing.

    ``accelerate launch --cpu --num_processes 2`` does so in silence: it sets MASTER_ADDR, as for two, and no RANK.
    """
    asked = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    if not asked or "RANK" in os.environ:
        return ""
    return (
        "accelerate launch was asked for several processes and has started this one alone, as it does with --cpu: "
        "this run trains in one process; for several: torchrun --nproc-per-node N -m crnn train ..."
    )


def device_type() -> str:
    """Where several processes compute: ``cuda``, ``npu``, or ``cpu``."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    if is_npu_available():
        return "npu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def batch_and_accumulate(config: TrainConfig, processes: int, samples: int | None) -> tuple[int, int]:
    """(samples a batch, batches a step) of each of ``processes`` processes.

    ``samples`` is what a step of the run has taken so far, all processes together, or None for a new run: it stays so
    with another number of processes, as learning rate and sample stream belong to it. Batches keep their size or take
    the next smaller one that fits. Raises OptionError where the processes cannot share the samples equally.
    """
    if samples is None:
        return config.batch, config.accumulate
    share, rest = divmod(samples, processes)
    if rest:
        raise OptionError(
            f"a step of this run takes {samples} samples, which {processes} processes cannot share equally: "
            "take another number of processes"
        )
    batch = next(size for size in range(min(config.batch, share), 0, -1) if share % size == 0)
    return batch, share // batch


def _number(name: str) -> int:
    value = os.environ.get(name) or "1"
    try:
        return int(value)
    except ValueError:
        raise OptionError(f"{name} in the environment is {value!r}, which is no number") from None


def _check_launcher() -> None:
    if "RANK" in os.environ:
        return
    for name, launcher in _LAUNCHERS.items():
        if _number(name) > 1:
            raise OptionError(
                f"{launcher} has started {_number(name)} processes, each of which would train alone into one folder: "
                "let it start torchrun once a machine (docs/distributed.md)"
            )


def _take_device(kind: str) -> None:
    place, devices = int(os.environ.get("LOCAL_RANK", "0")), getattr(torch, kind)
    if place >= devices.device_count():
        raise OptionError(
            f"process {place} of this machine has no {kind} device of its own: torchrun --nproc-per-node "
            f"{devices.device_count()}"
        )
    devices.set_device(place)
