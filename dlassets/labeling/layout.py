"""How requests and answers are laid out, in folders and in the objects of a bucket alike: names, and what they mean."""

from __future__ import annotations

import re
from pathlib import PurePath

from dlassets.errors import DlassetsError
from dlassets.labeling.services import Batch

# Of a batch: how to answer, the list of what waits, the sheet that shows all of it; and the digests of all lists that
# were written here, by which it is known which of them people have not touched.
HOW_TO, LIST, SHEET, LISTS = "README.txt", "requests.csv", "index.html", ".lists"
# Beside the batches: what was shown last of where requests stand.
SHOWN = ".shown"

# What file managers and editors leave behind, files still being copied, and what a batch brings with it.
LEFT_ALONE = re.compile(r"(?i)[._~].*|thumbs\.db|desktop\.ini|readme\.txt|index\.html")

READ_BYTES = 2**20

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"RIFF": ".webp",
}
_OTHER_PHOTO = ".img"
PHOTO_SUFFIXES = {*_BEGINNINGS.values(), _OTHER_PHOTO, ".jpeg", ".tiff"}


def suffix_of(photo: bytes) -> str:
    """Return how the name of a photo's file ends, by the bytes that it begins with."""
    return next((suffix for start, suffix in _BEGINNINGS.items() if photo.startswith(start)), _OTHER_PHOTO)


def is_photo(place: PurePath) -> bool:
    return place.suffix.lower() in PHOTO_SUFFIXES


def is_plain(name: str) -> bool:
    """Whether a batch's or request's name can be a file's, wherever that is."""
    return _PLAIN.fullmatch(name) is not None


def refuse_unplain(batch: Batch) -> None:
    """Raise DlassetsError where the batch or a request of it has a name that no file can have."""
    for name in (batch.id, *(request.request_id for request in batch.requests)):
        if not is_plain(name):
            raise DlassetsError(f"{name!r} cannot be a file's name: use letters, digits, '.', '_' and '-'.")
