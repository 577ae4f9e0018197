"""Several training processes: two real ones on this machine, and what can be said of them without any."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from crnn.errors import CrnnError, DatasetError, OptionError
from crnn.training.checkpoints import load_state
from crnn.training.config import TrainConfig
from crnn.training.data import joined
from crnn.training.processes import Processes, batch_and_accumulate, launched_alone, start
from crnn.training.progress import LOG
from crnn.training.sources import open_sources
from crnn.training.trainer import Trainer

BATCH = 4
SETTINGS: dict[str, Any] = {
    "batch": BATCH,
    "warm_up": 4,
    "precision": "no",
    "freeze": 2,
    "validate_every": 3,
    "save_every": 1000.0,
    "guide": 1.0,
}
MUON = {"optimizer": "muon"}


def options(words: Path) -> list[str]:
    given = {name.replace("_", "-"): value for name, value in SETTINGS.items()}
    settings = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return ["--train", str(words), "--synthetic", "0", "--steps", "100000", *settings]


def in_one_process(run: Path, words: Path, steps: int, accumulate: int, **more: Any) -> None:
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, workers=0, steps=steps, **SETTINGS, **more)
    stream, real, _ = open_sources(config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun sets it
    try:
        Trainer(run, replace(config, accumulate=accumulate), stream, real).train()
    finally:
        torch.set_num_threads(threads)


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]


def lines(run: Path) -> int:
    return (run / LOG).read_bytes().count(b"\n") if (run / LOG).exists() else 0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def torchrun(*arguments: str) -> subprocess.Popen[str]:
    """``torchrun --nproc-per-node 2 -m crnn train``, as typed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*launcher, "-m", "crnn", "train", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip


def child(launcher: int, rank: int) -> int:
    """The process of ``rank`` that torchrun has started."""
    for number in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            return int(number)
    raise AssertionError(f"torchrun has started no rank {rank}")


def wait(what: Callable[[], bool], *processes: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")


@linux
def test_two_processes_train_as_one_that_accumulates(words: Path, tmp_path: Path) -> None:
    """Ctrl-C in one process ends both after the same step; another number of processes goes on with the same steps."""
    two, one = tmp_path / "two", tmp_path / "one"
    process = torchrun(str(two), *options(words), "--workers", "0", "--optimizer", "muon")
    wait(lambda: lines(two) >= 6, process)
    os.kill(child(process.pid, 1), signal.SIGINT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.count("words to train on") == 1  # process 0 alone speaks
    done = load_state(two)["step"]
    assert done >= 6

    in_one_process(one, words, done, accumulate=2, **MUON)
    ours, theirs = log(one), log(two)
    assert [entry["ids"] for entry in theirs] == [[2 * BATCH * i, 2 * BATCH * (i + 1) - 1] for i in range(done)]
    assert [entry["ids"] for entry in ours] == [entry["ids"] for entry in theirs]
    assert [entry["loss"] for entry in ours] == pytest.approx([entry["loss"] for entry in theirs], rel=1e-5)
    states = load_state(one), load_state(two)
    for part in ("network", "guide"):
        for name, tensor in states[0][part].items():  # running statistics too
            assert torch.allclose(tensor, states[1][part][name], rtol=1e-4, atol=1e-6), name
    assert [state["position"] for state in states] == [2 * BATCH * done] * 2

    in_one_process(two, words, done + 3, accumulate=1, **MUON)  # 8 samples a step as before, so in two batches
    in_one_process(one, words, done + 3, accumulate=2, **MUON)
    assert [entry["ids"] for entry in log(two)] == [entry["ids"] for entry in log(one)]
    assert [entry["loss"] for entry in log(two)] == pytest.approx([entry["loss"] for entry in log(one)], rel=1e-5)


@linux
def test_sigterm_and_a_dead_process_leave_a_run_that_goes_on(words: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    in_one_process(run, words, 2, accumulate=2)  # begun by one process, gone on with by two
    process = torchrun(str(run), *options(words), "--workers", "1")
    wait(lambda: lines(run) >= 4, process)
    process.terminate()  # torchrun hands it to the groups of its processes, where those that draw words began
    process.communicate(timeout=240)
    stopped = load_state(run)["step"]
    assert stopped == lines(run) >= 4

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "crnn", "train", str(run), *options(words), "--workers", "0"]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    first, second = (
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment(**place, RANK=rank, LOCAL_RANK=rank)
        )
        for rank in "01"
    )
    wait(lambda: lines(run) >= stopped + 2, first, second)
    second.kill()
    _, said = first.communicate(timeout=240)
    second.communicate()
    assert first.returncode == 2
    assert [line for line in said.splitlines() if line.startswith("crnn: another of the 2 processes has ended")]
    assert "Traceback" not in said
    died = load_state(run)["step"]
    assert died == lines(run) >= stopped + 2

    in_one_process(run, words, died + 1, accumulate=1)
    ids = [entry["ids"] for entry in log(run)]
    assert ids == [[2 * BATCH * i, 2 * BATCH * (i + 1) - 1] for i in range(died + 1)]  # none left out, none seen twice


PARTING = """
from pathlib import Path
from crnn.training.processes import start

def threads():
    return sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))

with start().one_voice():
    import torch.distributed.nn
    joined = threads()
assert any("gloo" in name for name in joined), joined
assert not any("gloo" in name for name in threads()), threads()
"""


@linux
def test_the_network_s_threads_end_with_the_last_step(tmp_path: Path) -> None:
    """One that is left may abort its process while it exits, and torchrun would call a run that has ended failed."""
    script = tmp_path / "part.py"
    script.write_text(PARTING, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr


def test_accumulated_batches_leave_one_step_of_statistics(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running statistics are the mean of what each batch alone would have made of those before the step."""
    config = TrainConfig(train=((str(words), 1.0),), synthetic=0, workers=0, accumulate=3, **SETTINGS)
    stream, real, _ = open_sources(config)
    run = Trainer(tmp_path / "run", config, stream, real)
    supply = run._supply()
    share = [next(supply) for _ in range(3)]
    start = {name: tensor.clone() for name, tensor in run.network.named_buffers()}
    run.network.train()
    alone = []
    for batch in share:
        run._gradients([batch])
        alone.append({name: tensor.clone() for name, tensor in run.network.named_buffers()})
        run.network.load_state_dict(start, strict=False)
    gradients = {
        name: parameter.grad / 3 for name, parameter in run.network.named_parameters() if parameter.grad is not None
    }
    run.optimizer.zero_grad()
    run._gradients(share)
    for name, tensor in run.network.named_buffers():
        if tensor.dtype.is_floating_point:
            assert torch.allclose(tensor, torch.stack([state[name] for state in alone]).mean(0), rtol=1e-5), name
        else:
            assert tensor == start[name] + 1
    for name, parameter in run.network.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5), name

    def ended(*_: object) -> None:
        raise CrnnError("another process has ended")

    monkeypatch.setattr(Processes, "average", ended)
    before = {name: tensor.clone() for name, tensor in run.network.named_buffers()}
    with pytest.raises(CrnnError, match="has ended"):
        run._gradients(share)
    for name, tensor in run.network.named_buffers():  # what process 0 saves then is the state before the step
        assert torch.equal(tensor, before[name]) or not tensor.dtype.is_floating_point, name


def test_a_step_keeps_its_samples_with_any_number_of_processes() -> None:
    config = TrainConfig(train=(("a", 1.0),), batch=8, accumulate=2)
    assert batch_and_accumulate(config, 3, None) == (8, 2)
    shared = 0
    for samples in (8, 16, 48, 96, 120):
        for processes in range(1, 13):
            if samples % processes:
                with pytest.raises(OptionError, match=f"{samples} samples.*{processes} processes"):
                    batch_and_accumulate(config, processes, samples)
                continue
            batch, accumulate = batch_and_accumulate(config, processes, samples)
            assert batch * accumulate * processes == samples and 1 <= batch <= config.batch
            assert not [size for size in range(batch + 1, config.batch + 1) if samples % (size * processes) == 0]
            shared += 1
    assert shared > 30


def test_parts_cover_everything_once() -> None:
    for count in (1, 2, 3, 7):
        for number in (0, 1, 6, 100):
            parts = [Processes(rank, count).part(number) for rank in range(count)]
            assert [i for part in parts for i in part] == list(range(number))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ids_show_what_is_missing_and_what_is_there_twice() -> None:
    assert joined([(8, 11), (0, 3), (4, 7)]) == [0, 11]
    assert joined([(0, 3), (8, 11)]) == [0, 3, 8, 11]
    assert joined([(0, 3), (0, 3)]) == [0, 3, 0, 3]


def test_the_first_to_fail_speaks_for_all(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 2)  # type: ignore[attr-defined]
    with pytest.raises(DatasetError, match=r"process 1 of 2 on .*: no such data"), Processes(1, 2, store).one_voice():
        raise DatasetError("no such data")
    with pytest.raises(SystemExit) as end, Processes(0, 2, store).one_voice():
        raise CrnnError("another process has ended")
    assert end.value.code == 2
    with pytest.raises(DatasetError, match=r"^no such data"), Processes().one_voice():
        raise DatasetError("no such data")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE says 2 processes, but RANK, MASTER_ADDR, MASTER_PORT is missing.*torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE in the environment is 'two'"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun has started 4 processes.*torchrun"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "srun has started 2 processes.*torchrun"),
    ],
)
def test_launchers_that_leave_processes_alone(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.cache_clear()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=message):
        start()


def test_accelerate_that_starts_one_process_of_several_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_alone() == ""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launched_alone() == ""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert "torchrun --nproc-per-node" in launched_alone()
    monkeypatch.setenv("RANK", "0")
    assert launched_alone() == ""
