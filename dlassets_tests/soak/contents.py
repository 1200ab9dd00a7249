"""What a file may hold and be called: good pictures of every format, bad ones of every reason, odd names."""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# Of each format so many pictures. Those of a BMP are all of one length.
PICTURES = 4

# Parent folders by zone. The labelled zone's rule is a number first, so the last two there say no label.
FOLDERS = {
    "labeled": ("001.cat", "012_dog", "7", "2026/003.bird", "003.bird #2 100%", "cats", ""),
    "unlabeled": ("", "2026/01", "a/b/c/d", "über uns/写真", 'it\'s 100% "odd" #1', "new\nline"),
}
PLAIN = ("a.jpg", "A.jpg", "b.png", "c", "with  spaces .jpg", "é composed.jpg", "e\u0301 combined.jpg", "写真 📷.jpg")
ESCAPED = ("100%.jpg", "%41%2F.jpg", "a#b?c=d&e.jpg", "it's.jpg", "''.jpg", '"quoted".jpg', "back\\slash.jpg")
CODE = ("line\nbreak\r\t.jpg", "co:lon*[s].jpg", "`tick` ${x} {y}.jpg", "-- ; DROP TABLE raw_images.jpg")
ODD = ("x" * 251 + ".jpg", "null", "no text ‰FF‰80.jpg")  # as tables have it: the last one's bytes are no UTF-8
HIDDEN = (".hidden.jpg", "_temporary/part.jpg")  # no zone looks at these
NAMES = (*PLAIN, *ESCAPED, *CODE, *ODD, *HIDDEN)


@dataclass(frozen=True)
class Content:
    """The bytes of a file, and why they are no usable image; None where they are one."""

    data: bytes
    reason: str | None = None


@functools.cache
def good() -> tuple[Content, ...]:
    shades = range(10, 10 + 40 * PICTURES, 40)
    return tuple(Content(_picture(format_, shade)) for shade in shades for format_ in FORMATS)


@functools.cache
def bad() -> tuple[Content, ...]:
    """Bad by their bytes alone. What is too large, unreadable or in a bad folder is so by other things."""
    jpeg, png, gif, bmp = (_picture(format_, 77) for format_ in ("JPEG", "PNG", "GIF", "BMP"))
    frame = jpeg.index(b"\xff\xc0") + 5
    return (
        Content(b"", "empty"),
        Content(jpeg[: len(jpeg) // 2], "truncated"),
        Content(png[:-20], "truncated"),
        Content(bmp[:-9], "truncated"),
        Content(b"no picture at all", "not_an_image"),
        Content(bytes(200), "not_an_image"),
        Content(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        Content(_picture("PPM", 77), "format_not_allowed"),
        Content(b"\0\0\0\x18ftypavif" + bytes(60), "truncated"),
        Content(jpeg[:frame] + struct.pack(">HH", 60_000, 60_000) + jpeg[frame + 4 :], "too_large"),
        Content(gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:], "too_large"),
    )


def _picture(format_: str, shade: int) -> bytes:
    out = io.BytesIO()
    picture = Image.linear_gradient("L").resize((24, 16))
    Image.merge("RGB", (picture, Image.new("L", picture.size, shade), picture.rotate(180))).save(out, format_)
    return out.getvalue()
