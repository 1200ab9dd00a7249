import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dlassets.images import decode
from dlassets.images import profile as profiling
from dlassets.images.decode import decode_rgb
from dlassets.images.near_duplicates import DISTANCE
from dlassets.images.profile import perceptual_hash, profile, sharpness
from dlassets.lakehouse.profiles import profile_images
from dlassets.lakehouse.tables import IMAGE_PROFILES
from dlassets.samples.generated import generate
from dlassets_tests.images.corpus import encoded
from dlassets_tests.programs import python


def test_the_kernel_gives_the_table_s_columns():
    import pyarrow as pa

    data = encoded(Image.new("RGB", (200, 100), (255, 255, 255)), "PNG")
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
        "perceptual_hash": 0,
    }


def test_mode_and_channels_of_a_jpeg_are_pillow_s():
    modes = [("L", 1), ("RGB", 3), ("CMYK", 4)]
    rows = [profile(encoded(Image.new(mode, (5, 5)), "JPEG")) for mode, _ in modes]

    assert [(row["mode"], row["channels"]) for row in rows] == modes


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4), ("P", 1), ("LA", 2)])
def test_mode_and_channels_are_as_stored(mode, channels):
    row = profile(encoded(Image.new(mode, (5, 5)), "PNG"))

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
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))

    sharp, blurred = (profile(encoded(each, "PNG")) for each in (noise, noise.filter(ImageFilter.GaussianBlur(2))))

    assert blurred["sharpness"] < sharp["sharpness"] / 10
    assert blurred["brightness"] == pytest.approx(sharp["brightness"], abs=2)


def bits_between(one, other):
    return ((one ^ other) & (2**64 - 1)).bit_count()


@pytest.fixture(scope="module")
def pictures(real_photos, tmp_path_factory):
    folder = real_photos
    if folder is None:
        folder = tmp_path_factory.mktemp("pictures")
        generate(folder, classes=4, per_class=5, seed=3)
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".jpg", ".jpeg", ".png"})
    return [Image.open(path).convert("RGB") for path in files[:: max(1, len(files) // 40)]]


def cropped(image):
    left, top = round(image.width / 100), round(image.height / 100)
    return image.crop((left, top, image.width - left, image.height - top))


@pytest.mark.parametrize(
    ("change", "bits"),
    [
        (lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=40))), DISTANCE),
        (lambda image: image.resize((image.width // 2, image.height // 2)), DISTANCE),
        (lambda image: ImageEnhance.Brightness(image).enhance(1.2), 2 * DISTANCE),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.8), DISTANCE),
        (cropped, 3 * DISTANCE),
    ],
    ids=["encoded anew", "half the size", "brighter", "darker", "cropped"],
)
def test_a_copy_has_nearly_the_same_hash(pictures, change, bits):
    changed = [
        bits_between(*(profile(encoded(each, "PNG"))["perceptual_hash"] for each in (image, change(image))))
        for image in pictures
    ]

    assert max(changed) <= bits
    assert np.median(changed) <= DISTANCE


def test_the_hash_fits_a_bigint_and_half_of_its_bits_are_set():
    rng = np.random.default_rng(5)
    hashes = [perceptual_hash(Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))) for _ in range(20)]

    assert {(value & (2**64 - 1)).bit_count() for value in hashes} == {32}
    assert min(hashes) < 0 < max(hashes)
    assert all(-(2**63) <= value < 2**63 for value in hashes)


@pytest.mark.parametrize("colour", [0, 1, 77, 254, 255])
def test_a_picture_of_one_colour_has_no_bits(colour):
    assert perceptual_hash(Image.new("RGB", (96, 60), (colour, colour, colour))) == 0


def test_the_hash_is_that_of_the_paper():
    """Bit by bit from the definition, with sums in place of matrices."""
    grey = np.random.default_rng(8).integers(0, 256, (32, 32), np.uint8)
    places = np.arange(32)
    strengths = [
        (grey * np.outer(np.cos(np.pi * v * (2 * places + 1) / 64), np.cos(np.pi * u * (2 * places + 1) / 64))).sum()
        for v in range(1, 9)
        for u in range(1, 9)
    ]
    expected = "".join("1" if strength > np.median(strengths) else "0" for strength in strengths)

    assert format(perceptual_hash(Image.fromarray(grey)) & (2**64 - 1), "064b") == expected


@pytest.mark.parametrize("name", ["RGB", "RGBA", "CMYK", "I;16", "F", "P"])
def test_a_large_picture_is_described_part_by_part_as_it_is_whole(name, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 220, 4), np.uint8)
    wide = pixels.view(np.uint32)[..., 0].astype(np.float32)
    pictures = {
        "RGB": Image.fromarray(pixels[..., :3].copy()),
        "RGBA": Image.fromarray(pixels),
        "CMYK": Image.fromarray(pixels, "CMYK"),
        "I;16": Image.fromarray(pixels.view(np.uint16)[..., 0].copy()),
        "F": Image.fromarray(wide),
        "P": Image.fromarray(pixels[..., :3].copy()).quantize(9),
    }
    data = encoded(pictures[name], "TIFF")
    whole, decoded = profile(data), decode_rgb(data)

    for module in (decode, profiling):
        monkeypatch.setattr(module, "PIXELS_AT_ONCE", 2500)

    assert np.array_equal(decode_rgb(data), decoded)
    assert profile(data) == {**whole, "sharpness": pytest.approx(whole["sharpness"], rel=1e-6)}
    monkeypatch.setattr(profiling, "_LONGEST_WHOLE", 100)
    smaller = profile(data)
    assert (smaller["brightness"], smaller["width"]) == (whole["brightness"], whole["width"])
    assert Image.open(io.BytesIO(smaller["thumbnail"])).size == Image.open(io.BytesIO(whole["thumbnail"])).size


def test_a_large_picture_takes_little_memory_beside_its_pixels():
    code = """
import json
from PIL import Image
from dlassets.images.profile import profile
from dlassets_tests.images.corpus import encoded
from dlassets_tests.programs import python
def of(name): return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
files = {f: encoded(Image.new("RGBA", (5200, 3000), (9, 99, 9, 200)).convert(mode), f) for f, mode in
         (("PNG", "RGBA"), ("JPEG", "RGB"))}
profile(encoded(Image.new("RGB", (99, 99)), "PNG"))
bytes_a_pixel = {}
for format_, data in files.items():
    open("/proc/self/clear_refs", "w").write("5")
    before = of("VmRSS")
    profile(data)
    bytes_a_pixel[format_] = (of("VmHWM") - before) / 15.6e6
print(json.dumps(bytes_a_pixel))
"""
    found = json.loads(python(code))

    assert found["PNG"] < 9, "seven, and what is done part by part"
    assert found["JPEG"] < 6
