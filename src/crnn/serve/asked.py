"""What a request to ``/v1/read`` asks for: a picture as it is, a form, or JSON."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from crnn.serve.faults import Fault
from crnn.serve.settings import Settings

_FLAGS = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_FIELDS = 16  # parts of a form besides pictures; fields of a query
_WORD = 200  # characters of a lexicon's word: more than any network reads, and little to look at, to keep and to tell


@dataclass(slots=True)
class Asked:
    """Pictures to read, with the names that they came with, and what to say of them."""

    pictures: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    characters: bool = False
    posterior: bool = False
    lexicon: tuple[str, ...] = ()

    def add(self, data: bytes, name: str | None, settings: Settings) -> None:
        """One more picture."""
        if len(self.pictures) == settings.images:
            raise Fault(413, "too_many_images", f"a request may have {settings.images} pictures; send several requests")
        self.pictures.append(data)
        self.names.append(name)

    def flag(self, name: str, value: str) -> None:
        """An option that is on or off."""
        if name not in ("characters", "posterior"):
            raise _malformed(f"unknown field {name[:40]!r}; there are characters, posterior, lexicon, image and images")
        if value.lower() not in _FLAGS:
            raise _malformed(f"{name} is true or false, not {value[:40]!r}")
        setattr(self, name, _FLAGS[value.lower()])

    def know(self, words: Iterable[str], settings: Settings) -> None:
        """The lexicon."""
        self.lexicon = tuple(dict.fromkeys(word for line in words if (word := line.strip())))
        if not self.lexicon:
            raise _malformed("the lexicon has no words; leave it out to read any text")
        if len(self.lexicon) > settings.lexicon_words:
            what = f"a lexicon may have {settings.lexicon_words:,} words, and this one has {len(self.lexicon):,}"
            raise Fault(413, "lexicon_too_large", what)
        if any(len(word) > _WORD for word in self.lexicon):
            raise Fault(413, "lexicon_too_large", f"a word of a lexicon may have {_WORD} characters; give one a line")


def asked(content_type: str, query: str, body: bytes, settings: Settings) -> Asked:
    """Read a request. Raises Fault if it is malformed, over a limit, or of a type that is not taken."""
    found = Asked()
    if query:
        try:
            fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS)
        except ValueError:
            raise _malformed(f"the query has more than {_FIELDS} fields") from None
        for name, value in fields:
            found.flag(name, value)
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("", "application/octet-stream"):
        found.add(body, None, settings)
    elif kind == "multipart/form-data":
        _Form(found, settings).read(content_type, body)
    elif kind == "application/json":
        _from_json(found, body, settings)
    else:
        what = "send a picture as image/* or application/octet-stream, a form as multipart/form-data, or JSON"
        raise Fault(415, "content_type", f"{kind[:60]!r} is not taken; {what}")
    if not found.pictures:
        raise _malformed("no picture in the request; a form has it in the field image, JSON in the list images")
    return found


def require_few(body: bytes, limit: int) -> None:
    """Refuse JSON of more values than any good request has: each would take a hundred times its bytes as an object."""

    def few(text: bytes) -> bool:
        return sum(text.count(sign) for sign in (b",", b"[", b"{")) <= limit

    if few(body):
        return
    if b"\0" in body:  # UTF-16 or UTF-32, in which this does not see what is text
        raise Fault(413, "too_large", f"the JSON has more than {limit:,} values")
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # without escapes, every second piece is a string
    if plain.count(b'"') > 2 * limit + 2 or not few(b"".join(plain.split(b'"')[::2])):
        raise Fault(413, "too_large", f"the JSON has more than {limit:,} values")


def parse_json(body: bytes) -> dict[str, Any]:
    """The body's JSON object. Raises Fault if it holds none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed("the body is not JSON") from None
    if not isinstance(found, dict):
        raise _malformed("the JSON must be an object")
    return found


def from_base64(text: Any, where: str) -> bytes:
    """Bytes from base64, which may be a ``data:`` address. Raises Fault if it is none."""
    if not isinstance(text, str):
        raise _malformed(f"{where} must be base64 in a string")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(f"{where} is not base64") from None


def _from_json(found: Asked, body: bytes, settings: Settings) -> None:
    require_few(body, 8 * settings.images + 2 * settings.lexicon_words + 64)
    values = parse_json(body)
    images = values.pop("images", None)
    if not isinstance(images, list):
        raise _malformed('the JSON has no list "images", each picture in base64')
    for number, image in enumerate(images):
        where, name = f"images[{number}]", None
        if isinstance(image, Mapping):
            if not image.keys() <= {"name", "data"}:
                raise _malformed(f'{where} may have "name" and "data", nothing else')
            name, image, where = image.get("name"), image.get("data"), f"{where}.data"
            if not isinstance(name, str | None):
                raise _malformed(f"images[{number}].name must be a string")
        found.add(from_base64(image, where), name, settings)
    for key, value in values.items():
        if key == "lexicon":
            if value is None:
                continue
            if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                raise _malformed("lexicon must be a list of strings")
            found.know(value, settings)
        else:
            found.flag(key, str(value) if isinstance(value, int) else type(value).__name__)


class _Form:
    """A form in memory: its parts are cut out of the body, and nothing is spooled to a disk."""

    def __init__(self, found: Asked, settings: Settings) -> None:
        self._found, self._settings = found, settings
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._pieces: list[bytes] = []
        self._fields = 0
        self._ended = False

    def read(self, content_type: str, body: bytes) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise _malformed("the form's Content-Type has no boundary; leave the header to your HTTP client")
        try:
            MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            ).write(body)
        except FormParserError as error:
            raise _malformed(f"the form is damaged ({' '.join(str(error).split())[:100]})") from None
        if not self._ended:
            raise _malformed("the form ends in the middle")

    def _begin(self) -> None:
        self._headers, self._pieces = {}, []

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        file = options.get(b"filename")
        if file is not None or name in ("image", "images"):
            self._found.add(data, None if file is None else file.decode("utf-8", "replace"), self._settings)
            return
        self._fields += 1
        if self._fields > _FIELDS:
            raise _malformed(f"the form has more than {_FIELDS} fields besides pictures")
        if name == "lexicon" and max(map(data.count, (b"\n", b"\r"))) > 4 * self._settings.lexicon_words:
            what = f"a lexicon may have {self._settings.lexicon_words:,} words, and this one has far more lines"
            raise Fault(413, "lexicon_too_large", what)
        text = data.decode("utf-8", "replace")
        if name == "lexicon":
            if text.strip():  # an empty box of a page
                self._found.know(re.split("[\r\n]", text), self._settings)
        else:
            self._found.flag(name, text.strip())

    def _finish(self) -> None:
        self._ended = True


def _malformed(what: str) -> Fault:
    return Fault(400, "malformed", what)
