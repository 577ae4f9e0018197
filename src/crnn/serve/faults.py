"""What a client is told when something is wrong with a request or with the service."""

from __future__ import annotations


class Fault(Exception):
    """A whole request that is answered with an error.

    ``code`` is one word for programs, which also counts it in the metrics; the message is one line for people.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


def busy(what: str) -> Fault:
    """503: the service has taken in as much as it may."""
    return Fault(503, "busy", f"{what}; try again in a moment", retry_after=1)
