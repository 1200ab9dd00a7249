import datetime as dt
import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from dlassets.images.capture import capture
from dlassets.lakehouse.tables import CAPTURE
from dlassets_tests.images.corpus import after_soi, heif, odd_files, segment

NOTHING = {column.name: None for column in CAPTURE}
MAKER, MODEL, PHOTO, PLACE, TAKEN, OFFSET = 0x010F, 0x0110, 0x8769, 0x8825, 0x9003, 0x9011
FORMATS = {
    "JPEG": {},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "big TIFF": {"big_tiff": True},
    "HEIC": {},
    "AVIF": {},
}


def exif(device=None, photo=None, place=None):
    block = Image.Exif()
    block.update(device or {})
    for pointer, tags in ((PHOTO, photo), (PLACE, place)):
        if tags:
            block.get_ifd(pointer).update(tags)
            block[pointer] = 0  # Pillow puts the place in where it writes
    return block


def photo_with(block, format_="JPEG", **options):
    picture = Image.new("RGB", (8, 8))
    return heif(picture, format_.removeprefix("big "), exif=block.tobytes(), **FORMATS[format_], **options)


def taken(text, offset=None):
    return capture(photo_with(exif(photo={TAKEN: text} | ({OFFSET: offset} if offset else {}))))["taken_at"]


def place(latitude=(52, 30, 36), north="N", longitude=(13, 22, 30), east="E"):
    tags = {1: north, 2: latitude, 3: east, 4: longitude}
    found = capture(photo_with(exif(place={tag: value for tag, value in tags.items() if value is not None})))
    return found["latitude"], found["longitude"]


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_with_exif_says_when_with_what_and_where(format_):
    block = exif(
        {MAKER: "Canon", MODEL: "EOS 5D"},
        {TAKEN: "2024:02:29 23:30:15", OFFSET: "-05:30"},
        {1: "S", 2: (33, 51, 54.5), 3: "W", 4: (70, 40, 0)},
    )

    found = capture(photo_with(block, format_))

    assert found == {
        "taken_at": dt.datetime(2024, 3, 1, 5, 0, 15, tzinfo=dt.UTC),
        "camera": "Canon EOS 5D",
        "latitude": pytest.approx(-33.865139, abs=1e-6),
        "longitude": pytest.approx(-70.666667, abs=1e-6),
    }
    assert list(found) == [column.name for column in CAPTURE]


def test_what_it_gives_fits_the_columns():
    import pyarrow as pa

    from dlassets.engines.schema import arrow_type

    row = capture(photo_with(exif({MODEL: "X"}, {TAKEN: "2024:01:02 03:04:05"}, {1: "N", 2: (1, 2, 3)})))
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in CAPTURE])

    assert pa.Table.from_pylist([row, NOTHING], schema=schema).to_pylist() == [row, NOTHING]


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("2024:01:02 03:04:05", None, (2024, 1, 2, 3, 4, 5)),
        ("2024:01:02 03:04:05", "+00:00", (2024, 1, 2, 3, 4, 5)),
        ("2024:01:02 03:04:05", "+09:00", (2024, 1, 1, 18, 4, 5)),
        ("2024:01:02 03:04:05", "   :  ", (2024, 1, 2, 3, 4, 5)),
        ("2024:01:02 03:04:05", "nine", (2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05", None, (2024, 1, 2, 3, 4, 5)),
        ("2024:01:02 03:04:05\0rest", None, (2024, 1, 2, 3, 4, 5)),
        ("0001:01:01 00:00:00", "+14:00", None),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("2023:02:29 00:00:00", None, None),
        ("2024:01:02 24:00:00", None, None),
        ("2024:01:02 23:59:60", None, None),
        ("yesterday", None, None),
    ],
)
def test_the_time_is_the_camera_s_with_its_zone_where_it_noted_one(text, offset, expected):
    at = expected and dt.datetime(*expected, tzinfo=dt.UTC)  # type: ignore[misc]  # `expected` has no zone
    assert taken(text, offset) == at


@pytest.mark.parametrize(
    ("maker", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("LG Electronics", "LG-H815", "LG-H815"),
        ("Panasonic", "DMC-LX3", "Panasonic DMC-LX3"),
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("Apple", None, "Apple"),
        (None, "iPhone 15", "iPhone 15"),
        ("  SONY \0 ", "  DSC   W50 ", "SONY DSC W50"),
        (" ", " ", None),
        (None, None, None),
    ],
)
def test_the_camera_is_maker_and_model_and_the_maker_only_once(maker, model, camera):
    tags = {MAKER: maker, MODEL: model}

    assert capture(photo_with(exif({k: v for k, v in tags.items() if v is not None})))["camera"] == camera


def test_degrees_have_the_sign_of_their_side():
    assert place() == (pytest.approx(52.51), pytest.approx(13.375))
    assert place(north="s", east="w") == (pytest.approx(-52.51), pytest.approx(-13.375))
    assert place((90, 0, 0), "N", (180, 0, 0), "W") == (90, -180)
    assert place((0, 0, 0), "N", (0, 0, 0), "E") == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"latitude": None},
        {"latitude": (90, 0, 1)},
        {"latitude": (91, 0, 0)},
        {"latitude": (52, 30)},
        {"latitude": (52, IFDRational(0, 0), 0)},
        {"latitude": (52, IFDRational(1, 0), 0)},
        {"north": None},
        {"north": "E"},
        {"north": ""},
        {"north": "NS"},
    ],
)
def test_one_broken_coordinate_is_none_and_leaves_the_other(change):
    assert place(**change) == (None, pytest.approx(13.375))


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"GIF89a", bytes(99)],
)
def test_without_exif_there_is_nothing(data):
    assert capture(data) == NOTHING


def test_no_file_of_the_corpus_is_an_error():
    for odd in odd_files().values():
        assert capture(odd.data).keys() == NOTHING.keys()


def test_the_pixels_are_not_looked_at():
    block = exif({MODEL: "X"})
    for format_ in ("JPEG", "PNG"):
        data = photo_with(block, format_)
        cut = data[: data.index(b"\xff\xda" if format_ == "JPEG" else b"IDAT")]

        assert capture(cut)["camera"] == "X"


def test_exif_behind_other_segments_and_chunks_and_behind_a_png_s_pixels_is_found():
    block = exif({MODEL: "X"})
    jpeg = photo_with(Image.Exif())
    late = after_soi(jpeg, *[segment(0xE2, bytes(65_000))] * 3, segment(0xE1, block.tobytes()))
    png = photo_with(block, "PNG")
    start, end = png.index(b"eXIf") - 4, png.index(b"IDAT") - 4
    behind = png[:start] + png[end:-12] + png[start:end] + png[-12:]

    odd_sized = photo_with(block, "WEBP", icc_profile=b"n" * 129)

    assert capture(odd_sized)["camera"] == "X"
    assert capture(late)["camera"] == "X"
    assert capture(behind)["camera"] == "X"


def test_a_directory_that_points_at_itself_ends():
    block = bytearray(exif({MODEL: "X"}, {TAKEN: "2024:01:02 03:04:05"}).tobytes()[6:])
    at = block.index(b"\x69\x87" if block[:1] == b"I" else b"\x87\x69")
    order: Literal["little", "big"] = "little" if block[:1] == b"I" else "big"
    block[at + 8 : at + 12] = (8).to_bytes(4, order)

    assert capture(bytes(block)) == NOTHING | {"camera": "X"}


WHOLE = photo_with(
    exif(
        {MAKER: "M", MODEL: "N"},
        {TAKEN: "2024:01:02 03:04:05", OFFSET: "+01:00"},
        {1: "N", 2: (1, 2, 3), 3: "E", 4: (4, 5, 6)},
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 420), st.integers(0, 255)), max_size=8), st.integers(0, len(WHOLE)))
def test_broken_exif_is_never_an_error(flips, kept):
    data = bytearray(WHOLE)
    for at, value in flips:
        data[at % len(data)] = value

    found = capture(bytes(data[:kept]))

    assert found.keys() == NOTHING.keys()
    assert found["taken_at"] is None or found["taken_at"].tzinfo == dt.UTC
    assert found["latitude"] is None or math.fabs(found["latitude"]) <= 90
    assert found["longitude"] is None or math.fabs(found["longitude"]) <= 180
    (found["camera"] or "").encode()
