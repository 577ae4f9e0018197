"""Every limit of the service, in one place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from crnn.errors import OptionError

_ORIGIN = re.compile(r"https?://[^\s/,*]+", re.ASCII)


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
                raise OptionError(f"{field.name} must be above 0, and finite, not {value}")
        if self.queue_words < self.images:
            what = f"a request may have {self.images}"
            raise OptionError(f"queue_words must not be below images: {what}, and the queue has {self.queue_words}")
        if self.queue_bytes < self.request_bytes:
            what = f"a request may have {self.request_bytes}"
            raise OptionError(f"queue_bytes must not be below request_bytes: {what}, and the queue {self.queue_bytes}")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise OptionError("the API key must be of visible ASCII characters, without spaces, and not empty")
        for origin in self.cors:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise OptionError(f"{origin!r} is no origin; one is https://example.org, without a path, or *")
