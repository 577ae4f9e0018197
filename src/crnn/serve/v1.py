"""``/v1``: the service's own API."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

import crnn
from crnn.engines import Engine
from crnn.errors import ImageError, OptionError, PixelLimitError
from crnn.outputs import record
from crnn.serve.asked import Asked, asked
from crnn.serve.batching import Batcher
from crnn.serve.body import Bodies
from crnn.serve.faults import Fault
from crnn.serve.metrics import Metrics
from crnn.serve.settings import Settings
from crnn.serve.tasks import Seen
from crnn.spec import FRAME_PITCH, TRUNKS, ModelSpec


class V1:
    """The endpoints of ``/v1``."""

    def __init__(self, settings: Settings, engine: Engine, batcher: Batcher, bodies: Bodies, metrics: Metrics) -> None:
        self._settings, self._batcher, self._bodies, self._metrics = settings, batcher, bodies, metrics
        self._spec = engine.spec
        self.description = describe(settings, engine)
        self._model = {"name": "crnn", "sha256": self.description["sha256"]}

    async def read(self, request: Request) -> Response:
        """The word in each picture, in the order of the pictures; for one that cannot be read, why."""
        body = await self._bodies.receive(request)
        try:
            query = request.scope["query_string"].decode("latin-1")
            wanted = asked(request.headers.get("content-type", ""), query, body, self._settings)
            seen = await self._batcher.read(wanted.pictures, wanted.lexicon, wanted.posterior)
        except OptionError as error:
            raise Fault(400, "lexicon", str(error)) from None
        finally:
            self._bodies.release(body)
        request.scope["crnn.words"] = len(seen)  # for the log
        words = []
        for name, each in zip(wanted.names, seen, strict=True):
            words.append(_written(self._word(name, each, wanted)))
            if wanted.posterior:
                await asyncio.sleep(0)  # a posterior takes long to write, and others have to get their turn
        answer = f'{{"words":[{",".join(words)}],"model":{_written(self._model)}}}'
        return Response(answer, media_type="application/json")

    def _word(self, name: str | None, seen: Seen | ImageError, wanted: Asked) -> dict[str, Any]:
        if isinstance(seen, ImageError):
            error = picture_error(seen)
            self._metrics.errors.labels(error["code"]).inc()
            return {"name": name, "text": None, "confidence": None, "width": None, "height": None, "error": error}
        values = record(seen.word)
        values.pop("source")
        if not wanted.characters:
            values.pop("characters")
        if seen.posterior is not None:
            values["posterior"] = {
                "classes": ["", *self._spec.charset.symbols],
                "frames": np.round(seen.posterior.astype(np.float64), 4).tolist(),
                "centres": centres(self._spec, seen.size[0]),
            }
        width, height = seen.size
        return {"name": name, **values, "width": width, "height": height, "error": None}


def _written(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))


def describe(settings: Settings, engine: Engine) -> dict[str, Any]:
    """What ``GET /v1/model`` says."""
    spec = engine.spec
    return {
        "name": "crnn",
        "version": crnn.__version__,
        "file": engine.path.name,
        "sha256": _sha256(engine),
        "engine": {
            "name": engine.name,
            "version": engine.version,
            "device": engine.device,
            "precision": engine.precision,
            "threads": engine.threads,
        },
        "max_batch": settings.max_batch,
        "charset": spec.charset.symbols,
        "steps": spec.steps,
        "input": {"name": spec.input_name, "shape": list(spec.input_shape), "resampling": spec.resampling},
        "licence": spec.licence,
        "lineage": list(spec.lineage),
        "notes": list(engine.notes),
        "limits": {
            "images": settings.images,
            "bytes": settings.request_bytes,
            "pixels": settings.pixels,
            "lexicon_words": settings.lexicon_words,
            "queue_words": settings.queue_words,
            "seconds": settings.seconds,
        },
    }


def _sha256(engine: Engine) -> str | None:
    try:
        with engine.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # a run's folder, or an engine without a file
        return None


def picture_error(error: ImageError) -> dict[str, str]:
    """A bad picture's code and message. Of its own name nothing is said: it stands beside."""
    message = str(error).removeprefix("picture: ")
    if isinstance(error, PixelLimitError):
        return {"code": "picture_too_large", "message": message.partition(";")[0] + "; crop it or make it smaller"}
    return {"code": "picture_unreadable", "message": message}


def centres(spec: ModelSpec, width: int) -> list[float]:
    """Where the receptive field of each frame is centred, in pixels of a picture of this width.

    See :func:`crnn.ctc.frame_span`.
    """
    _, first = TRUNKS[spec.trunk]
    return [round(min(first + FRAME_PITCH * t, spec.width) * width / spec.width, 2) for t in range(spec.steps)]
