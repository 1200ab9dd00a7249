"""What a JPEG's header says to those that choose its decoder; what becomes of each kind of file: test_odd_files."""

import pytest

from dlassets.images.jpeg import Header, read_header
from dlassets_tests.images.corpus import after_soi, encoded, scene, segment

COMMENT, QUANTIZATION, APP14 = 0xFE, 0xDB, 0xEE
JPEG = encoded(scene(8, 8), "JPEG")


@pytest.mark.parametrize("marker", [COMMENT, QUANTIZATION, APP14])
def test_segments_that_say_nothing_change_nothing(marker: int) -> None:
    odd_inside = segment(marker, b"\xff\xc2 no frame")

    assert read_header(after_soi(JPEG, segment(marker, b""), odd_inside)) == Header(0xC0, True, (8, 8), 3, b"", b"")


@pytest.mark.parametrize("between", [b"\0", b"more", b"\0\xfe\0\2"], ids=["a zero", "text", "like a comment"])
def test_what_stands_between_segments_leaves_the_picture_to_pillow(between: bytes) -> None:
    header = read_header(after_soi(JPEG, segment(COMMENT, b"first"), between))

    assert header is not None
    assert not header.is_for_simplejpeg
