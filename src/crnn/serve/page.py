"""The page at ``/``: the files in the folder ``page``, held in memory."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from crnn.serve.faults import Fault

FOLDER = Path(__file__).parent / "page"

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

# What the system's own tables say of these differs; the page does not work under another type.
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


class Page:
    """Serves the files of a folder, none of which may be large."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
                self._files[path.relative_to(folder).as_posix()] = data, kind, etag

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._send(request, "index.html")

    async def static(self, request: Request) -> Response:
        """What belongs to it."""
        return self._send(request, request.path_params["name"])

    def _send(self, request: Request, name: str) -> Response:
        if name not in self._files:
            raise Fault(404, "not_found", "there is no such file")
        data, kind, etag = self._files[name]
        headers = {**_HEADERS, "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)
