import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from dlassets.images.decode import FORMATS, ImageError, decode_rgb, resize_center_crop, resize_center_crop_with_torch


def gradient(height=90, width=120):
    """A smooth picture whose four corners differ, so that JPEG keeps it and a turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 / height, x * 255 / width, np.full_like(x, 40)], axis=-1).astype(np.uint8)


def encoded(image, format_, **options):
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_allowed_format_comes_out_as_the_same_rgb(format_):
    pixels = gradient()
    options = {"quality": 95} if format_ in {"JPEG", "WEBP"} else {}
    decoded = decode_rgb(encoded(Image.fromarray(pixels), format_, **options))

    assert (decoded.shape, decoded.dtype) == ((90, 120, 3), np.uint8)
    tolerance = 12 if format_ == "GIF" else 4  # a palette of 256 colours
    assert np.abs(decoded.astype(int) - pixels).mean() < tolerance


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_upright_as_exif_says(format_, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient()), format_, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))

    decoded = decode_rgb(data)

    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 2
    assert decoded.flags.c_contiguous


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_is_no_obstacle():
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")

    assert decode_rgb(data).shape == (90, 120, 3)


@pytest.mark.parametrize(
    ("mode", "format_"), [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("I;16", "PNG")]
)
def test_other_colour_modes_become_rgb(mode, format_):
    grey = gradient()[..., 1]
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) << 8)
    else:
        image = (
            Image.fromarray(grey).convert(mode) if mode == "P" else Image.fromarray(grey).convert("RGB").convert(mode)
        )
    expected = grey if mode != "1" else np.asarray(image.convert("L"))

    decoded = decode_rgb(encoded(image, format_))

    assert decoded.shape == (90, 120, 3)
    assert np.abs(decoded.astype(int) - expected[..., None]).mean() < 4


def test_transparent_parts_are_shown_on_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (10, 20, 30, 255)

    decoded = decode_rgb(encoded(Image.fromarray(pixels), "PNG"))

    assert decoded[0, 0].tolist() == [10, 20, 30]
    assert decoded[3, 3].tolist() == [255, 255, 255]


def test_a_large_jpeg_is_decoded_smaller_but_never_below_what_is_asked():
    data = encoded(Image.fromarray(gradient(800, 1000)), "JPEG")

    assert decode_rgb(data, at_least=256).shape == (300, 375, 3)
    assert decode_rgb(data, at_least=301).shape == (400, 500, 3)
    assert decode_rgb(data, at_least=700).shape == (800, 1000, 3)
    assert decode_rgb(data, at_least=2000).shape == (800, 1000, 3)
    assert decode_rgb(data).shape == (800, 1000, 3)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 nor this"])
def test_what_is_no_picture_is_an_image_error(data):
    with pytest.raises(ImageError):
        decode_rgb(data)


def test_a_bomb_is_refused_from_its_header():
    jpeg = bytearray(encoded(Image.fromarray(gradient()), "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = b"\xff\xff\xff\xff"  # 65,535 pixels a side
    png = encoded(Image.new("1", (20_000, 20_000)), "PNG")

    for data in (bytes(jpeg), png):
        with pytest.raises(ImageError, match="pixels"):
            decode_rgb(data)


def test_the_crop_is_the_middle_at_seven_eighths_of_the_shorter_side():
    pixels = np.zeros((256, 400, 3), np.uint8)
    pixels[16:240, 88:312] = 200

    assert np.array_equal(resize_center_crop(pixels), np.full((224, 224, 3), 200))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (500, 20), (224, 224)])
def test_any_size_becomes_224_pixels_a_side(shape):
    assert resize_center_crop(np.zeros((*shape, 3), np.uint8)).shape == (224, 224, 3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (500, 20), (224, 224), (400, 533), (2000, 1500)])
def test_torch_resizes_as_pillow_does_to_within_a_rounding(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels.flags.writeable = False  # as Pillow gives them

    with warnings.catch_warnings(action="error"):
        fast = resize_center_crop_with_torch(pixels)

    assert (fast.shape, fast.dtype) == ((224, 224, 3), np.uint8)
    difference = np.abs(resize_center_crop(pixels).astype(int) - fast)
    assert difference.max() <= 2
    assert difference.mean() < 0.05
