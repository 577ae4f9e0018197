"""Every limit of the service, in one place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from crnn.errors import OptionError

_ORIGIN = re.compile(r"https?://[^\s/,*]+", re.ASCII)

_OPTIONS = {
    "max_wait": "--max-wait-ms",
    "request_bytes": "--request-mib",
    "pixels": "--pixel-limit",
    "queue_words": "--queue",
    "queue_bytes": "--queue-mib",
}
"""Limits that ``crnn serve`` has under another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service allows. Each request that is over a limit is answered so, and costs no more than finding out.

    Raises OptionError for a limit below its least, an API key that no header can carry, or an origin that is none.
    """

    max_batch: int = 64
    """Words in one call of the network."""
    max_wait: float = 0.01
    """Seconds that a batch waits for the words of other clients, if there lately were any."""
    images: int = 64
    """Pictures of one request."""
    request_bytes: int = 32 << 20
    """Bytes of one request's body."""
    pixels: int = 32_000_000
    """Pixels of one picture."""
    lexicon_words: int = 10_000
    """Words of one request's lexicon."""
    queue_words: int = 1024
    """Words taken in and not answered yet, of all requests together."""
    queue_bytes: int = 256 << 20
    """Bytes of the bodies of all requests that are not answered yet."""
    connections: int = 1000
    """Connections at a time."""
    body_seconds: float = 20.0
    """Seconds a client may take to send a request's body, and as many for its head."""
    seconds: float = 30.0
    """Seconds from the whole request to its answer."""
    api_key: str | None = None
    """What clients have to show; None: nothing."""
    cors: tuple[str, ...] = ()
    """Origins, such as ``https://example.org``, whose pages may use the service; ``*`` for all."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not (
                0 < value < math.inf or (value == 0 and field.name == "max_wait")
            ):
                option = _OPTIONS.get(field.name, f"--{field.name.replace('_', '-')}")
                raise OptionError(f"{option} must be above 0, and finite, not {value}")
        if self.queue_words < self.images:
            what = f"a request may have {self.images} pictures, and the queue {self.queue_words} words"
            raise OptionError(f"--queue must not be below --images: {what}")
        if self.queue_bytes < self.request_bytes:
            one, all_of_them = (f"{size / 2**20:g} MiB" for size in (self.request_bytes, self.queue_bytes))
            what = f"a request may have {one}, and all together {all_of_them}"
            raise OptionError(f"--queue-mib must not be below --request-mib: {what}")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise OptionError("the API key must be of visible ASCII characters, without spaces, and not empty")
        for origin in self.cors:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise OptionError(f"{origin!r} is no origin; one is https://example.org, without a path, or *")
