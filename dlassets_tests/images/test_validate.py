import datetime as dt
import functools
import hashlib
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlassets.images.folders import LabelRule
from dlassets.images.validate import Reason, check_image, validate_files
from dlassets.settings import FORMATS, LABEL_RULE
from dlassets_tests.images.corpus import encoded, heif, jpeg_claiming, scene

# Days, ranges of numbers, and the sides of a split.
NO_CLASSES = ("2026-11-26", "20261126", "2026.11", "2026/11", "2026/3/26", "0-10", "10_20", "train", "Val", "test")
RULE = r"^(?P<label>\d+)(?:[._ -]+(?P<name>.+))?$"
LIMITS: dict[str, Any] = {"max_file_bytes": 100_000, "max_pixels": 1_000_000}


def photo(format_="JPEG", size=(60, 40), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(pixels, format_, **options)


def batch_of(*files):
    import pyarrow as pa

    arrived = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("modificationTime", pa.timestamp("us", tz="UTC")),
            ("length", pa.int64()),
            ("content", pa.binary()),
        ]
    )
    rows = [
        {"path": path, "modificationTime": arrived, "length": length, "content": content}
        for path, length, content in files
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def test_a_good_file_keeps_its_columns_and_gets_its_hash():
    data = photo()
    batch = batch_of(("unlabeled/a.jpg", len(data), data))

    checked = validate_files(batch, **LIMITS)

    assert checked.select(batch.schema.names).equals(batch)
    assert checked.schema.names == [*batch.schema.names, "image_id", "reason", "detail"]
    assert checked.to_pylist()[0]["image_id"] == hashlib.sha256(data).hexdigest()
    assert (checked.to_pylist()[0]["reason"], checked.to_pylist()[0]["detail"]) == (None, None)


def test_each_bad_file_says_its_reason_and_spoils_no_other():
    good, wide = photo(), encoded(Image.new("RGB", (1001, 1000)), "JPEG")
    batch = batch_of(
        ("unlabeled/good.jpg", len(good), good),
        ("unlabeled/empty.jpg", 0, b""),
        ("unlabeled/lost.jpg", 12, None),
        ("unlabeled/huge.jpg", 100_001, None),
        ("unlabeled/text.jpg", 5, b"hello"),
        ("unlabeled/cut.jpg", 700, good[:700]),
        ("unlabeled/short.jpg", len(good) + 1, good),
        ("unlabeled/wide.jpg", 1, wide),
        ("unlabeled/icon.jpg", 1, photo("ICO")),
        ("unlabeled/heic.jpg", 24, b"\0\0\0\x18ftypheic" + bytes(12)),
        ("unlabeled/last.jpg", len(good), good),
    )

    checked = validate_files(batch, **LIMITS).to_pylist()

    found = {row["path"].removeprefix("unlabeled/"): row["reason"] for row in checked}
    assert found == {
        "good.jpg": None,
        "empty.jpg": Reason.EMPTY,
        "lost.jpg": Reason.UNREADABLE,
        "huge.jpg": Reason.TOO_LARGE,
        "text.jpg": Reason.NOT_AN_IMAGE,
        "cut.jpg": Reason.TRUNCATED,
        "short.jpg": Reason.TRUNCATED,
        "wide.jpg": Reason.TOO_LARGE,
        "icon.jpg": Reason.FORMAT_NOT_ALLOWED,
        "heic.jpg": Reason.TRUNCATED,
        "last.jpg": None,
    }
    assert "1001x1000 pixels" in checked[7]["detail"]
    assert all(row["detail"] for row in checked if row["reason"])
    assert [row["image_id"] is None for row in checked] == [row["content"] is None for row in checked]


@pytest.mark.parametrize("format_", ["HEIC", "AVIF"])
def test_a_photo_whose_format_is_off_is_told_from_one_that_is_broken_and_says_what_turns_it_on(format_):
    data = heif(scene(), format_)

    assert check_image(data, 10_000) is None
    on = [name for name in FORMATS if name != format_]
    assert check_image(data, 10_000, on) == (
        Reason.FORMAT_OFF,
        f"{format_} is off: name it in ingest.formats, and these photos come in",
    )
    assert check_image(photo("JPEG"), 10_000, on) is None


def test_without_its_extra_a_heic_says_which_one_it_needs_and_an_avif_does_not_mind(lacking):
    with lacking("heif"):
        finding = check_image(heif(scene(), "HEIC"), 10_000)
        assert check_image(heif(scene(), "AVIF"), 10_000) is None

    assert (finding[0], finding[1].split(":")[0]) == (Reason.FORMAT_OFF, "HEIC is off")
    assert "pip install 'dlassets[heif]'" in finding[1]


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("a/1.mp4", b"\0\0\0\x18ftypmp42" + bytes(40), "videos are not taken in: save the frames"),
        ("a/1.CR3", b"\0\0\0\x18ftypcrx " + bytes(40), "RAW photos are not taken in: export them as JPEG or TIFF"),
        ("a/1.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "RAW photos are not taken in: export them as JPEG or TIFF"),
        ("a/1.nef", photo("TIFF"), "RAW photos are not taken in: export them as JPEG or TIFF"),
        ("a/1.psd", b"8BPS" + bytes(40), "Photoshop documents are not taken in: export them as JPEG or PNG"),
        ("a/1.svg", b'<?xml version="1.0"?>\n<svg/>', "drawings are not taken in: export them as PNG"),
        ("a/1.zip", b"PK\3\4" + bytes(40), "archives are not taken in: unpack them"),
        ("a/1.ico", photo("ICO"), "ICO is not taken in: convert it to one of JPEG, PNG"),
        ("a/1.txt", b"a note", "no picture that is known: it begins with b'a note'"),
    ],
)
def test_what_is_never_taken_in_says_what_to_do(path, data, expected):
    row = validate_files(batch_of((path, len(data), data)), **LIMITS).to_pylist()[0]

    assert row["reason"] in {Reason.FORMAT_NOT_ALLOWED, Reason.NOT_AN_IMAGE}
    assert row["detail"].startswith(expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_cut_anywhere_is_truncated(options):
    data = photo(size=(24, 24), **options)

    assert check_image(data, 10_000) is None
    passed = [cut for cut in range(3, len(data)) if (check_image(data[:cut], 10_000) or [None])[0] != Reason.TRUNCATED]
    assert passed == []


def test_a_bomb_is_refused_from_its_header_however_many_pixels_are_allowed():
    for bomb in (jpeg_claiming(65_535, 65_535), encoded(Image.new("1", (20_000, 20_000)), "PNG")):
        assert check_image(bomb, 10**12)[0] == Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("path", "rule", "expected"),
    [
        ("labeled/012.name/a.jpg", RULE, None),
        ("labeled/deep/012.name/a.jpg", RULE, None),
        ("labeled/7/a.jpg", RULE, None),
        ('labeled/012.it\'s a #1 "café" 100%/a.jpg', RULE, None),
        ("labeled/012.caf‰E9/a.jpg", RULE, None),
        ("labeled/012.two\nlines/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        (f"labeled/{'9' * 250}/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        ("labeled/012.name/deep/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        ("labeled/name/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        ("labeled/name/a.jpg", LABEL_RULE, None),
        ("labeled/train/name/a.jpg", LABEL_RULE, None),
        ("labeled/a.jpg", LABEL_RULE, Reason.BAD_LABEL_FOLDER),
        *((f"labeled/{folder}/a.jpg", LABEL_RULE, Reason.BAD_LABEL_FOLDER) for folder in NO_CLASSES),
        ("012/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        ("labeled/99999999999999999999/a.jpg", RULE, Reason.BAD_LABEL_FOLDER),
        ("labeled/twelve/a.jpg", r"(?P<label>\w+)", Reason.BAD_LABEL_FOLDER),
        ("unlabeled/name/a.jpg", None, None),
    ],
)
def test_a_labelled_zones_folder_must_give_a_label(path, rule, expected):
    data = photo()

    checked = validate_files(batch_of((path, len(data), data)), **LIMITS, label_rule=rule and LabelRule(rule))

    assert checked.column("reason").to_pylist() == [expected]


@pytest.mark.parametrize(("name", "expected"), [("cat.0.jpg", None), ("0.jpg", Reason.BAD_LABEL_FOLDER)])
def test_a_zone_s_paths_may_have_to_give_a_label(name, expected):
    data = photo()
    rule = LabelRule(r"(?P<name>[a-z]+)\.\d+\.jpg$", of_path=True)

    checked = validate_files(batch_of((f"pets/train/{name}", len(data), data)), **LIMITS, label_rule=rule)

    assert checked.column("reason").to_pylist() == [expected]


def test_bound_to_its_limits_the_kernel_pickles():
    data = photo()
    kernel = pickle.loads(pickle.dumps(functools.partial(validate_files, **LIMITS, label_rule=LabelRule(RULE))))

    assert kernel(batch_of(("labeled/1/a.jpg", len(data), data))).column("reason").to_pylist() == [None]


def test_a_batch_of_no_rows_gives_no_rows():
    assert validate_files(batch_of(), **LIMITS).num_rows == 0
