from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image, ImageDraw

Draw = Callable[..., bytes]


@pytest.fixture(scope="session")
def draw() -> Draw:
    """``draw(text, size=(60, 20), format="PNG")``: an encoded picture of a text; another text is another picture."""

    def picture(text: str, size: tuple[int, int] = (60, 20), format: str = "PNG") -> bytes:
        image = Image.new("RGB", size, "white")
        ImageDraw.Draw(image).text((4, 4), text, fill="black")
        file = io.BytesIO()
        image.save(file, format)
        return file.getvalue()

    return picture
