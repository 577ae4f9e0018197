"""Any picture of a word -> one gray picture -> the network's input. The only place where that happens.

The gray value is ITU-R 601 luma as Pillow's ``convert("L")`` computes it,
``(19595 R + 38470 G + 7471 B + 2**15) >> 16``, taken *before* resizing; the picture is stretched to the spec's size
without keeping its aspect ratio. For 8-bit L, RGB, P and CMYK pictures without alpha or rotation the result is, byte
for byte, ``image.convert("L").resize((width, height), BICUBIC)``. A network that reads colour, and a device that makes
the gray itself, get the picture resized in RGB instead (:attr:`crnn.spec.ModelSpec.colour`).
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from crnn.errors import ImageError, PixelLimitError

if TYPE_CHECKING:
    from crnn.spec import ModelSpec

Mode: TypeAlias = Literal["L", "RGB"]
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image

PIXEL_LIMIT = 64_000_000
"""Largest number of pixels a picture may have unless told otherwise; more is taken for a decompression bomb."""

SIDE_LIMIT = 1_000_000
"""Largest number of pixels of a side: scaling a line takes 32 bytes for each of them, beside the picture."""

# Formats are named so that an unlucky file cannot reach Pillow's rarer decoders (EPS would start Ghostscript, and TGA,
# which has no signature, would take garbage for a picture). The common ones come first: Pillow imports the other
# decoders only when it gets that far down the list. JPEG stands for MPO too.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF", "DIB", "ICO", "QOI", "PCX")

_GRAY_STEPS = {"L;2": 85, "L;4": 17}  # from one gray value of few bits to the next, in 8 bits
_ICON = b"\0\0\1\0"  # how ICO files begin
_TILE = (322, 323)  # TIFF's tags of the width and the length of a tile

# fmt: off
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".ico", ".qoi", ".pcx",
)
# fmt: on
"""What a picture's name ends in. Asked of what lies in folders and archives only: a file named by the user is opened
whatever it is called."""

UNKNOWN_SUFFIXES = (".heic", ".heif", ".jxl")
"""Those of cameras' pictures that nothing here decodes: said of each, as a folder of them would seem empty."""

_ORIENTATION = 0x0112  # the EXIF tag; what undoes each of its values (1 is upright)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_gray(
    source: Source, *, order: Literal["RGB", "BGR"] | None = None, pixel_limit: int = PIXEL_LIMIT
) -> Image.Image:
    """:func:`open_picture` in gray."""
    return open_picture(source, "L", order=order, pixel_limit=pixel_limit)


def open_picture(
    source: Source, mode: Mode, *, order: Literal["RGB", "BGR"] | None = None, pixel_limit: int = PIXEL_LIMIT
) -> Image.Image:
    """A path, encoded bytes, binary file object, Pillow image or array -> Pillow image of the ``mode``, upright.

    Arrays are ``[H, W]`` or ``[H, W, 1]`` (gray) or ``[H, W, 3 or 4]`` (colour, with alpha last), of dtype bool, uint8,
    uint16 (0..65535 is scaled to 0..255) or float (0..1); ``order`` says how the channels of a colour array are ordered
    and has to be given for one. Transparency is laid on white, 16-bit values are scaled, of an animation the first
    frame counts (of a Pillow image, the frame it stands at). 32-bit integers are 16-bit values, too; they are refused
    if the largest is in 1..255, for then they are rather gray values. The caller's object is not changed.

    Raises :class:`~crnn.errors.ImageError`, one line, if there is no such picture in ``source``.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, mode, "picture", pixel_limit)
    if isinstance(source, np.ndarray):
        return _from_array(source, mode, order, pixel_limit)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(source), mode, "picture", pixel_limit)
    if isinstance(source, str | os.PathLike):
        return _from_path(source, mode, pixel_limit)
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        called = name if isinstance(name, str) else "picture"
        try:
            data = source.read()  # whole, because Pillow wants to seek and a pipe cannot
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise ImageError(f"{called}: cannot be read ({_one_line(error)})") from None
        if isinstance(data, str):
            raise ImageError(f"{called}: the file object gives text; open it in binary mode ('rb')")
        return _from_file(io.BytesIO(data), mode, called, pixel_limit)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; give a path, bytes, a file object, "
        "a Pillow image or an array"
    )


def decode_gray(data: bytes, *, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """Encoded bytes (PNG, JPEG, ...) -> Pillow image of mode L. Raises ImageError; see :func:`open_gray`."""
    return open_gray(data, pixel_limit=pixel_limit)


def prepare(source: Source, spec: ModelSpec) -> NDArray[np.uint8]:
    """A picture (anything :func:`open_picture` takes) -> its pixels, stretched to the spec's size.

    uint8[height, width], gray; in colour (:attr:`~crnn.spec.ModelSpec.colour`) uint8[height, width, 3], the channels in
    the order RGB, or BGR if the spec's AIPP takes that.
    """
    mode = spec.picture_mode
    picture = source if isinstance(source, Image.Image) and _is_plain(source, mode) else open_picture(source, mode)
    resample = Image.Resampling[spec.resampling.upper()]
    pixels = np.asarray(picture.resize((spec.width, spec.height), resample), dtype=np.uint8)
    return np.ascontiguousarray(pixels[:, :, ::-1]) if spec.aipp == "bgr" else pixels


def normalise(batch: NDArray[np.uint8], spec: ModelSpec) -> NDArray[Any]:
    """Pixels of N prepared pictures, uint8[N, *spec.picture_shape] -> the artefact's input [N, *spec.input_shape].

    That is float32[N, channels, H, W] of ``(x / 255 - mean) / std``, each operation rounded to float32. A spec with
    AIPP leaves them as they are, uint8[N, H, W, 1 or 3].
    """
    if not spec.colour:
        batch = batch[..., np.newaxis]
    if spec.aipp:
        return batch
    values = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(spec.mean)) / np.float32(spec.std)
    # "clip" cuts nothing, but take() is three times as fast if it need not look for what lies outside.
    return values.take(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)), mode="clip")


def _is_plain(image: Image.Image, mode: Mode) -> bool:
    return image.mode == mode and min(image.size) > 0 and "transparency" not in image.info and _orientation(image) == 1


def _from_path(source: str | os.PathLike[str], mode: Mode, pixel_limit: int) -> Image.Image:
    name = os.fspath(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):  # not C://pictures
        raise ImageError(f"{name}: this is an address, not a file; download the picture first")
    try:
        with Path(name).open("rb") as file:
            return _from_file(file, mode, name, pixel_limit)
    except IsADirectoryError:
        raise ImageError(f"{name}: this is a folder; name the pictures in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise ImageError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None


def _from_file(file: BinaryIO, mode: Mode, name: str, pixel_limit: int) -> Image.Image:
    head = file.read(6)
    if not head:
        raise ImageError(f"{name}: empty")
    try:
        if head[:4] == _ICON:  # which Pillow unpacks where it opens it
            for size in _sizes_in_icon(file, int.from_bytes(head[4:], "little")):
                _check_size(size, name, pixel_limit)
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image.size, name, pixel_limit)
            tags: Any = getattr(image, "tag_v2", {})  # of TIFF, where a tile may be larger than the picture
            if all(tag in tags for tag in _TILE):
                _check_size((tags[_TILE[0]], tags[_TILE[1]]), name, pixel_limit)
            _match_transparency(image)
            image.load()
            return _from_pillow(image, mode, name, pixel_limit)
    except ImageError:
        raise
    except UnidentifiedImageError:
        what = "not a picture, or damaged at its start (we read PNG, JPEG, WebP, TIFF, BMP, GIF, ...)"
        raise ImageError(f"{name}: {what}") from None
    except Image.DecompressionBombError:
        raise PixelLimitError(
            f"{name}: more pixels than Pillow decodes; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files: struct.error, KeyError, ...
        raise ImageError(f"{name}: damaged or truncated picture ({_one_line(error)})") from None


def _match_transparency(image: Image.Image) -> None:
    """Give the gray or colour that a PNG names as transparent the scale of the pixels that Pillow makes of it.

    They are 8-bit, while the file's number has the depth of the file: 16 bits of each colour, or 1, 2 or 4 of gray.
    """
    named = image.info.get("transparency")
    tiles: Any = getattr(image, "tile", None)
    if image.format != "PNG" or not tiles:
        return
    raw = tiles[0][3]
    raw = raw[0] if isinstance(raw, tuple) else raw
    if raw == "RGB;16B" and isinstance(named, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in named)
    elif raw in _GRAY_STEPS and isinstance(named, int):
        image.info["transparency"] = named * _GRAY_STEPS[raw]


def _sizes_in_icon(file: BinaryIO, count: int) -> list[tuple[int, int]]:
    """The sizes of the pictures in an ICO file, by their own headers: PNG's, or DIB's of twice the height."""
    sizes = []
    for i in range(count):
        file.seek(6 + 16 * i + 12)
        file.seek(int.from_bytes(file.read(4), "little"))
        head = file.read(24)
        if head[:4] == b"\x89PNG":
            sizes.append((int.from_bytes(head[16:20]), int.from_bytes(head[20:24])))
        elif len(head) >= 12:
            width, height = (abs(int.from_bytes(head[k : k + 4], "little", signed=True)) for k in (4, 8))
            sizes.append((width, max(1, height // 2)))
    return sizes


def _from_pillow(image: Image.Image, mode: Mode, name: str, pixel_limit: int) -> Image.Image:
    _check_size(image.size, name, pixel_limit)
    try:
        picture = _convert(image, mode)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # a lazily loaded, damaged file, or a mode that Pillow cannot convert
        kind = "gray" if mode == "L" else mode
        raise ImageError(f"{name}: cannot be turned into {kind} from mode {image.mode} ({_one_line(error)})") from None
    undo = _UPRIGHT.get(_orientation(image))
    if undo is None:
        return picture
    upright = picture.transpose(undo)
    upright.info.clear()  # or its next reader would find the orientation there and turn it again
    return upright


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_deep(image)
    if image.has_transparency_data:
        if image.mode == "La":  # Pillow has no direct way from here to RGBA
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
    return image.convert(mode) if image.mode != mode else image.copy()


def _scale_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float pictures, which Pillow's convert("L") would clip at 255 or cut to their high byte."""
    values = np.asarray(image)
    # Of files, unsigned 16 bits come in this mode from PGM alone; others, and what never was a file, are taken for gray
    # values rather than for pictures so dark.
    if image.mode == "I" and image.format != "PPM" and 0 < values.max() < 256:
        what = f"32-bit values of 0..{values.max()} would be black, for white is 65535"
        raise ImageError(f'{what}; if it is 255 in this picture, give image.convert("L")')
    gray = _scale(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # a PNG may name one gray value as transparent
        gray[values == transparent] = 255
    return Image.fromarray(gray)


def _scale(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers 0..65535 or floats 0..1 of any shape -> uint8 0..255, rounded."""
    top, kind = (1.0, "floating-point") if values.dtype.kind == "f" else (65535, "integer")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):  # written so that NaN is refused too
        raise ImageError(f"{kind} values must lie in 0..{top:g} (these are {low:g}..{high:g}); scale them first")
    # float32 is exact enough: a 16-bit value is never nearer than 0.5 / 257 to the middle between two 8-bit ones
    scaled = values.astype(np.float32) * np.float32(255 / top)
    gray: NDArray[np.uint8] = np.rint(scaled, out=scaled).astype(np.uint8)
    return gray


def _from_array(array: NDArray[Any], mode: Mode, order: str | None, pixel_limit: int) -> Image.Image:
    where = f"array of shape {array.shape} and dtype {array.dtype}"
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3, 4):
        raise ImageError(f"{where}: a picture is [H, W], [H, W, 3] or [H, W, 4]")
    if channels > 1 and order not in ("RGB", "BGR"):
        raise ImageError(
            f'{where}: say how its channels are ordered: order="RGB", or order="BGR" if it comes from OpenCV'
        )
    _check_size((array.shape[1], array.shape[0]), where, pixel_limit)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16 or array.dtype.kind == "f":
        try:
            array = _scale(array)
        except ImageError as error:
            raise ImageError(f"{where}: {error}") from None
    elif array.dtype != np.uint8:
        raise ImageError(f"{where}: pixels are uint8, uint16, bool or float in 0..1")
    if channels == 1:
        array = array.reshape(array.shape[:2])
    elif order == "BGR":
        array = array[:, :, [2, 1, 0, 3][:channels]]
    return _convert(Image.fromarray(np.ascontiguousarray(array)), mode)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def _check_size(size: tuple[int, int], name: str, pixel_limit: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: a picture of {width} x {height} pixels holds nothing")
    if max(size) > SIDE_LIMIT:
        raise PixelLimitError(f"{name}: {width} x {height} pixels: no side may have more than {SIDE_LIMIT:,}; crop it")
    if width * height > pixel_limit:
        raise PixelLimitError(
            f"{name}: {width} x {height} pixels are over the limit of {pixel_limit:,}; crop it or raise pixel_limit"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
