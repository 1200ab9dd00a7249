"""Every file of the corpus through validation and decoding, bombs measured from outside, and random damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dlassets.images.colour import as_srgb
from dlassets.images.decode import ImageError, decode_rgb
from dlassets.images.jpeg import read_header
from dlassets.images.profile import profile
from dlassets.images.validate import Reason, check_image, validate_files
from dlassets_tests.images import corpus
from dlassets_tests.images.corpus import (
    after_soi,
    bare_jpeg,
    encoded,
    many_scans,
    odd_files,
    scene,
    segment,
    shared_tags,
)
from dlassets_tests.programs import python

FILES = odd_files()
MAX_PIXELS = 100_000_000

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_decoded_right_or_quarantined_by_name(name):
    import pyarrow as pa

    odd = FILES[name]
    batch = pa.RecordBatch.from_pydict({"path": ["zone/a"], "length": [len(odd.data)], "content": [odd.data]})
    row = validate_files(batch, max_file_bytes=2**20, max_pixels=MAX_PIXELS).to_pylist()[0]

    assert row["image_id"] == hashlib.sha256(odd.data).hexdigest()
    if isinstance(odd.becomes, Reason):
        assert (row["reason"], bool(row["detail"])) == (odd.becomes, True)
        return
    assert (row["reason"], row["detail"]) == (None, None)
    decoded = decode_rgb(odd.data)
    assert decoded.shape == odd.becomes.shape
    assert np.abs(decoded.astype(int) - odd.becomes).mean() <= odd.within
    assert decoded.flags.c_contiguous
    described = profile(odd.data)
    assert (described["height"], described["width"]) == decoded.shape[:2]
    smaller = decode_rgb(odd.data, at_least=8)
    assert min(smaller.shape[:2]) >= min(8, *decoded.shape[:2])


def test_every_reason_that_bytes_can_have_is_in_the_corpus():
    of_others = {Reason.UNREADABLE, Reason.BAD_LABEL_FOLDER, Reason.LINK_OUTSIDE, Reason.FORMAT_OFF, Reason.FAILED}
    of_bytes = set(Reason) - of_others

    assert {odd.becomes for odd in FILES.values() if isinstance(odd.becomes, Reason)} == of_bytes
    assert sum(isinstance(odd.becomes, Reason) for odd in FILES.values()) >= 70


MEASURE = """
import json, resource, time
from dlassets.images.decode import ImageError, decode_rgb
from dlassets.images.validate import check_image
from dlassets_tests.images import corpus
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
bombs = {name: odd.data for name, odd in corpus._bombs().items()}
metadata = {name: odd.data for name, odd in corpus._told_of().items() if "30 MB" in name}
metadata["tags"] = corpus.shared_tags(60_000, 1_000_000)  # 60 GB, copied
bombs["scans"] = corpus.many_scans(9_000, 500)
bombs["empty scans"] = corpus.empty_scans(9_000, 500)
for warm in (corpus.encoded(corpus.scene(), "TIFF", compression="tiff_lzw"), b"II*\\0" + bytes(9)):
    check_image(warm, 10**8)  # every module loaded
before, slowest, kinds = peak(), 0, set()
for data in metadata.values():
    start = time.process_time()
    kinds.add(str(check_image(data, 10**8)))
    slowest = max(slowest, time.process_time() - start)
for name, data in bombs.items():
    start = time.process_time()
    found = check_image(data, 10**8)
    kinds.add(found and str(found[0]))
    try:
        decode_rgb(data, at_least=256)
        kinds.add(name + " was decoded")
    except ImageError:
        pass
    slowest = max(slowest, time.process_time() - start)
print(json.dumps({"grown": peak() - before, "slowest": slowest, "kinds": sorted(map(str, kinds))}))
"""


def test_bombs_are_refused_with_next_to_no_memory_and_time():
    found = json.loads(python(MEASURE))

    assert found["kinds"] == ["None", "too_large"]
    assert found["grown"] < 16 * 2**20
    assert found["slowest"] < 0.5


def test_a_lossless_jpeg_writes_over_no_memory():
    # simplejpeg, asked for a smaller picture, writes all of it into the small one's place: the process ends.
    code = """
import json
from dlassets.images.decode import decode_rgb
from dlassets.images.validate import check_image
from dlassets_tests.images.corpus import bare_jpeg
data = bare_jpeg(0xC3, bytes(1000 * 1000 // 8), size=(1000, 1000), spectral=0)
print(json.dumps([str(check_image(data, 10**8)), decode_rgb(data, at_least=10).shape]))
"""
    assert json.loads(python(code)) == ["None", [1000, 1000, 3]]


@pytest.mark.parametrize(
    "before", [b"", b"\xff\xff\xff", b"\xff\xd0", b"\xff\xd0\xff\xc0", b"\0\0\0", b"\xff\x01\xff\xc0"]
)
def test_a_lossless_frame_does_not_hide_behind_what_decoders_skip(before):
    lossless, plain = bare_jpeg(0xC3, bytes(8), spectral=0), bare_jpeg(0xC0, bytes(8))

    assert read_header(plain).is_for_simplejpeg
    hidden = read_header(lossless[:2] + before + lossless[2:])
    assert hidden is None or not hidden.is_for_simplejpeg


def test_the_scans_of_the_picture_count_and_not_what_lies_behind_it():
    assert check_image(many_scans(64, 99), MAX_PIXELS) is None
    assert check_image(many_scans(64, 100), MAX_PIXELS)[0] == Reason.TOO_LARGE


def test_tags_that_pixels_need_must_not_add_up_to_more_than_the_file():
    assert check_image(shared_tags(20, 4_000), MAX_PIXELS) is None
    data = corpus.tiff(bytes(4_000), {320: (3, [0] * 768)})
    claiming = data.replace(struct.pack("<HHI", 320, 3, 768), struct.pack("<HHI", 320, 3, 500_000))

    assert check_image(claiming, MAX_PIXELS)[0] == Reason.TOO_LARGE


@pytest.mark.parametrize("beginning", [b"II\0*", b"MM*\0"])
def test_a_tiff_with_its_mark_swapped_is_looked_into_as_well(beginning):
    order = "<" if beginning[:1] == b"I" else ">"
    data = corpus.tiff(bytes(4_000), {1000 + i: (1, [0] * 5) for i in range(3)}, order=order)
    shared = bytearray(corpus.tiff(bytes(4_000), {273: (4, [8] * 1_000_100)}, order=order))

    assert check_image(data, MAX_PIXELS) is None
    assert check_image(beginning + bytes(shared[4:]), MAX_PIXELS)[0] == Reason.TOO_LARGE


def test_a_profile_may_come_in_any_order_and_srgb_under_any_name_is_left_alone():
    profile = corpus.rgb_profile() + bytes(70_000)
    parts = [profile[:40_000], profile[40_000:80_000], profile[80_000:]]
    segments = [segment(0xE2, b"ICC_PROFILE\0" + bytes([i + 1, 3]) + part) for i, part in enumerate(parts)]
    image = Image.fromarray(scene())

    assert read_header(after_soi(encoded(scene(), "JPEG"), *reversed(segments))).profile == profile
    assert as_srgb(image, corpus.rgb_profile(corpus.SRGB_PRIMARIES, 1.8)) is not image
    assert as_srgb(image, corpus.rgb_profile(corpus.SRGB_PRIMARIES, 2.2)) is image
    assert as_srgb(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) is image


def test_a_picture_that_cannot_be_shown_as_rgb_is_refused(monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("conversion from LAB to RGB not supported")

    data = encoded(scene(), "PNG")
    monkeypatch.setattr(Image.Image, "convert", fail)
    monkeypatch.setattr(Image, "getmodebase", lambda _: "L")

    assert check_image(data, MAX_PIXELS)[0] == Reason.FORMAT_NOT_ALLOWED


def test_an_error_that_is_not_known_is_unreadable_with_its_text(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr(Image, "open", fail)

    found = check_image(encoded(scene(), "PNG"), MAX_PIXELS)
    assert found == (Reason.UNREADABLE, "ZeroDivisionError: nobody thought of it")


def test_limits_of_the_decoders_themselves_are_said_whatever_the_setting():
    tall, wide = (check_image(corpus.jpeg_claiming(*size), 2**31) for size in ((65_501, 100), (65_000, 3_000)))

    assert tall == (Reason.TOO_LARGE, "65501x100 pixels, and a JPEG is decoded up to 65500 a side")
    assert wide == (Reason.TOO_LARGE, "65000x3000 pixels, more than the 178956970 that are ever decoded")
    assert check_image(encoded(np.zeros((1, 65_500), np.uint8), "JPEG"), 2**31) is None


def test_a_shortage_of_memory_is_not_taken_for_damage(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)

    assert check_image(encoded(scene(), "PNG"), MAX_PIXELS)[0] == Reason.UNREADABLE


def test_what_is_said_of_a_file_is_never_long():
    import pyarrow as pa

    text = Image.new("RGB", (4, 4))
    png = encoded(text, "PNG")
    hostile = png[:33] + corpus.chunk(b"\xc3\xa9!" + b"x", b"") + png[33:]
    found = [check_image(data, 10) for data in (hostile, b"\xff\xd8\xff" + bytes(9_000), b"GIF89a" + bytes(9_000))]

    assert all(finding is not None and len(finding[1]) <= 500 for finding in found)
    pa.array([finding[1] for finding in found], pa.string())


OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
}
SMALL = {
    format_: encoded(Image.fromarray(scene(12, 20)).convert("RGB"), format_, **options)
    for format_, options in OPTIONS.items()
} | {
    "progressive JPEG": encoded(scene(12, 20), "JPEG", progressive=True),
    "CMYK JPEG": encoded(Image.fromarray(scene(12, 20)).convert("CMYK"), "JPEG"),
    "palette PNG": encoded(Image.fromarray(scene(12, 20)).quantize(4), "PNG", transparency=0),
    "plain TIFF": encoded(scene(12, 20), "TIFF"),
    "JPEG with a profile": encoded(scene(12, 20), "JPEG", icc_profile=corpus.rgb_profile()),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SMALL)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damage_never_raises_and_what_passes_decodes(name, flips, kept):
    data = bytearray(SMALL[name])
    for place, value in flips:
        data[int(place * len(data))] = value
    file = bytes(data[: int(len(data) * kept)])

    finding = check_image(file, 1_000_000)

    if finding is None:
        assert decode_rgb(file).dtype == np.uint8
        return
    assert isinstance(finding[0], Reason)
    with contextlib.suppress(ImageError):
        decode_rgb(file)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_bytes_of_any_kind_have_a_reason(data):
    assert isinstance((check_image(data, 1_000_000) or [None])[0], Reason)
