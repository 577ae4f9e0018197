"""Words of all clients through one network, in batches.

The event loop puts tasks into a queue. Threads take turns at making a batch of what is there, so that one gathers and
decodes pictures while the network is busy with the batch before. Pictures that may take long go to threads of their own
first and come back prepared, and so do words of a lexicon: whatever they cost, the others do not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.decoding.decoder import Decoder
from crnn.decoding.lexicon import Lexicon
from crnn.engines.lanes import Lanes
from crnn.errors import ImageError, PixelLimitError
from crnn.images import normalise, open_picture, prepare
from crnn.reader import as_word
from crnn.serve.calls import Calls
from crnn.serve.faults import Fault, busy
from crnn.serve.metrics import Metrics
from crnn.serve.settings import Settings
from crnn.serve.tasks import PictureTask, Request, Result, Seen, TensorTask

_log = logging.getLogger("crnn.serve")

_QUICK_BYTES, _QUICK_PIXELS = 64 << 10, 250_000
"""A picture of no more than this is decoded on the way into a batch; it takes a fraction of a millisecond."""

_SLOW_THREADS = 2
"""For all other pictures. Each may hold some twelve bytes a pixel."""

_PAUSE = 0.001  # seconds between two looks into the queue while a batch is gathered
_LEXICONS = 8  # decoders that are kept, for pages send the same lexicon with each of their requests

_Work: TypeAlias = PictureTask | TensorTask


class Batcher:
    """Takes words in from the event loop's thread, and runs them through the network.

    A batch starts when it is full; or as soon as a call of the network is free and it has its share of the words that
    were lately in the house; or else when it has waited for ``settings.max_wait`` seconds for those. Who waited in vain
    is the last to: the crowd has left. So a client alone does not wait, and a crowd gets batches of equal size instead
    of a large and a small one in turn.
    """

    def __init__(self, lanes: Lanes, settings: Settings, metrics: Metrics) -> None:
        self.spec = lanes.single.engine.spec
        self.words = 0
        """Words taken in, and not answered yet."""
        self._calls, self._settings, self._metrics = Calls(lanes), settings, metrics
        self._decoder = Decoder(self.spec)
        self._known: OrderedDict[tuple[str, ...], Decoder] = OrderedDict()
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()  # None: stop
        self._left: _Work | None = None  # taken from the queue, and too large for the batch at hand
        self._gathering = Lock()
        self._lately = 0.0  # words in the house, as many as there lately were
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, "crnn-slow")
        self._lexicons = ThreadPoolExecutor(1, "crnn-lexicon")
        threads = self._calls.count + 1  # one gathers while the others compute
        self._threads = [Thread(target=self._work, name="crnn-batch", daemon=True) for _ in range(threads)]

    def start(self) -> None:
        """Start the threads; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def warm_up(self) -> None:
        """Open the lane for crowds, and run the network once on nothing: the first call takes longer.

        Raises Fault if it fails.
        """
        await self._loop.run_in_executor(None, self._calls.open)
        await self._try()

    def close(self) -> None:
        """Stop the threads, once they have done what is in the queue."""
        for _ in self._threads:
            self._queue.put(None)
        end = time.monotonic() + self._settings.seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        for pool in (self._slow, self._lexicons):
            pool.shutdown(wait=False, cancel_futures=True)

    async def read(
        self, pictures: Sequence[bytes], lexicon: tuple[str, ...] = (), posterior: bool = False
    ) -> list[Seen | ImageError]:
        """What is read in encoded pictures, in their order; ImageError for those in which nothing can be.

        With a lexicon, its words are the only texts. Raises OptionError if none of them can be read, Fault: too much is
        waiting already, it took too long, or the network failed.
        """
        async with self._in_time():
            chosen = await self._with_lexicon(lexicon) if lexicon else self._decoder
            request = self._request(len(pictures), len(pictures))
            for place, data in enumerate(pictures):
                task = PictureTask(request, place, data, chosen, posterior)
                if len(data) > _QUICK_BYTES:
                    self._slow.submit(self._prepare_slowly, task)
                else:
                    self._queue.put(task)
            results = await self._answer(request)
        return [result for result in results if isinstance(result, Seen | ImageError)]

    async def infer(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """The network's output, float32[steps, N, classes], for its input [N, ``*spec.input_shape``].

        Raises Fault as :meth:`read` does.
        """
        most = self._settings.max_batch
        pieces = [rows[i : i + most] for i in range(0, len(rows), most)]
        async with self._in_time():
            request = self._request(len(pieces), len(rows))
            for place, piece in enumerate(pieces):
                self._queue.put(TensorTask(request, place, piece))
            results = await self._answer(request)
        return np.concatenate([result for result in results if isinstance(result, np.ndarray)], axis=1)

    async def trouble(self) -> str | None:
        """Why nothing can be read at present, in a line; None if it can. Asks the network if it failed last time."""
        if self._calls.longest() > self._settings.seconds:
            return "a call of the network does not come back"
        if self._calls.failing:
            with suppress(Fault):
                await self._try()
        return "the network fails" if self._calls.failing else None

    # In the event loop

    async def _try(self) -> None:
        await self.infer(np.zeros((1, *self.spec.input_shape), self.spec.input_dtype))

    async def _with_lexicon(self, words: tuple[str, ...]) -> Decoder:
        """A decoder that knows these words only."""
        found = self._known.get(words)
        if found is None:
            found = await self._loop.run_in_executor(
                self._lexicons, lambda: self._decoder.with_lexicon(Lexicon(words, "lexicon"))
            )
            self._known[words] = found
            if len(self._known) > _LEXICONS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(words)
        return found

    def _request(self, tasks: int, words: int) -> Request:
        if self.words + words > self._settings.queue_words:
            raise busy(f"{self.words} words are waiting, and no more than {self._settings.queue_words} may")
        self._count(words)
        return Request([None] * tasks, tasks, self._loop.create_future())

    async def _answer(self, request: Request) -> list[Result]:
        if request.left:
            try:
                await request.answered
            finally:
                request.dropped = True
        for result in request.results:
            if isinstance(result, Exception) and not isinstance(result, ImageError):
                raise Fault(500, "engine", "the network failed; the service's log says how")
        return request.results

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """All that a request waits for. Raises Fault once it has taken too long."""
        try:
            async with asyncio.timeout(self._settings.seconds):
                yield
        except TimeoutError:
            what = f"not read within {self._settings.seconds:g} seconds; try again later, or with fewer pictures"
            raise Fault(503, "too_slow", what, retry_after=5) from None

    def _settle(self, done: Sequence[tuple[_Work, Result]]) -> None:
        for task, result in done:
            request = task.request
            request.results[task.place] = result
            request.left -= 1
            self._count(-task.count)
            if not request.left and not request.answered.done():
                request.answered.set_result(None)

    def _count(self, words: int) -> None:
        self.words += words
        self._metrics.waiting_words.set(self.words)

    # In other threads

    def _done(self, done: Sequence[tuple[_Work, Result]]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, done)

    def _work(self) -> None:
        while True:
            with self._gathering:
                batch = self._gather()
            if not batch:
                return
            try:
                self._compute(batch)
            except Exception as error:
                self._done([(task, error) for task in batch])

    def _gather(self) -> list[_Work]:
        """The next batch, with a turn at the network taken for it; empty if the service stops."""
        batch: list[_Work] = []
        room = self._settings.max_batch
        turn, patience = False, 0.0
        while room:
            if batch and not turn:
                turn = self._calls.take_turn(wait=False)
                patience = time.monotonic() + self._settings.max_wait
            if turn and self._is_share(self._settings.max_batch - room):
                break
            task, self._left = self._left, None
            try:
                task = task or self._queue.get(block=not batch)
            except Empty:
                if turn and time.monotonic() >= patience:
                    self._lately = self.words  # those that were waited for have left
                    break
                time.sleep(_PAUSE)
                continue
            if task is None:
                self._queue.put(None)  # the other threads have to stop as well
                break
            if task.count > room:
                self._left = task
                break
            if self._ready(task):
                batch.append(task)
                room -= task.count
        if batch and not turn:
            self._calls.take_turn(wait=True)
        self._lately = max(self.words, 0.9 * self._lately)
        return batch

    def _is_share(self, words: int) -> bool:
        """While a batch is computed another one gathers; with as many words in each, neither waits for the other."""
        return words * max(2, self._calls.count) >= max(self.words, self._lately)

    def _ready(self, task: _Work) -> bool:
        """Whether the task can go into a batch. If not, it is settled, or comes back when it can."""
        if task.request.dropped:
            self._done([(task, None)])
        elif isinstance(task, TensorTask) or task.pixels is not None:
            return True
        else:
            try:
                self._prepare(task, min(_QUICK_PIXELS, self._settings.pixels))
                return True
            except PixelLimitError:
                self._slow.submit(self._prepare_slowly, task)
            except Exception as error:
                self._done([(task, error)])
        return False

    def _prepare_slowly(self, task: PictureTask) -> None:
        try:
            if not task.request.dropped:
                self._prepare(task, self._settings.pixels)
        except Exception as error:
            self._done([(task, error)])
        else:
            self._queue.put(task)

    def _prepare(self, task: PictureTask, pixel_limit: int) -> None:
        picture = open_picture(task.data, self.spec.picture_mode, pixel_limit=pixel_limit)
        task.size = picture.size
        task.pixels = prepare(picture, self.spec)
        task.data = b""

    def _compute(self, batch: list[_Work]) -> None:
        pictures = [task for task in batch if isinstance(task, PictureTask)]
        tensors = [task for task in batch if isinstance(task, TensorTask)]
        words = sum(task.count for task in batch)
        began = time.monotonic()
        logp = self._calls.run(words, lambda: self._input(pictures, tensors), alone=self.words <= words)
        self._metrics.engine_seconds.observe(time.monotonic() - began)
        self._metrics.batch_size.observe(logp.shape[1])
        for task in batch:
            self._metrics.queue_seconds.observe(began - task.arrived)
        first = len(pictures)
        for task in tensors:
            self._done([(task, logp[:, first : first + task.count])])
            first += task.count
        groups: dict[Decoder, list[int]] = {}
        for n, picture in enumerate(pictures):
            groups.setdefault(picture.decoder, []).append(n)
        for decoder, numbers in groups.items():
            args = decoder, [pictures[n] for n in numbers], logp[:, numbers]
            if decoder is self._decoder:
                self._decode(*args)
            else:  # looking through a lexicon takes its time
                self._lexicons.submit(self._decode, *args)

    def _input(self, pictures: list[PictureTask], tensors: list[TensorTask]) -> NDArray[Any]:
        """The network's input: pictures first, then what came as its input already."""
        inputs = [task.rows for task in tensors]
        if pictures:
            pixels = np.stack([task.pixels for task in pictures if task.pixels is not None])
            inputs.insert(0, normalise(pixels, self.spec))
        return inputs[0] if len(inputs) == 1 else np.concatenate(inputs)

    def _decode(self, decoder: Decoder, tasks: list[PictureTask], logp: NDArray[np.float32]) -> None:
        done: list[tuple[_Work, Result]] = []
        if all(task.request.dropped for task in tasks):  # while they waited for others' lexicons
            self._done([(task, None) for task in tasks])
            return
        try:
            for n, (task, reading) in enumerate(zip(tasks, decoder.decode(logp), strict=True)):
                posterior = None
                if task.posterior:
                    posterior = np.exp(ctc.tempered(logp[:, n : n + 1], self.spec.temperature)[:, 0])
                done.append((task, Seen(as_word(reading, self.spec, task.size[0]), task.size, posterior)))
            self._metrics.words.inc(len(done))
        except Exception as error:
            _log.exception("crnn: the network's answer cannot be decoded")
            done = [(task, error) for task in tasks]
        self._done(done)
