"""The Reader: pictures in, words out, one by one or by the million."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from crnn import ctc
from crnn.boxes import rectify
from crnn.copies import is_unopened, open_copy, unopened
from crnn.decoding.decoder import Decoder, Reading
from crnn.decoding.lexicon import Lexicon, Prior, WordSource, as_lexicon
from crnn.engines import Engine, resolve
from crnn.engines.lanes import Lane, Lanes
from crnn.engines.processors import usable_processors
from crnn.errors import CrnnError, EngineError, ImageError, OptionError
from crnn.images import PIXEL_LIMIT, Source, normalise, open_picture, prepare
from crnn.second_look import KNOWN, Look, check, look_again
from crnn.spec import FRAME_PITCH, ModelSpec
from crnn.word import Character, Word

Order: TypeAlias = Literal["RGB", "BGR"] | None
Boxes: TypeAlias = Sequence[ArrayLike] | NDArray[Any]
OnError: TypeAlias = Literal["raise", "skip", "record"]

_UNDECODED_A_THREAD = 4
"""Pictures waiting for each decoding thread. What waits may be a large file's bytes, what is decoded is 3 kB."""


class Item(NamedTuple):
    """A picture and the name to call it by, in :attr:`crnn.Word.source` and in messages."""

    source: str
    data: Source


class _Picture(NamedTuple):
    """A picture that is ready for the network: uint8[height, width]."""

    source: str | None
    pixels: NDArray[np.uint8]
    source_width: int


class _Unreadable(NamedTuple):
    source: str | None
    error: CrnnError
    reason: str
    """The error's message without the source in front."""


class Reader:
    """Reads words in pictures.

    Args:
        model: an ``.onnx`` file, a ``.safetensors`` file or a run folder; the bundled weights by default.
        engine: ``auto`` (the fastest installed), the name of one in :data:`crnn.engines.NAMES`, which runs or raises,
            or an opened :class:`crnn.engines.Engine`, which brings its own model and its own threads.
        batch_size: how many words go through the network together. What is read in a picture doesn't depend on it.
        threads: how many processors to use; all that this process may use by default. For torch, which has one number
            of threads for the whole process, that is set if it is given.
        pixel_limit: the largest number of pixels of a picture; one that has more is taken for a decompression bomb.
        lexicon: read only words of these: a list of words, a file's name, or a :class:`crnn.Lexicon`.
        prior: weigh texts by how frequent they are: a :class:`crnn.Prior`.
        characters: read only these.
        beam: search for the most probable text with a beam so wide. For all four see
            :class:`crnn.decoding.decoder.Decoder`.
        precision: what the engine computes in: ``float32``, ``bfloat16`` or ``int8``, as far as it knows them; its own
            choice by default.
        second_look: look at unsure words twice more (:mod:`crnn.second_look`): more of them are read right, and each
            costs as much as two more words. For reading without lexicon, prior and beam. Which words are unsure, and so
            what is read, may depend on ``batch_size`` where the engine's rounding does.

    Threads may share a Reader. It can be pickled, for Ray, Spark, Dask and the like: that keeps its settings, and no
    weights; the model is opened when the copy is first used, once in a process for all copies. (A Reader of an opened
    engine cannot be pickled; it raises OptionError.) A process that is forked cannot use the Readers it inherits, for
    their threads stay behind; it is told so.

    Raises ModelError, EngineError or OptionError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        engine: str | Engine = "auto",
        batch_size: int = 64,
        threads: int | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        lexicon: WordSource | None = None,
        prior: Prior | None = None,
        characters: str | None = None,
        beam: int | None = None,
        precision: str | None = None,
        second_look: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("threads", threads), ("pixel_limit", pixel_limit)):
            if value is not None and value < 1:
                raise OptionError(f"{name} must be at least 1, not {value}")
        lexicon = None if lexicon is None else as_lexicon(lexicon)
        self._name = uuid4().hex  # which all copies of this Reader have in common
        there = None if model is None else Path(model).absolute()  # other processes have other current folders
        known = lexicon, prior, characters, beam
        self._settings = (there, engine, batch_size, threads, pixel_limit, *known, precision, second_look)
        self.batch_size = batch_size
        self.pixel_limit = pixel_limit
        processors = usable_processors() if threads is None else threads
        if isinstance(engine, str):
            path, name, self._why = resolve(model, engine)
            self._lanes = Lanes(path, name, threads, precision)
        elif model is not None or precision is not None:
            raise OptionError("an opened engine brings its own model and precision; give only the engine")
        else:
            self._lanes, self._why = Lanes.of(engine, processors), "opened by the caller"
        self._engine = self._lanes.single.engine
        self._decoder = Decoder(self._engine.spec, *known)
        self._second_look = second_look
        if second_look:
            check(self._decoder.known)
        self._for_lexicon: WeakKeyDictionary[Lexicon, Decoder] = WeakKeyDictionary()
        self._process = os.getpid()
        self._undecoded = processors * _UNDECODED_A_THREAD
        # Threads start when they get their first work, and end with the Reader.
        self._decoders = ThreadPoolExecutor(processors, "crnn-decode")
        self._runners = ThreadPoolExecutor(
            self._lanes.calls + 1, "crnn-run"
        )  # one decodes texts while the engine computes

    def __reduce__(self) -> tuple[Callable[..., Reader], tuple[Any, ...]]:
        if not isinstance(self._settings[1], str):
            raise OptionError("a Reader of an opened engine cannot be pickled; give it a model and an engine's name")
        return unopened, (Reader, self._name, self._settings)

    if not TYPE_CHECKING:  # or every name would be one of a Reader's

        def __getattr__(self, name: str) -> Any:
            """Open a Reader that was pickled, when something is first asked of it."""
            if not name.startswith("__") and is_unopened(self):
                open_copy(self)
            if name not in self.__dict__:
                raise AttributeError(f"a Reader has no attribute {name!r}")
            return self.__dict__[name]

    @property
    def engine(self) -> str:
        """Which engine reads, on what, and why that one, in a line."""
        engine = self._engine
        threads = f"{engine.threads} thread{'s' * (engine.threads != 1)}"
        return f"{engine.name} {engine.version} on {engine.device}, {engine.precision}, {threads} ({self._why})"

    @property
    def model(self) -> Path:
        """The file the weights came from."""
        return self._engine.path

    @property
    def network(self) -> Engine:
        """The opened engine."""
        return self._engine

    @property
    def spec(self) -> ModelSpec:
        """What goes into the model and what comes out."""
        return self._engine.spec

    @property
    def known(self) -> dict[str, Any]:
        """What is known beside the picture (lexicon, prior, characters, beam), as a report says it; else empty.

        And ``second_look``, which words are looked at again and how, where they are.
        """
        return {**self._decoder.known, **({"second_look": KNOWN} if self._second_look else {})}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the model and the lexicon, one line each."""
        return self._engine.notes + self._decoder.notes

    @overload
    def read(
        self, image: Source | Item, boxes: None = None, *, order: Order = None, lexicon: WordSource | None = None
    ) -> Word: ...

    @overload
    def read(
        self, image: Source | Item, boxes: Boxes, *, order: Order = None, lexicon: WordSource | None = None
    ) -> list[Word]: ...

    def read(
        self,
        image: Source | Item,
        boxes: Boxes | None = None,
        *,
        order: Order = None,
        lexicon: WordSource | None = None,
    ) -> Word | list[Word]:
        """Read one picture: anything :func:`crnn.images.open_picture` takes, or an :class:`Item`.

        Returns a :class:`crnn.Word`; with ``boxes`` a list of them, one for each box. A box is four corners (x, y) in
        pixels of the upright picture, clockwise from the *text's* top left; its view is rectified
        (:func:`crnn.boxes.rectify`). ``order`` says how the channels of a colour array are ordered. ``lexicon`` takes
        the place of the Reader's own this time; make a large one once, as a Lexicon, and give it again and again.

        Raises ImageError for a picture that cannot be read, OptionError for a box that is none.
        """
        self._check_process()
        decoder = self._decoder_of(lexicon)
        source, data = _named(image)
        try:
            picture = open_picture(data, self.spec.picture_mode, order=order, pixel_limit=self.pixel_limit)
        except ImageError as error:
            raise _unreadable(source, error, "picture").error from None
        if boxes is None:
            return self._words([self._fit(source, picture)], decoder, self._lanes.single)[0]
        pictures = []
        for i, box in enumerate(boxes):
            try:
                pictures.append(self._fit(source, rectify(picture, box, self.pixel_limit)))
            except OptionError as error:
                raise OptionError(f"{source or 'picture'}: boxes[{i}]: {error}") from None
        batches = (pictures[i : i + self.batch_size] for i in range(0, len(pictures), self.batch_size))
        return [word for batch in batches for word in self._words(batch, decoder, self._lanes.single)]

    def read_many(
        self,
        images: Iterable[Source | Item],
        on_error: OnError = "raise",
        *,
        order: Order = None,
        lexicon: WordSource | None = None,
    ) -> Iterator[Word]:
        """Read any number of pictures, each anything that :meth:`read` takes; yields a word for each, in order.

        It streams: at most ``look_ahead`` pictures beyond the word at hand have been taken from ``images``, which may
        never end. They are taken in the caller's thread, decoded in others, and run through the network in yet another,
        while the caller works on the words. Arrays, Pillow images and file objects are consumed as they are taken, so
        what yields them may use their memory again.

        ``on_error`` says what becomes of a picture that cannot be read: ``raise`` its ImageError (after the words
        before it), ``skip`` it, or ``record`` a word with :attr:`~crnn.Word.error` in its place. An exception that
        ``images`` raises comes out after the words before it, whatever ``on_error`` says. ``lexicon`` is as in
        :meth:`read`.
        """
        if on_error not in ("raise", "skip", "record"):
            raise OptionError(f"on_error is raise, skip or record, not {on_error!r}")
        single = isinstance(
            images, str | bytes | bytearray | memoryview | os.PathLike | np.ndarray | Image.Image | Item
        )
        if single or hasattr(images, "read"):
            raise OptionError("read_many takes an iterable of pictures; one picture goes to read()")
        self._check_process()
        return self._stream(iter(images), on_error, order, self._decoder_of(lexicon))

    @property
    def look_ahead(self) -> int:
        """How many pictures :meth:`read_many` takes ahead at most: a batch at hand, and one for each engine call."""
        return self.batch_size * (self._lanes.calls + 1)

    def _decoder_of(self, lexicon: WordSource | None) -> Decoder:
        if lexicon is None:
            return self._decoder
        if self._second_look:
            check({"lexicon"})
        if not isinstance(lexicon, Lexicon):
            return self._decoder.with_lexicon(as_lexicon(lexicon))
        found = self._for_lexicon.get(lexicon)  # threads that find none at the same time each make one
        if found is None:
            found = self._for_lexicon[lexicon] = self._decoder.with_lexicon(lexicon)
        return found

    def _stream(
        self, images: Iterator[Source | Item], on_error: OnError, order: Order, decoder: Decoder
    ) -> Iterator[Word]:
        numbered = enumerate(images, 1)
        batches: deque[Future[list[Word | _Unreadable]]] = deque()
        waiting: deque[Future[_Picture | _Unreadable]] = deque(maxlen=self._undecoded)
        failure: Exception | None = None
        lane, ended = self._lanes.single, False
        try:
            while True:
                while not ended and len(batches) <= self._lanes.calls:
                    batch: list[Future[_Picture | _Unreadable]] = []
                    try:
                        for number, image in islice(numbered, self.batch_size):
                            if len(waiting) == waiting.maxlen:
                                waiting[0].exception()  # waits for it
                            batch.append(self._submit(image, number, order))
                            waiting.append(batch[-1])
                    except Exception as error:
                        failure = error
                    ended = len(batch) < self.batch_size
                    if batch:
                        batches.append(self._runners.submit(self._run, batch, decoder, lane))
                        if not ended:
                            lane = self._lanes.stream()
                if not batches:
                    break
                for result in batches.popleft().result():
                    if isinstance(result, Word):
                        yield result
                    elif on_error == "record":
                        yield Word("", 0.0, (), result.source, result.reason)
                    elif on_error == "raise":
                        raise result.error
            if failure is not None:
                raise failure
        finally:
            for batch_left in batches:
                batch_left.cancel()
            for picture_left in waiting:
                picture_left.cancel()

    def _submit(self, image: Source | Item, number: int, order: Order) -> Future[_Picture | _Unreadable]:
        """Have a picture decoded; at once if its memory may be used for something else afterwards."""
        source, data = _named(image)
        name = f"picture {number}"
        if isinstance(data, np.ndarray | Image.Image) or hasattr(data, "read"):
            done: Future[_Picture | _Unreadable] = Future()
            done.set_result(self._load(source, data, name, order))
            return done
        if isinstance(data, bytearray | memoryview):
            data = bytes(data)
        return self._decoders.submit(self._load, source, data, name, order)

    def _load(self, source: str | None, data: Source, name: str, order: Order) -> _Picture | _Unreadable:
        try:
            picture = open_picture(data, self.spec.picture_mode, order=order, pixel_limit=self.pixel_limit)
            return self._fit(source, picture)
        except CrnnError as error:
            return _unreadable(source, error, name)

    def _fit(self, source: str | None, picture: Image.Image) -> _Picture:
        return _Picture(source, prepare(picture, self.spec), picture.width)

    def _run(
        self, batch: list[Future[_Picture | _Unreadable]], decoder: Decoder, lane: Lane
    ) -> list[Word | _Unreadable]:
        results = [future.result() for future in batch]
        words = iter(self._words([result for result in results if isinstance(result, _Picture)], decoder, lane))
        return [next(words) if isinstance(result, _Picture) else result for result in results]

    def _words(self, pictures: list[_Picture], decoder: Decoder, lane: Lane) -> list[Word]:
        if not pictures:
            return []
        spec = self.spec
        pixels = np.stack([picture.pixels for picture in pictures])
        logp = lane.run(normalise(pixels, spec))
        readings = decoder.decode(logp)
        if self._second_look:
            looks = look_again(pixels, logp, readings, decoder, lane.run)
        else:
            looks = [Look(reading) for reading in readings]
        return [
            as_word(reading, spec, width, source, zoom)
            for (reading, zoom), (source, _, width) in zip(looks, pictures, strict=True)
        ]

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise EngineError("this Reader was opened before the process forked; open one in each process")


def as_word(reading: Reading, spec: ModelSpec, source_width: int, source: str | None = None, zoom: float = 1.0) -> Word:
    """What was decoded, with its characters' places in a picture of this width, which was seen so large."""
    middle = source_width / 2

    def place(frames: tuple[int, int]) -> tuple[float, float]:
        left, right = ctc.frame_span(*frames, spec, source_width)
        if zoom == 1:
            return left, right
        # Half a frame at least: seen smaller, a picture has its edge around it, and the network may read there.
        least = FRAME_PITCH / 2 * source_width / spec.width
        left, right = (middle + (end - middle) / zoom for end in (left, right))
        return min(max(0.0, left), source_width - least), min(max(least, right), float(source_width))

    characters = [Character(c, score, place(frames)) for c, score, frames in reading.characters]
    return Word(reading.text, reading.confidence, tuple(characters), source, kept=reading.kept)


def _named(image: Source | Item) -> tuple[str | None, Source]:
    """A picture's name, if it has one, and the picture."""
    if isinstance(image, tuple):
        if len(image) != 2 or not isinstance(image[0], str):
            raise OptionError(f"a tuple of {len(image)} is no picture; name one with crnn.Item(name, picture)")
        return image[0], image[1]
    if isinstance(image, str | os.PathLike):
        return os.fspath(image), image
    name = getattr(image, "name", None)  # a file object's; an int if it was opened by its descriptor
    return name if isinstance(name, str) else None, image


def _unreadable(source: str | None, error: CrnnError, name: str) -> _Unreadable:
    """Put the picture's own name, or else ``name``, where images.py could only say "picture"."""
    reason = str(error).removeprefix("picture: ")
    if source is not None:
        reason = reason.removeprefix(f"{source}: ")
    return _Unreadable(source, type(error)(f"{source or name}: {reason}"), reason)
