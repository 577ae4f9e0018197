"""What ``/v1`` takes and gives, as OpenAPI describes it. The answers are not built from these: that takes too long."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

_FLAGS = [
    {"name": name, "in": "query", "schema": {"type": "boolean", "default": False}, "description": what}
    for name, what in (
        ("characters", "each character's score and place"),
        ("posterior", "the probability of each class in each frame"),
    )
]

_FILE = {"type": "string", "format": "binary"}
_FIELDS = {
    "characters": {"type": "boolean"},
    "posterior": {"type": "boolean"},
    "lexicon": {"type": "string", "description": "read only these words, one a line"},
}

READ: dict[str, Any] = {
    "parameters": _FLAGS,
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"images": {"type": "array", "items": _FILE}, **_FIELDS}}
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/ReadRequest"}},
        },
    },
}
"""The request of ``POST /v1/read``."""


class NamedImage(BaseModel):
    """A picture and what to call it in the answer."""

    name: str | None = None
    data: str = Field(description="the encoded picture in base64; may be a data: address")


class ReadRequest(BaseModel):
    """Pictures to read."""

    images: list[str | NamedImage] = Field(description="each in base64")
    characters: bool = False
    posterior: bool = False
    lexicon: list[str] | None = Field(None, description="read only these words")


class ErrorDetail(BaseModel):
    """What is wrong: one word for programs, one line for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """A request that could not be answered."""

    error: ErrorDetail


class CharacterScore(BaseModel):
    """One character."""

    character: str
    score: float = Field(description="geometric mean of its probability over its frames, 0 to 1")
    span: tuple[float, float] = Field(description="from and to, in pixels of the picture's width")


class Posterior(BaseModel):
    """What the network saw, frame by frame."""

    classes: list[str] = Field(description="the first, empty one is the CTC blank")
    frames: list[list[float]] = Field(description="of each frame, the probability of each class")
    centres: list[float] = Field(description="where each frame is centred, in pixels of the picture's width")


class ReadWord(BaseModel):
    """What was read in one picture; or, with an ``error``, why nothing was."""

    name: str | None
    text: str | None
    confidence: float | None = Field(description="probability that the text is right, 0 to 1")
    kept: float | None = Field(None, description="with a lexicon: probability that the picture shows one of its words")
    characters: list[CharacterScore] | None = None
    posterior: Posterior | None = None
    width: int | None
    height: int | None
    error: ErrorDetail | None


class ModelName(BaseModel):
    """The weights that read."""

    name: str
    sha256: str | None


class ReadAnswer(BaseModel):
    """A word for each picture, in their order."""

    words: list[ReadWord]
    model: ModelName


class EngineAnswer(BaseModel):
    """What runs the network."""

    name: str
    version: str
    device: str
    precision: str
    threads: int


class Limits(BaseModel):
    """What a request may have."""

    images: int
    bytes: int
    pixels: int = Field(description="of one picture")
    lexicon_words: int
    queue_words: int = Field(description="of all requests that are not answered yet")
    seconds: float


class InputAnswer(BaseModel):
    """What the network takes."""

    name: str
    shape: list[int]
    resampling: str


class ModelAnswer(BaseModel):
    """The model, what runs it, and the limits."""

    name: str
    version: str = Field(description="of crnn")
    file: str
    sha256: str | None
    engine: EngineAnswer
    max_batch: int
    charset: str
    steps: int
    input: InputAnswer
    licence: str
    lineage: list[str]
    notes: list[str]
    limits: Limits
