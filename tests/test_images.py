from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from crnn.engines import check_batch
from crnn.errors import ImageError, PixelLimitError
from crnn.images import decode_gray, normalise, open_gray, open_picture, prepare
from crnn.spec import ModelSpec

SPEC = ModelSpec()
RNG = np.random.default_rng(7)


def noise(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str) -> Image.Image:
    return Image.fromarray(noise(23, 61, 3)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("RGB", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
     ("P", "GIF"), ("L", "BMP"), ("RGB", "WEBP"), ("L", "PPM")],
)  # fmt: skip
def test_plain_pictures_equal_pillows_convert_and_resize(mode: str, kind: str) -> None:
    data = encoded(plain(mode), kind)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("L").resize((100, 32), Image.Resampling.BICUBIC))
    result = prepare(data, SPEC)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


def test_the_spec_says_size_and_filter() -> None:
    image = plain("L")
    expected = np.asarray(image.resize((140, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepare(image, ModelSpec(width=140, steps=36, resampling="bilinear")), expected)


def test_every_way_to_give_a_picture_gives_the_same(tmp_path: Path) -> None:
    image = plain("RGB")
    data = encoded(image, "PNG")
    path = tmp_path / "word.png"
    path.write_bytes(data)
    expected = image.convert("L").tobytes()
    rgb = np.asarray(image)
    with path.open("rb") as file:
        assert open_gray(file).tobytes() == expected
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), image):
        assert open_gray(source).tobytes() == expected
    assert open_gray(rgb, order="RGB").tobytes() == expected
    assert open_gray(rgb[:, :, ::-1], order="BGR").tobytes() == expected
    assert open_gray(np.asarray(image.convert("L"))).tobytes() == expected
    assert open_gray(np.asarray(image.convert("L"))[:, :, None]).tobytes() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    gray = noise(4, 6)
    alpha = noise(4, 6)
    alpha[0], alpha[1] = 0, 255
    image = Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))
    image = image if mode == "LA" else image.convert("La") if mode == "La" else image.convert("RGBA").convert(mode)
    result = np.asarray(open_gray(image))
    assert (result[0] == 255).all()
    if mode != "PA":  # whose palette keeps fewer grays
        weight = alpha / 255
        # premultiplied modes lose precision where alpha is small, but there the white outweighs the loss
        np.testing.assert_allclose(result, gray * weight + 255 * (1 - weight), atol=2)


def test_transparent_palette_entry_and_transparent_gray_become_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 10, 10, 20, 20, 20])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert list(decode_gray(encoded(palette, kind, transparency=0)).tobytes()) == [255, 20]
    gray = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert list(decode_gray(encoded(gray, "PNG", transparency=7)).tobytes()) == [255, 8]
    deep = Image.fromarray(np.array([[257 * 7, 257 * 8]], np.uint16))
    assert list(decode_gray(encoded(deep, "PNG", transparency=257 * 7)).tobytes()) == [255, 8]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_scaled_not_clipped(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    result = np.asarray(decode_gray(encoded(Image.fromarray(values), kind)))
    np.testing.assert_array_equal(result, np.rint(values.astype(np.float64) / 257).astype(np.uint8))
    np.testing.assert_array_equal(np.asarray(open_gray(values)), result)


def test_gray_values_of_32_bits_are_not_taken_for_black() -> None:
    gray = plain("L").convert("I")
    for source in (gray, encoded(gray, "TIFF")):
        with pytest.raises(ImageError, match=r'32-bit values of 0\.\.\d+ .*give image\.convert\("L"\)'):
            open_gray(source)
    dark = Image.fromarray(np.full((4, 5), 200, np.uint16))
    for kind in ("PNG", "TIFF", "PPM"):  # 16 bits for sure, and so dark
        assert decode_gray(encoded(dark, kind)).getextrema() == (1, 1)
    assert open_gray(dark).getextrema() == (1, 1)
    assert open_gray(Image.new("I", (4, 5))).getextrema() == (0, 0)
    assert open_gray(Image.new("I", (4, 5), 257)).getextrema() == (1, 1)


def test_arrays_of_other_types() -> None:
    assert list(open_gray(np.array([[True, False]])).tobytes()) == [255, 0]
    assert list(open_gray(np.array([[0.0, 0.5, 1.0]])).tobytes()) == [0, 128, 255]
    rgba = np.array([[[0, 0, 0, 0], [0, 0, 255, 255]]], np.uint8)
    assert list(open_gray(rgba, order="BGR").tobytes()) == [255, 76]  # transparent; red: 0.299 * 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = np.zeros((32, 64), np.uint8)
    upright[:16, :16] = 255  # one bright corner, in a picture that is not square
    undo: dict[int, Any] = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
            6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    result = np.asarray(decode_gray(encoded(stored.convert("RGB") if kind == "WEBP" else stored, kind, exif=exif)))
    assert result.shape == upright.shape
    np.testing.assert_allclose(result[4:28:8, 4:60:8], upright[4:28:8, 4:60:8], atol=40)  # lossy formats


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_upright_picture_is_not_turned_again(orientation: int) -> None:
    """What open_gray returns may go through images.py once more, as it does in the Reader."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.arange(32 * 64, dtype=np.uint8).reshape(32, 64) // 3), "PNG", exif=exif)
    once, twice = prepare(data, ModelSpec()), prepare(open_gray(data), ModelSpec())
    np.testing.assert_array_equal(once, twice)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (5, 4), value) for value in (50, 200, 90)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert abs(decode_gray(data).getpixel((2, 2)) - 50) <= 2, kind  # type: ignore[operator]


def test_a_callers_image_is_left_alone_and_not_shared() -> None:
    image = plain("L")
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    gray = open_gray(image)
    assert gray.size == (image.height, image.width)
    gray.paste(0, (0, 0, *gray.size))
    assert image.tobytes() == before
    assert prepare(image, SPEC).tobytes() == prepare(open_gray(image), SPEC).tobytes()


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (b"", "empty"),
        (b"this is text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encoded(plain("RGB"), "PNG")[:200], "damaged or truncated"),
        (encoded(plain("RGB"), "JPEG")[:300], "damaged or truncated"),
        (io.StringIO("text"), "binary mode"),
        ("https://example.org/word.png", "address"),
        ("no/such.png", "cannot be opened"),
        ("nul\0.png", "cannot be opened"),
        (3, "give a path"),
        (np.zeros((0, 5), np.uint8), "holds nothing"),
        (np.zeros((4, 5, 3), np.uint8), 'order="RGB"'),
        (np.zeros((4, 5, 2), np.uint8), "[H, W, 3]"),
        (np.zeros((4, 5), np.complex64), "uint8"),
        (np.full((4, 5), np.nan), "0..1"),
        (np.full((4, 5), 200.0), "0..1"),
        (Image.new("LAB", (3, 3)), "mode LAB"),
        (Image.new("I", (3, 3), 70000), "0..65535"),
    ],
)
def test_each_failure_is_one_clear_line(source: Any, part: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_gray(source)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failures_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("hello")
    for source in (path, path.open("rb")):
        with pytest.raises(ImageError, match=r"notes\.png: not a picture"):
            open_gray(source)
    with pytest.raises(ImageError, match="folder"):
        open_gray(tmp_path)
    assert os.listdir(tmp_path) == ["notes.png"]


def test_the_pixel_limit_divides_huge_from_bomb() -> None:
    data = encoded(Image.new("1", (300, 100)), "PNG")
    assert decode_gray(data, pixel_limit=30_000).size == (300, 100)
    for source in (data, Image.new("1", (300, 100)), np.zeros((100, 300), np.uint8)):
        with pytest.raises(ImageError, match="300 x 100 pixels are over the limit of 29,999"):
            open_gray(source, pixel_limit=29_999)


def test_the_pixel_limit_counts_what_a_file_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    """An icon says 16 x 16 and holds a larger PNG; a TIFF of 64 x 64 is one tile of 512 x 256."""
    png = encoded(Image.new("L", (300, 200)), "PNG")
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png
    tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (277, 1)]
    tags += [(322, 512), (323, 256), (324, 8 + 2 + 12 * 10 + 4), (325, 512 * 256)]
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<2H2I", n, 4, 1, v) for n, v in tags)
    tiff += bytes(4 + 512 * 256)
    for data, size, told in ((icon, 60_000, "300 x 200"), (tiff, 131_072, "512 x 256")):
        assert decode_gray(data, pixel_limit=size).width in (64, 300)
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "load", None)  # nothing is unpacked
            patch.setattr(ImageFile.ImageFile, "load", None)
            with pytest.raises(PixelLimitError, match=f"{told} pixels are over the limit"):
                decode_gray(data, pixel_limit=size - 1)


def test_normalise_follows_the_deliverables_arithmetic() -> None:
    batch = noise(3, 32, 100)
    result = normalise(batch, SPEC)
    assert result.dtype == np.float32
    assert result.shape == (3, 1, 32, 100)
    values = batch.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result[:, 0], (values - np.float32(0.5)) / np.float32(0.5))
    assert normalise(np.array([[[0, 255]]], np.uint8), SPEC).tolist() == [[[[-1.0, 1.0]]]]


RGB = ModelSpec(channels=3, width=128, steps=33)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "CMYK", "1"])
def test_a_network_of_3_channels_gets_the_picture_resized_in_colour(mode: str) -> None:
    image = plain(mode)
    expected = np.asarray(image.convert("RGB").resize((128, 32), Image.Resampling.BICUBIC))
    result = prepare(encoded(image, "TIFF"), RGB)
    np.testing.assert_array_equal(result, expected)
    batch = normalise(np.stack([result, result[::-1]]), RGB)
    assert (batch.shape, batch.dtype.name) == ((2, 3, 32, 128), "float32")
    assert batch.flags.c_contiguous
    values = (expected.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    np.testing.assert_array_equal(batch[0], values.transpose(2, 0, 1))
    check_batch(batch, RGB)


def test_alpha_depth_and_orientation_are_the_same_in_colour() -> None:
    """A gray picture in colour is the gray picture three times, however it is stored."""
    rgba = Image.merge("LA", (Image.fromarray(noise(20, 30)), Image.fromarray(noise(20, 30)))).convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(RNG.integers(0, 65536, (20, 30)).astype(np.uint16))
    for data in (encoded(rgba, "PNG", exif=exif), encoded(deep, "PNG"), encoded(plain("L"), "PNG", transparency=7)):
        gray = np.asarray(decode_gray(data))
        colour = np.asarray(open_picture(data, "RGB"))
        np.testing.assert_array_equal(colour, np.repeat(gray[:, :, None], 3, axis=2))
    red = np.zeros((4, 5, 3), np.uint8)
    red[:, :, 2] = 200
    assert open_picture(red, "RGB", order="BGR").getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize(("aipp", "channels"), [("gray", 1), ("rgb", 3), ("bgr", 3)])
def test_with_aipp_the_pixels_go_to_the_device_as_they_are(aipp: str, channels: int) -> None:
    spec = ModelSpec(aipp=aipp)
    image = plain("RGB")
    pixels = prepare(encoded(image, "PNG"), spec)
    colour = np.asarray(image.resize((100, 32), Image.Resampling.BICUBIC))
    expected = {"gray": prepare(image, SPEC), "rgb": colour, "bgr": colour[:, :, ::-1]}[aipp]
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.nbytes == 32 * 100 * channels and pixels.flags.c_contiguous
    batch = normalise(np.stack([pixels] * 2), spec)
    assert (batch.shape, batch.dtype.name) == ((2, 32, 100, channels), "uint8")
    assert batch.tobytes() == pixels.tobytes() * 2
    check_batch(batch, spec)


def _png(width: int, depth: int, colour: int, row: bytes, transparent: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)) + chunk(b"tRNS", transparent)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (
            16,
            2,
            struct.pack(">9H", *[0x1234] * 3, *[0x3400] * 3, *[0] * 3),
            struct.pack(">3H", *[0x1234] * 3),
            [255, 52, 0],
        ),
        (16, 0, struct.pack(">2H", 0x1234, 0x8000), struct.pack(">H", 0x1234), [255, 128]),
        (8, 2, bytes([7, 7, 7, 9, 9, 9]), struct.pack(">3H", 7, 7, 7), [255, 9]),
        (8, 0, bytes([7, 100]), struct.pack(">H", 7), [255, 100]),
        (4, 0, bytes([0x07, 0xF3]), struct.pack(">H", 7), [0, 255, 255, 51]),
        (2, 0, bytes([0b00011011]), struct.pack(">H", 2), [0, 85, 255, 255]),
        (1, 0, bytes([0b10100000]), struct.pack(">H", 1), [255, 0, 255, 0]),
    ],
)
def test_the_colour_that_a_png_names_as_transparent(
    depth: int, colour: int, row: bytes, transparent: bytes, expected: list[int]
) -> None:
    picture = open_gray(_png(len(expected), depth, colour, row, transparent))
    assert np.asarray(picture).tolist() == [expected]


def test_a_side_without_measure_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(PixelLimitError, match="no side may have more than 1,000,000"):
        open_gray(Image.new("1", (1_000_001, 1)))


def test_file_objects_that_cannot_be_read() -> None:
    class Gone(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the share is gone")

    closed = io.BytesIO(b"x")
    closed.close()
    for source, what in ((Gone(), "the share is gone"), (closed, "closed file")):
        with pytest.raises(ImageError, match=f"cannot be read .*{what}"):
            open_gray(source)


def test_a_drive_is_no_address() -> None:
    with pytest.raises(ImageError, match="cannot be opened"):
        open_gray("C://pictures/none.png")
