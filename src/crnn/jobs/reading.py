"""Parts -> shards: one stream of pictures through one Reader, cut where the parts end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from crnn.errors import CrnnError
from crnn.jobs.listing import Listing
from crnn.jobs.pictures import pictures
from crnn.jobs.shards import Done, ShardWriter
from crnn.jobs.storage import Place
from crnn.jobs.units import Layout
from crnn.reader import Item, Reader
from crnn.word import Word

INPUT = "_input.parquet"
"""The listing beside the shards. What reads a folder of Parquet files passes over names with an underscore."""


class TooManyErrors(CrnnError):
    """More pictures could not be read than the user allows."""


@dataclass(frozen=True)
class Plan:
    """What reading a part takes but the Reader. It can be pickled."""

    base: Place
    """Where the listing's names start from."""
    output: Place
    job: str
    """What the shards of this job are known by."""
    layout: Layout
    columns: Any
    """The schema of the results (:func:`crnn.jobs.shards.schema`)."""

    def listing(self) -> Listing:
        """The job's parts."""
        return Listing(self.output / INPUT)


@dataclass
class _Part:
    number: int
    taken: int = 0
    """Pictures given to the Reader whose words have not come back."""
    given: bool = False
    """Whether all of its pictures have been given."""
    writer: ShardWriter | None = field(default=None, repr=False)


def read_parts(
    plan: Plan, reader: Reader, parts: Iterable[int], tick: Callable[[Word], None] = lambda word: None
) -> Generator[Done, None, None]:
    """Read parts and write their shards; yields each when it is whole. ``tick`` is called with each word.

    The pictures of one part after the other go through the Reader in one stream, so it never waits for a part to end.
    If anything stops it (an error, Ctrl-C, the caller), the part at hand leaves nothing.

    Raises DatasetError if the storage fails, OptionError if results cannot be written, and what ``tick`` raises.
    """
    listing = plan.listing()
    under_way: deque[_Part] = deque()

    def items() -> Generator[Item, None, None]:
        for number in parts:
            part = _Part(number)
            under_way.append(part)
            with closing(pictures(plan.base, listing.part(number), plan.layout)) as found:
                for item in found:
                    part.taken += 1
                    yield item
            part.given = True

    def writer_of(part: _Part) -> ShardWriter:
        if part.writer is None:
            part.writer = ShardWriter(plan.output, part.number, plan.job, plan.columns)
        return part.writer

    given = items()
    words = reader.read_many(given, on_error="record")
    try:
        while True:
            word = next(words, None)
            # That a part is over shows, at the latest, by the first word of the next.
            while under_way and under_way[0].given and not under_way[0].taken:
                yield writer_of(under_way.popleft()).close()
            if word is None:
                break
            tick(word)
            under_way[0].taken -= 1
            writer_of(under_way[0]).add(word)
    finally:
        if under_way and under_way[0].writer is not None:
            under_way[0].writer.discard()
        if isinstance(words, Generator):
            words.close()  # or else it would go on taking pictures until it is collected
        given.close()
