"""What the service counts and times, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one application; several in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"crnn_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"crnn_{name}", what, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Answered requests.", "route", "status")
        self.words = counter("words", "Words read.")
        self.errors = counter("errors", "Requests and pictures that were answered with an error.", "kind")
        self.batch_size = histogram("batch_size", "Words in one call of the network.", _SIZES)
        self.request_seconds = histogram("request_seconds", "From a request's head to its answer.")
        self.queue_seconds = histogram("queue_seconds", "From a word's arrival to its call of the network.")
        self.engine_seconds = histogram("engine_seconds", "One call of the network.")
        self.waiting_words = Gauge("crnn_waiting_words", "Words taken in, not answered yet.", registry=self.registry)
        self.waiting_bytes = Gauge("crnn_waiting_bytes", "Bytes of their requests.", registry=self.registry)

    def text(self) -> bytes:
        """All figures in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
