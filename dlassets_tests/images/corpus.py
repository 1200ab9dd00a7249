"""Files as they arrive: good, odd, damaged and hostile ones, each with what must become of it.

Everything is drawn or put together here byte by byte; nothing is read from disk.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin

from dlassets.images.validate import Reason

Pixels = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 48, 32
HUGE = 60_000
# The linear-light colours of wide primaries, nearly those of Adobe RGB, as XYZ under D50: red, green, blue.
WIDE_PRIMARIES = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


@dataclass(frozen=True)
class Odd:
    """One file, and what must become of it: a reason, or these pixels but for `within` (the largest mean error)."""

    data: bytes
    becomes: Reason | Pixels
    within: float = 0.0


def scene(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """A smooth picture whose corners differ, so that lossy formats keep it and a turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + y * 180 // height, 30 + x * 200 // width, 200 - y * 100 // height], axis=-1).astype(np.uint8)


def flat(colour: Sequence[int], height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def as_rgb(grey: npt.NDArray[Any]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


GREY = scene()[..., 1]
GREY_RGB = as_rgb(GREY)
SIXTEEN_BITS = GREY.astype(np.uint16) * 257
# White at the left, black at the right.
BITS = np.arange(WIDTH)[None].repeat(HEIGHT, axis=0) < WIDTH // 2
HALVES = as_rgb(BITS * 255)
# A colour above and nothing below, and how that looks on white.
TRANSPARENT_BELOW, ON_WHITE = np.zeros((HEIGHT, WIDTH, 4), np.uint8), flat((255, 255, 255))
TRANSPARENT_BELOW[: HEIGHT // 2] = (10, 20, 30, 255)
ON_WHITE[: HEIGHT // 2] = (10, 20, 30)
NO = Reason.FORMAT_NOT_ALLOWED


def encoded(image: Image.Image | npt.NDArray[Any], format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format_, **options)
    return out.getvalue()


# --- JPEG -------------------------------------------------------------------------------------------------------------


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def after_soi(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def bare_jpeg(
    sof: int, scan: bytes, *, size: tuple[int, int] = (8, 8), precision: int = 8, spectral: int = 63
) -> bytes:
    """A greyscale JPEG put together by hand, with `scan` as its entropy-coded data and one-symbol Huffman tables."""
    frame = segment(sof, struct.pack(">BHHB", precision, *size[::-1], 1) + bytes([1, 0x11, 0]))
    huffman = bytes([0, 1, *[0] * 15, 0]) + bytes([0x10, 1, *[0] * 15, 0])  # the code 0 is symbol 0
    tables = segment(0xDB, b"\0" + b"\1" * 64) + frame + segment(0xC4, huffman)
    sos = segment(0xDA, bytes([1, 1, 0, 1 if sof == 0xC3 else 0, spectral, 0]))
    return b"\xff\xd8" + tables + sos + scan + b"\xff\xd9"


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG, grey all over, that goes over its pixels again and again in a few hundred bytes a time."""
    blocks = ((side + 7) // 8) ** 2
    runs = -(-blocks // 2**14)  # code 0 and 14 zero bits: this block and 16,383 more have nothing to add
    head = bare_jpeg(0xC2, bytes(-(-blocks // 8)), size=(side, side), spectral=0)[:-2]
    table = segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(-(-runs * 15 // 8))
    return head + table + scan * scans + b"\xff\xd9"


def empty_scans(side: int, scans: int) -> bytes:
    """A sequential JPEG of three components, each of which comes again and again, with nothing in it."""
    frame = segment(0xC0, struct.pack(">BHHB", 8, side, side, 3) + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3)))
    grey = bare_jpeg(0xC0, b"")
    start, end = grey.index(b"\xff\xc0"), grey.index(b"\xff\xc4")
    head = grey[:start] + frame + grey[end : grey.index(b"\xff\xda")]
    each = b"".join(segment(0xDA, bytes([1, i, 0, 0, 63, 0])) for i in (1, 2, 3))
    return head + each * (scans // 3) + b"\xff\xd9"


def ycck(cmyk: Image.Image) -> bytes:
    """A JPEG as Photoshop writes CMYK: its inks stored as luminance and colour differences, and black as it is."""
    inks = np.asarray(cmyk)
    stored = np.asarray(Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    # Pillow inverts what it writes; Adobe's segment ends with how the colours are stored.
    jpeg = encoded(Image.fromarray(np.dstack([255 - stored, inks[..., 3]]), "CMYK"), "JPEG", quality=95)
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + b"\2" + jpeg[at + 1 :]


def jpeg_claiming(width: int, height: int) -> bytes:
    jpeg = bytearray(encoded(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg)


# --- PNG --------------------------------------------------------------------------------------------------------------

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes, interlace: int = 0) -> bytes:
    """`rows` are the filtered rows, not yet compressed; `before` are chunks that come before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"".join([PNG_MAGIC, chunk(b"IHDR", header), *before, pixels, chunk(b"IEND", b"")])


def png_rows(samples: npt.NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in samples)


# --- TIFF -------------------------------------------------------------------------------------------------------------

_TIFF_CODES = {1: "B", 3: "H", 4: "I"}
Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(data: bytes, tags: Tags, *, order: str = "<", width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """An uncompressed TIFF of one strip. `tags` are (type, values) by number, and win over the usual ones."""
    usual = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 273: (4, [8])}
    usual |= {277: (3, [1]), 278: (4, [height]), 279: (4, [len(data)])}
    entries, extra = b"", b""
    directory_at = 8 + len(data) + len(data) % 2
    every = sorted({**usual, **tags}.items())
    extra_at = directory_at + 2 + 12 * len(every) + 4
    for number, (type_, values) in every:
        packed = struct.pack(f"{order}{len(values)}{_TIFF_CODES[type_]}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{order}I", extra_at + len(extra)), extra + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack(f"{order}HHI", number, type_, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory_at)
    count = struct.pack(f"{order}H", len(every))
    return head + data + b"\0" * (len(data) % 2) + count + entries + bytes(4) + extra


def shared_tags(tags: int = 500, size: int = 4_000) -> bytes:
    """A small TIFF whose tags all have the same bytes as their value: a reader that copies them has gigabytes soon."""
    head = tiff(bytes(WIDTH * HEIGHT), {})
    directory = struct.unpack_from("<I", head, 4)[0]
    (count,) = struct.unpack_from("<H", head, directory)
    usual = head[directory + 2 : directory + 2 + 12 * count]
    values_at = directory + 2 + 12 * (count + tags) + 4
    shared = b"".join(struct.pack("<HHII", 1000 + i, 7, size, values_at) for i in range(tags))
    return head[:directory] + struct.pack("<H", count + tags) + usual + shared + bytes(4) + bytes(size)


# --- HEIC and AVIF ----------------------------------------------------------------------------------------------------


def heif(image: Image.Image | npt.NDArray[Any], format_: str, **options: Any) -> bytes:
    """HEIC or AVIF; of EXIF's orientation (given as bytes) the encoders make the boxes that say which way is up."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encoded(image, {"HEIC": "HEIF"}.get(format_, format_), **{"quality": 95, **options})


def heif_claiming(format_: str, width: int, height: int) -> bytes:
    data = bytearray(heif(scene(), format_))
    at = data.index(b"ispe")
    struct.pack_into(">II", data, at + 8, width, height)
    return bytes(data)


def turned_by_exif_alone(turn: int) -> bytes:
    """EXIF says that it lies on its side, and no box does: decoders and viewers do not turn it."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return heif(scene(), "HEIC", exif=exif)  # as bytes it would become a box


def _heifs() -> dict[str, Odd]:
    found = {}
    for format_ in ("HEIC", "AVIF"):
        for turn, stored in stored_turned(scene()).items():
            exif = Image.Exif()
            exif[0x0112], exif[0x010F] = turn, "Canon"
            data = heif(np.ascontiguousarray(stored), format_, exif=exif.tobytes())
            found[f"{format_}, turned {turn}"] = Odd(data, scene(), 6)
        whole = heif(scene(), format_)
        for share in (40, 60, 95):
            found[f"{format_}, {share}% of it"] = Odd(whole[: len(whole) * share // 100], Reason.TRUNCATED)
        rgba = Image.fromarray(scene()).convert("RGBA")
        rgba.paste((0, 0, 0, 0), (0, 0, WIDTH, HEIGHT // 2))
        half = scene()
        half[: HEIGHT // 2] = 255
        tags = shared_tags(20_000, 40_000)
        empty = tags[:4] + b"\x08\0\0\0" + bytes(len(tags) - 8)  # the encoder reads what it is given
        many_tags = heif(scene(), format_, exif=b"Exif\0\0" + empty).replace(empty, tags)
        found |= {
            f"{format_}, grey": Odd(heif(Image.fromarray(scene()[..., 0]), format_), scene()[..., :1].repeat(3, 2), 6),
            f"{format_}, half of it transparent": Odd(heif(rgba, format_), half, 8),
            f"{format_}, tags that share their bytes": Odd(many_tags, scene(), 6),
            f"{format_}, the first box alone": Odd(whole[:32], Reason.TRUNCATED),
            f"{format_}, zeros behind the first box": Odd(whole[:32] + bytes(500), Reason.TRUNCATED),
        }
    return found | {"HEIC, turned by EXIF alone": Odd(turned_by_exif_alone(6), scene(), 6)}


# --- others -----------------------------------------------------------------------------------------------------------


def bmp(width: int, height: int, bits: int, body: bytes, *, compression: int = 0, palette: bytes = b"") -> bytes:
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body


def gif_claiming(width: int, height: int) -> bytes:
    gif = bytearray(encoded(scene(), "GIF"))
    gif[6:10] = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
    return bytes(gif)


def webp_claiming(width: int, height: int) -> bytes:
    """A lossless WebP, whose header holds 14 bits a side: the most is 16,383."""
    webp = bytearray(encoded(scene(), "WEBP", lossless=True))
    at = webp.index(b"VP8L") + 9
    bits = (min(width, 16_384) - 1) | ((min(height, 16_384) - 1) << 14)
    webp[at : at + 4] = struct.pack("<I", bits | (int.from_bytes(webp[at : at + 4], "little") & 0xF0000000))
    return bytes(webp)


def icc(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile (version 2) of these tags, besides the ones every profile has."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    every = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1.0, 0.8249), **tags}
    table, body = b"", b""
    start = 128 + 4 + 12 * len(every)
    for name, payload in every.items():
        table += name + struct.pack(">II", start + len(body), len(payload))
        body += payload + b"\0" * (-len(payload) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I", start + len(body)) + b"none" + b"\2\x10\0\0" + kind + space + pcs
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(0.9642, 1.0, 0.8249)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(every)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def rgb_profile(primaries: Sequence[Sequence[float]] = WIDE_PRIMARIES, power: float = 2.2) -> bytes:
    tags = {b"rXYZ": xyz(*primaries[0]), b"gXYZ": xyz(*primaries[1]), b"bXYZ": xyz(*primaries[2])}
    return icc(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(power)))


def grey_profile(power: float) -> bytes:
    return icc(b"GRAY", {b"kTRC": gamma(power)})


def cmyk_profile(lightness_of_cyan: int = 128) -> bytes:
    """A press on which full cyan prints as a neutral grey of this lightness (of 255), and any other ink as black."""
    identity = bytes(range(256))
    corners = b""
    for corner in range(16):  # cyan varies slowest
        bright = 255 if corner == 0 else lightness_of_cyan if corner == 0b1000 else 0
        corners += bytes([bright, 128, 128])
    matrix = struct.pack(">9i", *(65_536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    return icc(b"CMYK", {b"A2B0": table}, pcs=b"Lab ")


def wide_to_srgb(pixels: Pixels, primaries: Sequence[Sequence[float]] = WIDE_PRIMARIES, power: float = 2.2) -> Pixels:
    """What these numbers look like as sRGB, by the definition of both."""
    linear = (pixels / 255) ** power
    light = linear @ np.array(primaries) @ np.linalg.inv(np.array(SRGB_PRIMARIES))
    light = light.clip(0, 1)
    srgb = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray((srgb * 255).round().astype(np.uint8))


def padded(restarts: bytes, padding: bytes) -> bytes:
    """A JPEG with restarts, and these bytes before each, as some webcams write them."""
    return re.sub(rb"\xff[\xd0-\xd7]", lambda found: padding + found[0], restarts)


def webp_chunks(webp: bytes, *behind: tuple[bytes, int, bytes]) -> bytes:
    """A WebP up to its EXIF, then chunks by name, the length that they claim, and their bytes."""
    chunks = b"".join(name + struct.pack("<I", claimed) + payload for name, claimed, payload in behind)
    body = webp[8 : webp.index(b"EXIF")] + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- the files --------------------------------------------------------------------------------------------------------


def odd_files() -> dict[str, Odd]:
    """Every file by name."""
    pictures = _jpegs() | _turned() | _coloured() | _pngs() | _gifs_bmps_webps() | _tiffs()
    pictures |= _told_of() | _oddly_written() | _tiffs_that_mislead()
    return pictures | _heifs() | _bombs() | _damaged() | _hidden_damage() | _other_formats()


def _jpegs() -> dict[str, Odd]:
    picture, plain, second = scene(), encoded(scene(), "JPEG", quality=95), encoded(flat((0, 0, 0)), "JPEG")
    cmyk = Image.fromarray(picture).convert("CMYK")
    jpeg_of = {
        "baseline": plain,
        "progressive": encoded(picture, "JPEG", quality=95, progressive=True),
        "restart markers": encoded(picture, "JPEG", quality=95, restart_marker_blocks=1),
        "no subsampling": encoded(picture, "JPEG", quality=95, subsampling=0),
        "halved across alone": encoded(picture, "JPEG", quality=95, subsampling=1),
        "coded as RGB": encoded(picture, "JPEG", quality=95, keep_rgb=True),
        "CMYK, inverted as Adobe does": encoded(cmyk, "JPEG", quality=95),
        "YCCK": ycck(cmyk),
        "zeros behind the end": plain + bytes(5_000),
        "another picture behind the end": plain + second,
        "a video behind the end": plain + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40,
        "hundreds of scan marks behind the end": plain + b"\xff\xda\0\4" * 500,
        "a thumbnail in a segment": after_soi(plain, segment(0xEC, second)),
        "much before the picture": after_soi(plain, *[segment(0xFE, bytes(60_000))] * 4),
        "fill bytes before a marker": plain[:2] + b"\xff\xff\xff" + plain[2:],
        "stray bytes before a marker": plain.replace(b"\xff\xdb", b"\0\0\0\xff\xdb", 1),
        "stray bytes before the end": plain[:-2] + b"\0\0\0\xff\xd9",
        "an unknown JFIF revision": plain.replace(b"JFIF\0\1", b"JFIF\0\7"),
        "broken EXIF": after_soi(plain, segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")),
        "EXIF cut short": after_soi(plain, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01")),
        "several pictures (MPO)": encoded(
            Image.fromarray(picture), "MPO", save_all=True, append_images=[Image.fromarray(flat((0, 0, 0)))], quality=95
        ),
    }
    found = {f"JPEG, {name}": Odd(data, picture, 4) for name, data in jpeg_of.items()}
    mid = flat((128, 128, 128), 64, 64)
    return found | {
        "JPEG, grey": Odd(encoded(GREY, "JPEG", quality=95), GREY_RGB, 2),
        "JPEG, arithmetic coded": Odd(bare_jpeg(0xCA, bytes(4), spectral=0), mid[:8, :8]),
        "JPEG, lossless": Odd(bare_jpeg(0xC3, bytes(512), size=(64, 64), spectral=0), mid),
        "JPEG, one pixel": Odd(encoded(flat((90, 90, 90), 1, 1), "JPEG"), flat((90, 90, 90), 1, 1), 2),
        "JPEG, 12 bits": Odd(bare_jpeg(0xC1, b"\x3f", precision=12), NO),
        "JPEG, lossless of 16 bits": Odd(bare_jpeg(0xC3, bytes(8), spectral=0, precision=16), NO),
        "JPEG, hierarchical": Odd(bare_jpeg(0xC5, bytes(8)), NO),
        "JPEG, lossless and arithmetic coded": Odd(bare_jpeg(0xCB, bytes(8), spectral=0), NO),
        "JPEG-LS": Odd(bare_jpeg(0xF7, bytes(8), spectral=0), NO),
        "JPEG, many scans that it needs": Odd(many_scans(64, 60), mid),
    }


def _told_of() -> dict[str, Odd]:
    """Pictures that are whole, with what tells of them damaged, cut short or without measure."""
    picture, plain = scene(), encoded(scene(), "JPEG", quality=95)
    cmyk = encoded(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
    found = {}
    heads = {0xE0: b"JFIF\0\1\1\0\0\1\0\1\0\0", 0xE1: b"Exif\0\0MM\0*\0\0\0\x08\0\1", 0xE2: b"ICC_PROFILE\0\1\1none"}
    heads |= {0xE2 | 0x100: b"MPF\0MM\0*\0\0\0\x08\0\3", 0xED: b"Photoshop 3.0\0008BIM\4\4\0\0\0\0\0\x09"}
    for marker, head in heads.items():
        for length in (0, 4, 5, 6, 9, 13, len(head)):
            cut = segment(marker & 0xFF, head[:length])
            found[f"JPEG, {length} bytes of {head[:4]!r}"] = Odd(after_soi(plain, cut), picture, 4)
            found[f"CMYK JPEG, {length} bytes of {head[:4]!r}"] = Odd(after_soi(cmyk, cut), picture, 4)
    for length in (5, 11):
        short = segment(0xE0, heads[0xE0][:length]), segment(0xEE, b"Adobe\0d\0\0\0\0\1"[:length])
        found[f"JPEG, {length} bytes of JFIF in its place"] = Odd(plain[:2] + short[0] + plain[20:], picture, 4)
        found[f"JPEG, {length} bytes of Adobe"] = Odd(after_soi(plain, short[1]), picture, 4)
    wrong = bytearray(encoded(picture, "PNG", pnginfo=_note("something"), icc_profile=rgb_profile(), exif=b"MM\0*"))
    for name in (b"tEXt", b"iCCP", b"eXIf"):
        wrong[wrong.index(name) + 6] ^= 0xFF
    black = flat((0, 0, 0), 8, 8)
    large = {
        "a text of 30 MB": chunk(b"zTXt", b"t\0\0" + zlib.compress(b"x" * 30 * 2**20, 9)),
        "a text of 2 MB in another language": chunk(b"iTXt", b"t\0\1\0\0\0" + zlib.compress(b"x" * 2 * 2**20, 9)),
        "a text that is not packed as it says": chunk(b"zTXt", b"t\0\7abc"),
        "a profile of 30 MB": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(30 * 2**20), 9)),
        "a time of 3 bytes": chunk(b"tIME", b"abc"),
        "no number in a size": chunk(b"pHYs", b"a"),
        "an animation's control cut short": chunk(b"acTL", b"a"),
    }
    found |= {f"PNG, {name}": Odd(png(8, 8, 8, 0, bytes(72), told), black) for name, told in large.items()}
    webp = encoded(picture, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*")
    tags = {1000 + i: (1, [0] * 200) for i in range(30)}
    return found | {
        "PNG, texts, profile and EXIF with wrong checksums": Odd(bytes(wrong), picture),
        "TIFF, tags that share their bytes": Odd(shared_tags(), flat((0, 0, 0))),
        "TIFF, tags of no pixel": Odd(tiff(GREY.tobytes(), tags), GREY_RGB),
        "TIFF, a text behind the end": Odd(tiff(GREY.tobytes(), {270: (3, [1] * 9)})[:-18], GREY_RGB),
        "WebP, its EXIF cut short": Odd(webp_chunks(webp, (b"EXIF", 5_000, b"ab")), picture),
        "WebP, a chunk of odd length": Odd(webp_chunks(webp, (b"XMP ", 5, b"abcde")), picture),
    }


def _oddly_written() -> dict[str, Odd]:
    """JPEGs whose every pixel decodes right, though libjpeg has something to say."""
    picture, plain = scene(), encoded(scene(), "JPEG", quality=95)
    restarts = encoded(picture, "JPEG", quality=95, restart_marker_blocks=1)
    rows = encoded(picture, "JPEG", quality=95, restart_marker_rows=1, subsampling=0)
    progressive = encoded(picture, "JPEG", quality=95, progressive=True)
    odd_scan = plain.replace(b"\0\x3f\0", b"\0\0\0", 1)
    return {
        "JPEG, other numbers in its scan's header": Odd(odd_scan, picture, 4),
        "JPEG, zeros between two scans": Odd(_between_scans(progressive), picture, 4),
        "JPEG, a few bytes before its end": Odd(plain[:-2] + b"\x12\x34\x56" * 5 + plain[-2:], picture, 4),
        "JPEG, zeros before its end": Odd(plain[:-2] + bytes(512) + plain[-2:], picture, 4),
        "JPEG, progressive, zeros before its end": Odd(progressive[:-2] + bytes(512) + progressive[-2:], picture, 4),
        "JPEG, 6 zeros before each restart": Odd(padded(restarts, bytes(6)), picture, 4),
        "JPEG, 1 zero before each restart": Odd(padded(restarts, b"\0"), picture, 4),
        "JPEG, 40 stuffed bytes before each restart": Odd(padded(restarts, b"\xff\0" * 40), picture, 4),
        "JPEG, zeros before restarts of rows": Odd(padded(rows, bytes(4)), picture, 4),
        "JPEG, zeros before restarts and other numbers in its scan's header": Odd(
            padded(rows, bytes(4)).replace(b"\0\x3f\0", b"\0\0\0", 1), picture, 4
        ),
    }


def _hidden_damage() -> dict[str, Odd]:
    """Damage behind what is harmless: of the two, libjpeg tells of the first."""
    whole = encoded(scene(96, 128), "JPEG")
    half = _halved(whole)
    restarts = encoded(scene(96, 128), "JPEG", restart_marker_blocks=2)
    lost = restarts.index(b"\xff\xd3")
    scans = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", scans)]
    begins = restarts.index(b"\xff\xda") + 14
    short = restarts[:begins] + restarts[begins + 2 :]
    jpeg_of = {
        "nothing else": half,
        "in four inks": _halved(encoded(Image.fromarray(scene(96, 128)).convert("CMYK"), "JPEG")),
        "another revision of JFIF": half.replace(b"JFIF\0\1", b"JFIF\0\7"),
        "other numbers in its scan's header": half.replace(b"\0\x3f\0", b"\0\0\0", 1),
        "stray bytes before a table": half.replace(b"\xff\xdb", b"\0\0\0\xff\xdb", 1),
        "an unknown colour code of Adobe's": after_soi(half, segment(0xEE, b"Adobe\0d\0\0\0\0\7")),
        "zeros between two scans": _halved(_between_scans(scans), 2),
        "zeros between two scans, and other numbers in a header": _halved(
            _between_scans(scans).replace(b"JFIF\0\1", b"JFIF\0\7"), 2
        ),
        "zeros before each restart, one of which is lost": padded(restarts[:lost] + restarts[lost + 2 :], bytes(6)),
        "zeros before each restart, and bytes lost": padded(short, bytes(6)),
        "bytes left over before a restart": padded(restarts, b"\x12\x34\x56"),
        "bytes left over before its end": whole[:-2] + b"\x12\x34\x56" * 10 + whole[-2:],
        "bytes left over between two scans": _between_scans(scans, b"\x12\x34\x56" * 10),
        "a hole in its first scan": _with_hole(scans, 0),
        "a hole in its fifth scan": _with_hole(scans, 4),
        "a hole in the place of two scans": scans[: starts[2] - 8] + scans[starts[4] :],
        "zeros in the place of its last scans": scans[: starts[3] + 20] + bytes(len(scans) - starts[3]) + scans[-2:],
    }
    return {f"JPEG cut or damaged, {name}": Odd(data, Reason.TRUNCATED) for name, data in jpeg_of.items()}


def _halved(jpeg: bytes, parts: int = 1) -> bytes:
    """A JPEG that ends in the middle of what comes after its first scan's header, or nearer to its end."""
    return jpeg[: (jpeg.index(b"\xff\xda") + parts * len(jpeg)) // (parts + 1)] + b"\xff\xd9"


def _between_scans(jpeg: bytes, padding: bytes = bytes(3)) -> bytes:
    """A progressive JPEG with zeros, or other bytes, behind its first scan."""
    at = jpeg.index(b"\xff\xc4", jpeg.index(b"\xff\xda"))
    return jpeg[:at] + padding + jpeg[at:]


def _with_hole(jpeg: bytes, scan: int) -> bytes:
    """A JPEG of some scans with zeros in the place of a few bytes of one: a sector that was not written."""
    at = [found.start() for found in re.finditer(rb"\xff\xda", jpeg)][scan] + 30
    return jpeg[:at] + bytes(64) + jpeg[at + 64 :]


def _tiffs_that_mislead() -> dict[str, Odd]:
    """TIFFs whose tags say something else than Pillow takes them for; previews; alpha that nobody wrote."""
    picture, size = scene(), WIDTH * HEIGHT
    rgb = {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3])}
    four = {**rgb, 258: (3, [8] * 4), 277: (3, [4])}
    grey_deep, negative = SIXTEEN_BITS.tobytes(), (65_535 - SIXTEEN_BITS).tobytes()
    unsigned = np.linspace(0, 2**32 - 1, 256).astype("<u4")[None].repeat(HEIGHT, axis=0)
    twelve = np.unpackbits((GREY.astype(">u2") << 4).astype(">u2").view(np.uint8).reshape(HEIGHT, WIDTH, 2), axis=2)
    floats = np.linspace(5, -3, 256, dtype="<f4")[None].repeat(HEIGHT, axis=0)
    ramp, clear = as_rgb(np.arange(256)[None].repeat(HEIGHT, axis=0)), np.dstack([picture, np.zeros_like(GREY)])
    bitmap = clear[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"sRGB" + bytes(48)
    head = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, len(bitmap), 0, 0, 0, 0) + masks
    no_photometric = tiff(GREY.tobytes(), {}).replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 999, 3, 1))
    planes = {**rgb, 258: (3, [16] * 3), 284: (3, [2]), 273: (4, [8 + i * 2 * size for i in range(3)])}
    right = {
        "grey of 16 bits, white is zero": (tiff(negative, {258: (3, [16]), 262: (3, [0])}), GREY_RGB),
        "grey of 16 bits, one plane": (tiff(grey_deep, {258: (3, [16]), 284: (3, [2])}), GREY_RGB),
        "grey of 12 bits": (tiff(np.packbits(twelve[:, :, 4:].reshape(-1)).tobytes(), {258: (3, [12])}), GREY_RGB),
        "unsigned numbers of 32 bits": (tiff(unsigned.tobytes(), {258: (3, [32])}, width=256), ramp),
        "floating point, white is zero": (
            tiff(floats.tobytes(), {258: (3, [32]), 339: (3, [3]), 262: (3, [0])}, width=256),
            ramp,
        ),
        "colours not said": (no_photometric, GREY_RGB),
        "big (64 bits), upper byte first": (_big(GREY, ">"), GREY_RGB),
        "big (64 bits), lower byte first": (_big(GREY, "<"), GREY_RGB),
        "alpha of nothing": (encoded(clear, "TIFF"), picture),
        "a fourth band of no said meaning": (tiff(np.dstack([picture, GREY]).tobytes(), four), picture),
    }
    refused = {
        "RGB of 16 bits in planes": tiff(np.stack([SIXTEEN_BITS] * 3).tobytes(), {**planes, 279: (4, [2 * size] * 3)}),
        "signed bytes": tiff(GREY.tobytes(), {339: (3, [2])}),
        "colour differences of fewer pixels": tiff(picture.tobytes(), {**rgb, 262: (3, [6])}),
        "inks by other names": tiff(clear.tobytes(), {**four, 262: (3, [5]), 332: (3, [2])}),
        "a preview alone": tiff(picture.tobytes(), {**rgb, 254: (4, [1])}),
        "a camera's raw file (DNG)": tiff(picture.tobytes(), {**rgb, 50706: (1, [1, 4, 0, 0])}),
        "a camera's raw file (CR2)": b"II*\0\x10\0\0\0CR\2\0" + tiff(bytes(size), {})[12:],
    }
    rows = WIDTH * 3 * 8
    parts = {**rgb, 278: (4, [8]), 273: (4, [8, 8 + rows]), 279: (4, [rows] * 2)}
    return {
        **{f"TIFF, {name}": Odd(data, pixels, 1) for name, (data, pixels) in right.items()},
        **{f"TIFF, {name}": Odd(data, NO) for name, data in refused.items()},
        "TIFF, a preview before the picture": Odd(_preview_first(picture, rgb), picture),
        "TIFF, half of its strips": Odd(tiff(picture.tobytes(), parts), Reason.TRUNCATED),
        "BMP, alpha of nothing": Odd(
            b"BM" + struct.pack("<IHHI", 122 + len(bitmap), 0, 0, 122) + head + bitmap, picture
        ),
    }


def _big(grey: Pixels, order: str) -> bytes:
    """A BigTIFF of one strip."""
    tags = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 273: 16, 277: 1, 278: HEIGHT, 279: grey.size}
    entries = b"".join(struct.pack(f"{order}HHQQ", tag, 16, 1, value) for tag, value in tags.items())
    head = (b"II+\0" if order == "<" else b"MM\0+") + struct.pack(f"{order}HHQ", 8, 0, 16 + grey.size)
    return head + grey.tobytes() + struct.pack(f"{order}Q", len(tags)) + entries + bytes(8)


def _preview_first(pixels: Pixels, rgb: Tags) -> bytes:
    """A TIFF whose first directory is of a preview, and whose second is of the picture."""
    first = tiff(pixels.tobytes(), {**rgb, 254: (4, [1]), 256: (4, [WIDTH // 2])})
    whole = tiff(pixels.tobytes(), rgb)
    (at,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, at)
    moved = bytearray(whole[at:])
    for entry in range(2, 2 + 12 * count, 12):
        _, type_, values, value = struct.unpack_from("<HHII", moved, entry)
        if values * {3: 2, 4: 4}[type_] > 4:
            struct.pack_into("<I", moved, entry + 8, value - at + len(first))
    (first_at,) = struct.unpack_from("<I", first, 4)
    (first_count,) = struct.unpack_from("<H", first, first_at)
    pointer = first_at + 2 + 12 * first_count
    return first[:pointer] + struct.pack("<I", len(first)) + first[pointer + 4 :] + bytes(moved)


def stored_turned(upright: Pixels) -> dict[int, Pixels]:
    """Return the picture as it is stored, by EXIF's orientation.

    As the standard has it: which side of the stored picture is its first row, and which its first column.
    """
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }


def _turned() -> dict[str, Odd]:
    found = {}
    upright = scene()
    for turn, stored in stored_turned(upright).items():
        exif = Image.Exif()
        exif[0x0112] = turn
        image = Image.fromarray(np.ascontiguousarray(stored))
        for format_, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
            data = encoded(image, format_, exif=exif, **options)
            found[f"{format_}, turned {turn}"] = Odd(data, upright, 4 if format_ == "JPEG" else 0)
        cmyk = encoded(image.convert("CMYK"), "JPEG", exif=exif, quality=95)
        found[f"CMYK JPEG, turned {turn}"] = Odd(cmyk, upright, 4)
    jpeg = encoded(np.ascontiguousarray(scene().swapaxes(0, 1)[::-1]), "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    late = after_soi(jpeg, *[segment(0xFE, bytes(60_000))] * 2, segment(0xE1, exif.tobytes()))
    decoy = after_soi(jpeg, segment(0xFE, b"Exif\0\0" + bytes(40)), segment(0xE1, exif.tobytes()))
    exif[0x0112] = 9
    nonsense = encoded(scene(), "PNG", exif=exif)
    return found | {
        "JPEG, turned, its EXIF late": Odd(late, scene(), 4),
        "JPEG, turned, a comment that looks like EXIF": Odd(decoy, scene(), 4),
        "PNG, turned 9": Odd(nonsense, scene()),
    }


def _coloured() -> dict[str, Odd]:
    wide, srgb = rgb_profile(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    expected = wide_to_srgb(scene())
    found = {}
    kinds: list[tuple[str, dict[str, Any], float]] = [("JPEG", {"quality": 95}, 4.0), ("PNG", {}, 1.5)]
    kinds += [("TIFF", {}, 1.5), ("WEBP", {"lossless": True}, 1.5)]
    for format_, options, within in kinds:
        for name, profile, pixels in (("wide", wide, expected), ("sRGB", srgb, scene()), ("broken", b"none", scene())):
            data = encoded(scene(), format_, icc_profile=profile, **options)
            otherwise = within if format_ == "JPEG" else 0
            found[f"{format_}, {name} profile"] = Odd(data, pixels, within if name == "wide" else otherwise)
    level = np.arange(256) / 255
    seen = np.where(level <= 0.0031308, level * 12.92, 1.055 * level ** (1 / 2.4) - 0.055)
    bright = as_rgb((seen * 255).round()[GREY])
    opaque = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    black, cyan = Image.new("P", (WIDTH, HEIGHT), 0).quantize(2), Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 0))
    grey_of_cyan = flat((119, 119, 119))  # L* = 128 / 2.55 in sRGB
    linear, press = grey_profile(1.0), cmyk_profile()

    def jpeg(pixels: Any, profile: bytes) -> bytes:
        return encoded(pixels, "JPEG", quality=95, icc_profile=profile)

    return found | {
        "JPEG, grey, linear profile": Odd(jpeg(GREY, linear), bright, 3),
        "PNG, grey, linear profile": Odd(encoded(GREY, "PNG", icc_profile=linear), bright, 1.5),
        "PNG, transparency and wide profile": Odd(encoded(opaque, "PNG", icc_profile=wide), expected, 1.5),
        "PNG, palette and wide profile": Odd(encoded(black, "PNG", icc_profile=wide), flat((0, 0, 0)), 1),
        "JPEG, profile of another kind": Odd(jpeg(scene(), linear), scene(), 4),
        "JPEG, CMYK with a press profile": Odd(jpeg(cyan, press), grey_of_cyan, 3),
        "TIFF, CMYK with a press profile": Odd(encoded(cyan, "TIFF", icc_profile=press), grey_of_cyan, 3),
        "JPEG, profile in several segments": Odd(jpeg(scene(), wide + bytes(150_000)), expected, 4),
    }


def _pngs() -> dict[str, Odd]:
    picture, black, white = scene(), Image.fromarray(flat((0, 0, 0))), flat((255, 255, 255))
    deep = SIXTEEN_BITS.astype(">u2")
    grey_alpha = np.dstack([GREY, np.full_like(GREY, 128)])
    paler = ((GREY_RGB.astype(int) * 128 + 255 * 127) / 255).round().astype(np.uint8)
    palette = Image.fromarray(TRANSPARENT_BELOW[..., :3]).quantize(2)
    dark = palette.getpixel((0, HEIGHT - 1))
    two = np.tile(np.array([0b00011011], np.uint8), (HEIGHT, WIDTH // 4))
    steps = as_rgb(np.tile([0, 85, 170, 255], (HEIGHT, WIDTH // 4)))

    def of_16_bits(colour: int, *bands: npt.NDArray[Any]) -> bytes:
        return png(WIDTH, HEIGHT, 16, colour, png_rows(np.stack(bands, axis=-1)))

    png_of: dict[str, tuple[bytes, Pixels]] = {
        "RGB": (encoded(picture, "PNG"), picture),
        "interlaced": (_interlaced(picture), picture),
        "grey": (encoded(GREY, "PNG"), GREY_RGB),
        "grey of 2 bits": (png(WIDTH, HEIGHT, 2, 0, png_rows(two)), steps),
        "1 bit": (encoded(Image.fromarray(BITS), "PNG"), HALVES),
        "grey of 16 bits": (encoded(SIXTEEN_BITS, "PNG"), GREY_RGB),
        "RGB of 16 bits": (of_16_bits(2, deep, deep, deep), GREY_RGB),
        "grey and transparency of 16 bits": (of_16_bits(4, deep, np.full_like(deep, 0xFFFF)), GREY_RGB),
        "RGB and transparency of 16 bits": (of_16_bits(6, deep, deep, deep, np.full_like(deep, 0xFFFF)), GREY_RGB),
        "alpha of nothing, 16 bits": (of_16_bits(6, deep, deep, deep, deep * 0), GREY_RGB),
        "alpha of nothing": (encoded(np.dstack([picture, GREY * 0]), "PNG"), picture),
        "grey with alpha of nothing": (encoded(Image.fromarray(np.dstack([GREY, GREY * 0]), "LA"), "PNG"), GREY_RGB),
        "nothing but one transparent colour": (encoded(np.dstack([flat((0, 0, 0)), GREY * 0]), "PNG"), white),
        "grey and transparency": (encoded(Image.fromarray(grey_alpha, "LA"), "PNG"), paler),
        "transparent below": (encoded(TRANSPARENT_BELOW, "PNG"), ON_WHITE),
        "palette": (encoded(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "palette with a transparent colour": (encoded(palette, "PNG", transparency=dark), ON_WHITE),
        "one transparent grey": (encoded(HALVES[..., 0], "PNG", transparency=0), white),
        "one transparent colour": (encoded(HALVES, "PNG", transparency=(0, 0, 0)), white),
        "animated": (encoded(Image.fromarray(picture), "PNG", save_all=True, append_images=[black]), picture),
        "a long text": (encoded(picture, "PNG", pnginfo=_note("x" * 1000, packed=True)), picture),
        "bytes behind the end": (encoded(picture, "PNG") + b"more", picture),
        "the name of a JPEG": (encoded(picture, "PNG"), picture),
    }
    return {f"PNG, {name}": Odd(data, pixels, 1) for name, (data, pixels) in png_of.items()}


def _interlaced(pixels: Pixels) -> bytes:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(png_rows(pixels[top::down, left::right]) for top, left, down, right in passes)
    return png(WIDTH, HEIGHT, 8, 2, rows, interlace=1)


def _gifs_bmps_webps() -> dict[str, Odd]:
    picture, black = scene(), Image.fromarray(flat((0, 0, 0)))
    image = Image.fromarray(picture)
    two = image.quantize(16)
    sixteen = np.asarray(two.convert("RGB"))
    bits = bytes([0xFF] * 3 + [0] * 5) * HEIGHT
    packed = np.full((HEIGHT, WIDTH), 31 << 10, "<u2")
    run = b"".join(bytes([WIDTH, 1, 0, 0]) for _ in range(HEIGHT)) + b"\0\1"
    two_colours = bytes([0, 0, 0, 0, 30, 20, 10, 0])
    return {
        "GIF": Odd(encoded(two, "GIF"), sixteen, 1),
        "GIF, animated": Odd(encoded(two, "GIF", save_all=True, append_images=[black]), sixteen, 1),
        "GIF, a later frame cut off": Odd(
            encoded(two, "GIF", save_all=True, append_images=[black.convert("P")])[:-40], sixteen, 1
        ),
        "GIF, transparent below": Odd(encoded(TRANSPARENT_BELOW, "GIF"), ON_WHITE, 1),
        "GIF, no interlacing": Odd(encoded(two, "GIF", interlace=0), sixteen, 1),
        "BMP": Odd(encoded(image, "BMP"), picture),
        "BMP, top row first": Odd(bmp(WIDTH, -HEIGHT, 24, picture[..., ::-1].tobytes()), picture),
        "BMP, 1 bit": Odd(bmp(WIDTH, HEIGHT, 1, bits, palette=b"\0\0\0\0\xff\xff\xff\0"), HALVES),
        "BMP, grey": Odd(encoded(GREY, "BMP"), GREY_RGB),
        "BMP, palette": Odd(encoded(two, "BMP"), sixteen),
        "BMP, 16 bits": Odd(bmp(WIDTH, HEIGHT, 16, packed.tobytes()), flat((255, 0, 0))),
        "BMP, run lengths": Odd(bmp(WIDTH, HEIGHT, 8, run, compression=1, palette=two_colours), flat((10, 20, 30))),
        "BMP, 32 bits": Odd(encoded(image.convert("RGBA"), "BMP"), picture),
        "BMP, compressed as JPEG": Odd(bmp(WIDTH, HEIGHT, 24, b"", compression=4), NO),
        "WebP": Odd(encoded(image, "WEBP", quality=95), picture, 5),
        "WebP, lossless": Odd(encoded(image, "WEBP", lossless=True), picture),
        "WebP, transparent below": Odd(encoded(TRANSPARENT_BELOW, "WEBP", lossless=True), ON_WHITE),
        "WebP, animated": Odd(encoded(image, "WEBP", lossless=True, save_all=True, append_images=[black]), picture),
    }


def _tiffs() -> dict[str, Odd]:
    picture = scene()
    image = Image.fromarray(picture)
    ramp = np.linspace(-3, 5, 256, dtype=np.float32)[None].repeat(HEIGHT, axis=0)
    numbers = np.arange(256, dtype=np.int32)[None].repeat(HEIGHT, axis=0)
    grey_ramp, holes = as_rgb(numbers), ramp.copy()
    holes[0, 0] = np.nan
    rgb = {258: (3, [8, 8, 8]), 262: (3, [2]), 277: (3, [3])}
    rgb_deep, size = np.stack([SIXTEEN_BITS] * 3, axis=-1), WIDTH * HEIGHT
    planes = rgb | {284: (3, [2]), 273: (4, [8 + i * size for i in range(3)]), 279: (4, [size] * 3)}
    multiplied = {258: (3, [8] * 4), 262: (3, [2]), 277: (3, [4]), 338: (3, [1])}
    grey_multiplied = {258: (3, [8] * 2), 277: (3, [2]), 338: (3, [1])}
    ycbcr = image.convert("YCbCr")
    pages = {"save_all": True, "append_images": [Image.fromarray(flat((0, 0, 0)))]}
    tiff_of: dict[str, tuple[bytes, Pixels]] = {
        "RGB": (encoded(image, "TIFF"), picture),
        "upper byte first": (tiff(picture.tobytes(), rgb, order=">"), picture),
        "a plane a colour": (tiff(picture.transpose(2, 0, 1).tobytes(), planes), picture),
        "tiff_lzw": (encoded(image, "TIFF", compression="tiff_lzw"), picture),
        "tiff_adobe_deflate": (encoded(image, "TIFF", compression="tiff_adobe_deflate"), picture),
        "packbits": (encoded(image, "TIFF", compression="packbits"), picture),
        "big (64 bits)": (encoded(image, "TIFF", big_tiff=True), picture),
        "several pages": (encoded(image, "TIFF", **pages), picture),
        "fax (group 4)": (encoded(Image.fromarray(BITS), "TIFF", compression="group4"), HALVES),
        "1 bit, white is zero": (tiff(np.packbits(~BITS, axis=1).tobytes(), {258: (3, [1]), 262: (3, [0])}), HALVES),
        "grey of 16 bits": (encoded(SIXTEEN_BITS, "TIFF"), GREY_RGB),
        "grey of 16 bits, upper byte first": (
            tiff(SIXTEEN_BITS.astype(">u2").tobytes(), {258: (3, [16])}, order=">"),
            GREY_RGB,
        ),
        "RGB of 16 bits": (tiff(rgb_deep.tobytes(), {**rgb, 258: (3, [16] * 3)}), GREY_RGB),
        "floating point": (encoded(ramp, "TIFF"), grey_ramp),
        "floating point of one value": (encoded(ramp * 0 + 7, "TIFF"), flat((0, 0, 0), HEIGHT, 256)),
        "floating point of no value": (encoded(ramp * np.float32(np.nan), "TIFF"), flat((0, 0, 0), HEIGHT, 256)),
        "floating point with a hole": (encoded(holes, "TIFF"), grey_ramp),
        "32 bits": (encoded(numbers * 9_000, "TIFF"), grey_ramp),
        "CMYK": (encoded(image.convert("CMYK"), "TIFF"), picture),
        "palette": (encoded(image.quantize(16), "TIFF"), np.asarray(image.quantize(16).convert("RGB"))),
        "YCbCr": (tiff(ycbcr.tobytes(), {**rgb, 262: (3, [6]), 530: (3, [1, 1])}), np.asarray(ycbcr.convert("RGB"))),
        "transparency already multiplied": (tiff(bytes((50, 60, 70, 128)) * size, multiplied), flat((177, 187, 197))),
        "grey transparency already multiplied": (tiff(bytes((60, 128)) * size, grey_multiplied), flat((187, 187, 187))),
    }
    found = {f"TIFF, {name}": Odd(data, pixels, 1) for name, (data, pixels) in tiff_of.items()}
    lab, empty = bytes((128, 0, 0)) * size, bytes(size * 8)  # a and b are signed: neutral
    return found | {
        "TIFF, JPEG inside": Odd(encoded(image, "TIFF", compression="jpeg", quality=95), picture, 4),
        "TIFF, Lab": Odd(tiff(lab, {**rgb, 262: (3, [8])}), flat((119, 119, 119)), 2),
        "TIFF, 64-bit numbers": Odd(tiff(empty, {258: (3, [64]), 339: (3, [3])}), NO),
        "TIFF, 5 bands": Odd(tiff(empty, {258: (3, [8] * 5), 277: (3, [5])}), NO),
        "TIFF, unknown compression": Odd(tiff(empty, {259: (3, [50_123])}), NO),
    }


def _bombs() -> dict[str, Odd]:
    too_large = Reason.TOO_LARGE
    numbers = struct.pack("<H", 1) + struct.pack("<HHII", 273, 4, 2**31, 8) + bytes(4)
    tile = {322: (4, [HUGE]), 323: (4, [HUGE]), 324: (4, [8]), 325: (4, [30]), 259: (3, [8])}
    return {
        "JPEG of 60,000 pixels a side": Odd(jpeg_claiming(HUGE, HUGE), too_large),
        "PNG of 60,000 pixels a side": Odd(png(HUGE, HUGE, 8, 2, bytes(1000)), too_large),
        "PNG of 2,147,483,647 pixels a side": Odd(png(2**31 - 1, 2**31 - 1, 16, 6, bytes(1000)), too_large),
        "GIF of 60,000 pixels a side": Odd(gif_claiming(HUGE, HUGE), too_large),
        "WebP of 16,383 pixels a side": Odd(webp_claiming(HUGE, HUGE), too_large),
        "BMP of 60,000 pixels a side": Odd(bmp(HUGE, HUGE, 24, bytes(1000)), too_large),
        "BMP of 60,000 pixels a side, run lengths": Odd(bmp(HUGE, HUGE, 8, b"\0\1", compression=1), too_large),
        "TIFF of 60,000 pixels a side": Odd(tiff(bytes(100), {}, width=HUGE, height=HUGE), too_large),
        "TIFF, a tile of 60,000 pixels a side": Odd(tiff(zlib.compress(bytes(10_000)), tile), too_large),
        "TIFF, billions of strips": Odd(b"II*\0\x08\0\0\0" + numbers + bytes(100), too_large),
        "HEIC of 20,000 pixels a side": Odd(heif_claiming("HEIC", 20_000, 20_000), too_large),
        "AVIF of 20,000 pixels a side": Odd(heif_claiming("AVIF", 20_000, 20_000), too_large),
        "JPEG, thousands of scans": Odd(many_scans(64, 5_000), too_large),
        "JPEG, thousands of empty scans": Odd(empty_scans(64, 5_000), too_large),
    }


def _damaged() -> dict[str, Odd]:
    found = {"nothing at all": Odd(b"", Reason.EMPTY), "a zero byte": Odd(b"\0", Reason.NOT_AN_IMAGE)}
    whole = {
        "JPEG": encoded(scene(), "JPEG"),
        "progressive JPEG": encoded(scene(), "JPEG", progressive=True),
        "CMYK JPEG": encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG"),
        "PNG": encoded(scene(), "PNG"),
        "GIF": encoded(Image.fromarray(scene()).quantize(256), "GIF"),
        "BMP": encoded(scene(), "BMP"),
        "WebP": encoded(scene(), "WEBP"),
        "TIFF": encoded(scene(), "TIFF"),
        "LZW TIFF": encoded(scene(), "TIFF", compression="tiff_lzw"),
    }
    for name, data in whole.items():
        for share in (20, 60, 95):
            found[f"{name}, {share}% of it"] = Odd(data[: len(data) * share // 100], Reason.TRUNCATED)
    restarts = encoded(scene(200, 200), "JPEG", restart_marker_blocks=4)
    lost = restarts.index(b"\xff\xd3")
    png_ = bytearray(whole["PNG"])
    png_[png_.index(b"IDAT") + 40] ^= 0xFF
    cut = {
        "JPEG, the beginning alone": b"\xff\xd8\xff",
        "JPEG, its end missing": whole["JPEG"][:-2],
        "JPEG, a restart lost": restarts[:lost] + restarts[lost + 2 :],
        "JPEG, zeros in its place from the middle": whole["JPEG"][:-150] + bytes(148) + b"\xff\xd9",
        "JPEG, no height": bare_jpeg(0xC0, bytes(8), size=(8, 0)),
        "PNG, pixels damaged": bytes(png_),
        "PNG, no pixels": PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)),
        "TIFF, its directory far outside": b"II*\0\xff\xff\xff\x7f" + bytes(50),
        "TIFF, no directory": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
    }
    return found | {name: Odd(data, Reason.TRUNCATED) for name, data in cut.items()}


def _note(text: str, *, packed: bool = False) -> PngImagePlugin.PngInfo:
    note = PngImagePlugin.PngInfo()
    note.add_text("note", text, zip=packed)
    return note


def _other_formats() -> dict[str, Odd]:
    image, none = Image.fromarray(scene()), Reason.NOT_AN_IMAGE
    return {
        "ICO": Odd(encoded(image, "ICO", sizes=[(16, 16)]), NO),
        "JPEG 2000": Odd(encoded(image, "JPEG2000"), NO),
        "MP4": Odd(b"\0\0\0\x18ftypmp42" + bytes(400), NO),
        "PPM": Odd(encoded(image, "PPM"), NO),
        "TGA": Odd(encoded(image, "TGA"), NO),
        "PDF": Odd(encoded(image, "PDF"), none),
        "a Photoshop document": Odd(b"8BPS\0\1" + bytes(40), NO),
        "Canon's newer raw": Odd(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(400), NO),
        "Fuji's raw": Odd(b"FUJIFILMCCD-RAW 0201" + bytes(400), NO),
        "a text": Odd(b"BMW has begun to build it.\n" * 9, none),
        "a page instead of the photo": Odd(b"<!DOCTYPE html><title>404</title>" * 9, none),
        "SVG": Odd(b'<svg xmlns="http://www.w3.org/2000/svg"/>', none),
        "zip": Odd(b"PK\3\4" + bytes(100), none),
        "zeros": Odd(bytes(5_000), none),
    }
