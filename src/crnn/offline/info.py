"""Info files, which tell the original's ``benchmark`` what to read: ``INDEX PATH WIDTH HEIGHT`` a file, from 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from crnn.errors import DatasetError, ImageError
from crnn.files import write_whole
from crnn.images import FORMATS
from crnn.offline.files import files_in

_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height


def write_info(folder: Path, file: Path, size: tuple[int, int] | None) -> int:
    """List the files of ``folder`` in ``file``, in natural order; the number of lines.

    With ``size``, (width, height) in pixels, the ``.bin`` files; without, the JPEG pictures (``.jpg``, ``.jpeg``, in
    any case), each with its own size, upright as OpenCV and we read it. The index runs on over all of them.

    Raises DatasetError: no such file in ``folder``, or a path with white space, which separates the columns,
    or one that is no UTF-8.
    ImageError: no picture. OptionError: ``file`` cannot be written.
    """
    found = files_in(folder, (".bin",) if size else (".jpg", ".jpeg"))
    lines = []
    for index, path in enumerate(found):
        if len(str(path).split()) != 1:
            raise DatasetError(f"{path}: a path in an info file must not have white space in it; rename it")
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise DatasetError(f"{path!r}: a path in an info file must be UTF-8; rename it") from None
        width, height = size or _picture_size(path)
        lines.append(f"{index} {path} {width} {height}\n")
    write_whole(file, "".join(lines))
    return len(lines)


def read_info(file: Path, size: tuple[int, int]) -> list[Path]:
    """The paths an info file names, in its order.

    Raises DatasetError: it cannot be read, names nothing, or a line is not ``INDEX PATH WIDTH HEIGHT`` with the
    (width, height) ``size`` that the model takes.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    paths = [_path(line.split(), f"{file}: line {number}", size) for number, line in enumerate(lines, 1) if line]
    if not paths:
        raise DatasetError(f"{file}: names no file")
    return paths


def _path(fields: Sequence[str], where: str, size: tuple[int, int]) -> Path:
    if len(fields) != 4:
        raise DatasetError(f"{where} is not INDEX PATH WIDTH HEIGHT")
    width, height = size
    if fields[2:] != [str(width), str(height)]:
        raise DatasetError(f"{where} says {fields[2]} x {fields[3]}, but the model takes {width} x {height}")
    return Path(fields[1])


def _picture_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            on_its_side = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise ImageError(f"{path}: not a picture, or damaged ({type(error).__name__})") from None
    return (height, width) if on_its_side else (width, height)
