"""Smaller decoding, and the crop that networks see. What becomes of each kind of file is in test_odd_files."""

import warnings

import numpy as np
import pytest
from PIL import Image

from dlassets.images.decode import ImageError, decode_rgb, resize_center_crop, viewable
from dlassets_tests.images.corpus import encoded, heif, scene


def test_a_large_jpeg_is_decoded_smaller_but_never_below_what_is_asked():
    data = encoded(scene(800, 1000), "JPEG")

    assert decode_rgb(data, at_least=256).shape == (300, 375, 3)
    assert decode_rgb(data, at_least=301).shape == (400, 500, 3)
    assert decode_rgb(data, at_least=700).shape == (800, 1000, 3)
    assert decode_rgb(data, at_least=2000).shape == (800, 1000, 3)
    assert decode_rgb(data).shape == (800, 1000, 3)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 nor this"])
def test_what_is_no_picture_is_an_image_error(data):
    with pytest.raises(ImageError):
        decode_rgb(data)


def test_the_crop_is_the_middle_at_seven_eighths_of_the_shorter_side():
    pixels = np.zeros((256, 400, 3), np.uint8)
    pixels[16:240, 88:312] = 200

    assert np.array_equal(resize_center_crop(pixels), np.full((224, 224, 3), 200))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (500, 20), (224, 224)])
def test_any_size_becomes_224_pixels_a_side(shape):
    assert resize_center_crop(np.zeros((*shape, 3), np.uint8)).shape == (224, 224, 3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (500, 20), (224, 224), (400, 533), (2000, 1500)])
def test_it_is_resized_as_pillow_does_to_within_a_rounding(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels.flags.writeable = False  # as Pillow gives them

    with warnings.catch_warnings(action="error"):
        shown = resize_center_crop(pixels)

    assert shown.shape == (224, 224, 3)
    assert shown.dtype == np.uint8
    side = round(min(shape) * 0.875) or 1
    top, left = ((length - side) // 2 for length in shape)
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(middle.resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(expected - shown)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@pytest.mark.parametrize("format_", ["HEIC", "AVIF"])
def test_people_are_shown_a_jpeg_of_what_few_programs_open(format_):
    photo, jpeg = heif(scene(), format_), encoded(scene(), "JPEG")

    shown = viewable(photo)

    assert shown.startswith(b"\xff\xd8\xff")
    assert np.abs(decode_rgb(shown).astype(int) - scene()).mean() < 8
    assert viewable(jpeg) is jpeg
