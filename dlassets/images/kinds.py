"""Files that lie among photos and are not taken in: told by their bytes or names, and what to do about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from dlassets.images import heif
from dlassets.settings import FORMATS, Format

# How the names of photos end, by format.
SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF",
}
_LOOKED_AT = 1024  # bytes, in which a drawing says that it is one
_MOST_SUFFIXES = 5


@dataclass(frozen=True)
class Kind:
    """Files of one kind: what they are called, what to do about them, how their names end and their bytes begin."""

    name: str
    advice: str
    suffixes: str
    beginnings: tuple[bytes, ...] = ()
    is_picture: bool = True

    @property
    def message(self) -> str:
        return f"{self.name} are not taken in: {self.advice}"


RAW = Kind(
    "RAW photos",
    "export them as JPEG or TIFF",
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl "
    ".sr2 .srf .srw .x3f",
    (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR"),
)
_VIDEOS = Kind(
    "videos",
    "save the frames that you want as JPEG",
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
    (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"0&\xb2u\x8ef\xcf\x11"),
)
_DRAWINGS = Kind(
    "drawings", "export them as PNG", ".svg .svgz .eps .ai", (b"%!PS", b"\xc5\xd0\xd3\xc6"), is_picture=False
)
KINDS = (
    RAW,
    _VIDEOS,
    Kind("Photoshop documents", "export them as JPEG or PNG", ".psd .psb", (b"8BPS",)),
    Kind("JPEG XL photos", "convert them to JPEG or PNG", ".jxl", (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    Kind(
        "JPEG 2000 photos",
        "convert them to JPEG or PNG",
        ".jp2 .j2k .jpf .jpx",
        (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    ),
    _DRAWINGS,
    Kind("PDF documents", "export their pages as JPEG or PNG", ".pdf", (b"%PDF",), is_picture=False),
    Kind(
        "archives",
        "unpack them",
        ".zip .tar .tgz .gz .bz2 .xz .7z .rar",
        (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf", b"Rar!"),
        is_picture=False,
    ),
)
_BY_SUFFIX = {suffix: kind for kind in KINDS for suffix in kind.suffixes.split()}


def kind_of(data: bytes) -> Kind | None:
    """Return the kind that a file's bytes say it is of; None where they say none, or a photo."""
    if data[4:8] == b"ftyp" and heif.format_of(data) is None:
        return RAW if data[8:12] == b"crx " else _VIDEOS
    if data[4:8] in {b"moov", b"mdat"} or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return _VIDEOS
    text = data[:_LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg")) and b"<svg" in text:
        return _DRAWINGS
    return next((kind for kind in KINDS if data.startswith(kind.beginnings)), None)


def kind_of_name(name: str) -> Kind | None:
    """Return the kind that a file's name says it is of; None where it says none, or a photo."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())


def is_photo_name(name: str) -> bool:
    """Whether a file's name ends as those of photos do."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def formats_on(formats: Iterable[Format] = FORMATS) -> set[str]:
    """Return those of the formats whose decoders are installed."""
    return {format_ for format_ in formats if heif.lacks_decoder(format_) is None}


def why_off(format_: str, formats: Iterable[str] = FORMATS) -> str | None:
    """Return why photos of a format are not taken in, beginning with its name; None where they are."""
    if format_ not in formats:
        return f"{format_} is off: name it in ingest.formats, and these photos come in"
    lack = heif.lacks_decoder(format_)
    return None if lack is None else f"{format_} is off: {lack.removesuffix('.')}, and these photos come in"


def in_words(names: Iterable[str], formats: Iterable[str] = FORMATS) -> list[str]:
    """Return which of these files are not taken in, by their names: a sentence a kind, the most frequent first.

    Of photos those whose format is off. Such as `12 files are RAW photos (.cr2, .nef): export them as JPEG or TIFF.`
    """
    by_reason: dict[Kind | str | None, Counter[str]] = defaultdict(Counter)
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        reason = why_off(SUFFIXES[suffix], formats) if suffix in SUFFIXES else _BY_SUFFIX.get(suffix)
        if suffix not in SUFFIXES or reason is not None:
            by_reason[reason][suffix or "no ending"] += 1
    in_order = sorted(by_reason.items(), key=lambda item: -item[1].total())
    return [_sentence(reason, suffixes.total(), _shortened(suffixes)) for reason, suffixes in in_order]


def _sentence(reason: Kind | str | None, number: int, suffixes: str) -> str:
    """Return a sentence about so many files of a kind, of a format that is off (and why), or of no known kind."""
    files = "1 file is" if number == 1 else f"{number:,} files are"
    if reason is None:
        return f"{files} of no kind that is known as a photo ({suffixes})."
    if isinstance(reason, str):
        return f"{files} {reason.partition(' ')[0]} ({suffixes}), and {reason}."
    if number > 1:
        return f"{files} {reason.name} ({suffixes}): {reason.advice}."
    one = f"{'an' if reason.name[0] in 'aeiou' else 'a'} {reason.name.removesuffix('s')}"
    return f"{files} {one} ({suffixes}): {reason.advice.replace('them', 'it').replace('their', 'its')}."


def _shortened(suffixes: Iterable[str]) -> str:
    every = sorted(suffixes)
    return ", ".join([*every[:_MOST_SUFFIXES], *["…"] * (len(every) > _MOST_SUFFIXES)])
