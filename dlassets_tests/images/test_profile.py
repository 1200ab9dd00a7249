import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dlassets.images.profile import profile, profile_images, sharpness
from dlassets.lakehouse.tables import IMAGE_PROFILES


def encoded(image, format_="PNG", **options):
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def test_the_kernel_gives_the_table_s_columns():
    import pyarrow as pa

    data = encoded(Image.new("RGB", (200, 100), (255, 255, 255)))
    batch = pa.RecordBatch.from_pydict({"image_id": ["a", "b"], "content": [data, data]})

    described = profile_images(batch)

    assert described.schema == IMAGE_PROFILES.schema
    rows = described.to_pylist()
    assert [row.pop("image_id") for row in rows] == ["a", "b"]
    thumbnail = Image.open(io.BytesIO(rows[0].pop("thumbnail")))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (96, 48))
    assert rows[0] == {
        "width": 200,
        "height": 100,
        "channels": 3,
        "mode": "RGB",
        "brightness": 255.0,
        "sharpness": 0.0,
    }


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4), ("P", 1), ("LA", 2)])
def test_mode_and_channels_are_as_stored(mode, channels):
    row = profile(encoded(Image.new(mode, (5, 5))))

    assert (row["mode"], row["channels"]) == (mode, channels)


def test_sizes_are_those_of_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    row = profile(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif))

    assert (row["width"], row["height"]) == (20, 40)
    assert Image.open(io.BytesIO(row["thumbnail"])).size == (20, 40)


def test_sharpness_is_the_variance_of_the_laplacian():
    luminance = np.zeros((5, 5), np.uint8)
    luminance[2, 2] = 100

    # The nine inner values are -400 once, 100 four times, 0 four times: mean 0, mean square 200,000 / 9.
    assert sharpness(luminance) == pytest.approx(200_000 / 9)
    assert sharpness(np.zeros((2, 9), np.uint8)) == 0.0


def test_a_blurred_picture_is_less_sharp():
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    image = Image.fromarray(noise)

    sharp, blurred = profile(encoded(image)), profile(encoded(image.filter(ImageFilter.GaussianBlur(2))))

    assert blurred["sharpness"] < sharp["sharpness"] / 10
    assert blurred["brightness"] == pytest.approx(sharp["brightness"], abs=2)
