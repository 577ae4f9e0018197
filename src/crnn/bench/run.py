"""Measures every choice in turn, several rounds of it, so that what the machine does besides falls on all alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from crnn import __version__
from crnn.bench.cost import multiply_adds
from crnn.bench.machine import Others, describe
from crnn.bench.products import LIBRARIES, SIZE
from crnn.bench.worker import Worker
from crnn.engines import FASTEST_FIRST, NAMES, bundled_model, choose
from crnn.engines.processors import usable_processors
from crnn.errors import CrnnError, EngineError, ModelError, OptionError
from crnn.spec import ModelSpec

SCHEMA = "crnn.bench/1"
PRECISIONS = ("float32", "bfloat16", "int8")
BATCH_SIZES = (1, 8, 64)

Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many measurements are done, and how many there are."""


@dataclass(frozen=True)
class Choice:
    """What a process is started for. ``precision`` None leaves it to the engine."""

    engine: str
    precision: str | None
    threads: int

    def __str__(self) -> str:
        return f"{self.engine} {self.precision or ''} {self.threads} thread{'s' * (self.threads != 1)}".replace(
            "  ", " "
        )


@dataclass
class _Measured:
    """An opened engine and, by batch size, the seconds of each round's calls and the peak memory."""

    choice: Choice
    worker: Worker
    facts: dict[str, Any]
    rounds: defaultdict[int, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[int, int | None] = field(default_factory=dict)


def bench(
    model: str | Path | None = None,
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: Sequence[int] = (),
    *,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure how fast ``model`` (default: the bundled weights) runs on words of the bundled sample.

    Each engine, precision and number of threads has a process of its own. Every round gives each of them ``seconds``
    for every batch size, and as long to the matrix products. Without ``engines`` those installed are measured, without
    ``precisions`` all that they compute in, without ``threads`` all processors that this process may use. Reports,
    ready for JSON::

        {schema, crnn, machine, model, multiply_adds, product_size, seconds, rounds, others,
         products: [{library, precision, threads, rate}],
         results: [{engine, version, precision, device, threads, batch_size, words_per_second, spread: [lo, hi],
                    p50, p99, calls, memory, share}],
         left_out: [{engine, precision, threads, reason}]}

    ``words_per_second`` is the median of the rounds, ``spread`` the slowest and the fastest. ``p50`` and ``p99`` are
    seconds from a call to its answer (nearest rank: of fewer than 100 ``calls``, ``p99`` is the slowest). ``memory`` is
    the most bytes its process held up to this batch size, Python and libraries included. ``share`` is that of the
    fastest matrix product in the same precision and number of threads, counting ``multiply_adds`` a word, or None where
    there is no such product. ``rate`` is in multiply-adds a second. ``others`` is the fraction of the processors' time
    that other processes took meanwhile; an idle machine has less than 0.05.

    Raises OptionError for an engine or a precision that was asked for and cannot be had in any combination, with the
    reason, and if there is nothing to measure.
    """
    for name, values in (("batch sizes", batch_sizes), ("threads", threads), ("rounds", [rounds])):
        if any(value < 1 for value in values):
            raise OptionError(f"{name} must be at least 1")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise OptionError(f"seconds must be a finite number above 0, not {seconds}")
    path = bundled_model() if model is None else Path(model)
    if not path.exists():
        raise ModelError(f"{path}: no such model")
    sizes = sorted(set(batch_sizes))
    left_out: list[dict[str, Any]] = []
    with ExitStack() as stack:
        opened = _open(path, engines, precisions, threads or (usable_processors(),), left_out, stack, progress)
        references = _references(opened, stack)
        others = Others([one.worker.pid for one in opened] + [worker.pid for worker in set(references.values())])
        rates: dict[tuple[str, str, int], float] = dict.fromkeys(references, 0.0)
        done, total = 0, rounds * (len(opened) * len(sizes) + len(references))
        for _ in range(rounds):
            for (library, precision, count), worker in references.items():
                progress(f"matrix product: {library} {precision}", done, total)
                request = {"library": library, "precision": precision, "threads": count, "seconds": seconds}
                rate = worker.ask(do="multiply", **request)["rate"]
                rates[library, precision, count] = max(rate, rates[library, precision, count])
                done += 1
            for one in opened:
                for size in sizes:
                    progress(f"{one.choice}, batch {size}", done, total)
                    answer = one.worker.ask(do="run", batch=size, seconds=seconds)
                    one.rounds[size].append(answer["calls"])
                    one.memory.setdefault(size, answer["memory"])
                    done += 1
        progress("done", done, total)
        taken = others.share()
    spec = ModelSpec.from_json(opened[0].facts["spec"])
    return {
        "schema": SCHEMA,
        "crnn": __version__,
        "machine": describe(),
        "model": path.name,
        "multiply_adds": multiply_adds(spec),
        "product_size": SIZE,
        "seconds": seconds,
        "rounds": rounds,
        "others": taken,
        "products": [
            {"library": library, "precision": precision, "threads": count, "rate": rate}
            for (library, precision, count), rate in rates.items()
        ],
        "results": [_result(one, size, rates, multiply_adds(spec)) for one in opened for size in sizes],
        "left_out": left_out,
    }


def _open(
    path: Path,
    engines: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    left_out: list[dict[str, Any]],
    stack: ExitStack,
    progress: Progress,
) -> list[_Measured]:
    """Open each engine in each precision and number of threads; what cannot be had goes to ``left_out``."""
    for name in engines:
        if name not in NAMES:
            raise EngineError(f"unknown engine {name!r}; choose one of: {', '.join(NAMES)}")
    for name in precisions:
        if name not in PRECISIONS:
            raise OptionError(f"unknown precision {name!r}; choose one of: {', '.join(PRECISIONS)}")
    names = list(dict.fromkeys(engines)) or _suitable(path)
    wanted = [Choice(*of) for of in product(names, dict.fromkeys(precisions or PRECISIONS), sorted(set(threads)))]
    opened = []
    for done, choice in enumerate(wanted):
        progress(f"opening {choice}", done, len(wanted))
        worker = Worker(choice.threads)
        stack.callback(worker.close)
        try:
            facts = worker.ask(
                do="open", model=str(path), engine=choice.engine, precision=choice.precision, threads=choice.threads
            )
        except CrnnError as error:
            worker.close()
            values = {"engine": choice.engine, "precision": choice.precision, "threads": choice.threads}
            left_out.append({**values, "reason": str(error)})
        else:
            opened.append(_Measured(choice, worker, facts))
    for key, asked in (("engine", names if engines else ()), ("precision", precisions)):
        for name in asked:
            if not any(getattr(one.choice, key) == name for one in opened):
                reason = next(one["reason"] for one in left_out if one[key] == name)
                raise OptionError(f"nothing to measure with {name}: {reason}")
    if not opened:
        raise OptionError(f"nothing to measure: {left_out[0]['reason']}")
    return opened


def _suitable(path: Path) -> list[str]:
    """The engines of this machine that run such a model."""
    first, _ = choose(path)
    if first not in FASTEST_FIRST or path.suffix != ".onnx":
        return [first]
    return [name for name in FASTEST_FIRST if find_spec(name) is not None]


def _references(opened: list[_Measured], stack: ExitStack) -> dict[tuple[str, str, int], Worker]:
    """The matrix products to compare with as (library, precision, threads), and the process of each."""
    libraries = ["numpy", *dict.fromkeys(one.choice.engine for one in opened)]
    references: dict[tuple[str, str, int], Worker] = {}
    for threads in sorted({one.choice.threads for one in opened}):
        worker = Worker(threads)
        stack.callback(worker.close)
        for precision in dict.fromkeys(one.facts["precision"] for one in opened):
            for library in libraries:
                if precision in LIBRARIES.get(library, ()):
                    references[library, precision, threads] = worker
    return references


def _result(one: _Measured, size: int, rates: dict[tuple[str, str, int], float], multiply_adds: int) -> dict[str, Any]:
    rounds = one.rounds[size]
    calls = sorted(seconds for of_round in rounds for seconds in of_round)
    speeds = [size * len(of_round) / sum(of_round) for of_round in rounds]
    precision, threads = one.facts["precision"], one.choice.threads
    peak = max([rate for (_, *key), rate in rates.items() if key == [precision, threads]], default=0.0)
    return {
        "engine": one.facts["name"],
        **{name: one.facts[name] for name in ("version", "precision", "device")},
        "threads": threads,
        "batch_size": size,
        "words_per_second": median(speeds),
        "spread": [min(speeds), max(speeds)],
        "p50": percentile(calls, 50),
        "p99": percentile(calls, 99),
        "calls": len(calls),
        "memory": one.memory[size],
        "share": median(speeds) * multiply_adds / peak if peak and one.facts["device"] == "CPU" else None,
    }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order: at least ``percent`` of them are no larger."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
