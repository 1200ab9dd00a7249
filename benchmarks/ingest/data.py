"""The photos that are taken in: as many as wanted, made of a few by a comment in the file, so that all bytes differ."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dlassets.demo.photos import photos_in
from dlassets.errors import DlassetsError
from dlassets.images.jpeg import is_jpeg

SMALL_SIDE = 64
# A file can have some 65,000 names on ext4, and fewer elsewhere.
_NAMES = 20_000
_COMMENT = b"\xff\xfe"


@dataclass(frozen=True)
class Original:
    """A photo that others are made of: its class folder and its bytes."""

    folder: str
    data: bytes

    def copy(self, number: int) -> bytes:
        """Return the same picture as other bytes: with a comment segment, which every decoder skips."""
        note = f"copy {number:09d}".encode()
        return self.data[:2] + _COMMENT + (len(note) + 2).to_bytes(2, "big") + note + self.data[2:]


def originals(images: Path) -> list[Original]:
    """Return the JPEG photos of a folder of NNN.class/ folders. Raises DlassetsError where there is none."""
    found = [Original(photo.folder, photo.path.read_bytes()) for photo in photos_in(images)]
    found = [photo for photo in found if is_jpeg(photo.data)]
    if not found:
        raise DlassetsError(f"{images} has no JPEG photos in NNN.class folders.")
    return found


def thumbnails(photos: Sequence[Original]) -> list[Original]:
    """Return the photos at no more than 64 pixels a side, some 1 to 2 kB each."""
    small = []
    for photo in photos:
        with Image.open(io.BytesIO(photo.data)) as image:
            reduced = image.convert("RGB")
        reduced.thumbnail((SMALL_SIDE, SMALL_SIDE))
        encoded = io.BytesIO()
        reduced.save(encoded, "JPEG", quality=70)
        small.append(Original(photo.folder, encoded.getvalue()))
    return small


def written(photos: Sequence[Original], count: int, folder: Path) -> Path:
    """Write `count` distinct photos into class folders below `folder`, unless they are there, and return it."""
    stamp = folder.with_suffix(".made")
    made_of = f"{count} of {len(photos)}, {sum(len(photo.data) for photo in photos)} bytes"
    if stamp.exists() and stamp.read_text() == made_of:
        return folder
    for photo in photos:
        (folder / photo.folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        (folder / photo.folder / f"{number:09d}.jpg").write_bytes(photo.copy(number))
    stamp.write_text(made_of)
    return folder


def names(count: int, folder: Path) -> Path:
    """Make `count` files to be listed, never read: further names of a few files, in folders of 1,000."""
    stamp = folder.with_suffix(".made")
    if stamp.exists() and stamp.read_text() == str(count):
        return folder
    for number in range(count):
        if number % 1000 == 0:
            inside = folder / f"{number // 1000:03d}.names"
            inside.mkdir(parents=True, exist_ok=True)
        name = inside / f"{number:09d}.jpg"
        if number % _NAMES == 0:
            first = name
            first.write_bytes(b"never read")
        else:
            os.link(first, name)
    stamp.write_text(str(count))
    return folder
