"""The demo's photos: most arrive labelled; a held-back part arrives unlabelled, its true classes kept aside."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dlassets.errors import DlassetsError
from dlassets.images.digest import image_id_of
from dlassets.images.folders import is_numbered
from dlassets.images.kinds import in_words, is_photo_name
from dlassets.samples.one_set import files_in
from dlassets.samples.unpack import Taken, check_classes
from dlassets.settings import JUNK
from dlassets.storage.files import files_under, is_there, read_whole, write_whole
from dlassets.storage.junk import Junk

HELD_BACK = 0.3
_LABELLED_A_CLASS, _MOST_HELD_BACK = 16, 0.8
TRUTH = "truth.csv"


def held_back_of_generated(per_class: int) -> float:
    """Return the share of generated samples that arrives unlabelled, of which there are so many a class.

    Few are labelled at first, about sixteen a class: what people answer then shows, whichever photos chance makes the
    test photos.
    """
    return min(max(HELD_BACK, 1 - _LABELLED_A_CLASS / per_class), _MOST_HELD_BACK)


@dataclass(frozen=True)
class Photo:
    path: Path
    folder: str
    image_id: str

    def is_held_back(self, share: float = HELD_BACK) -> bool:
        """Whether it is of the share that arrives unlabelled."""
        # The last digits, since the first ones decide the split: the held-back part has the same splits as the rest.
        return int(self.image_id[-8:], 16) < share * 16**8


def photos_in(images: Path) -> Iterator[Photo]:
    """Yield every file of a folder of `NNN.class/` folders, in a stable order."""
    junk = Junk(JUNK)
    for path in sorted(images.glob("*/*")):
        if path.is_file() and not junk.holds(f"{path.parent.name}/{path.name}"):
            yield Photo(path, path.parent.name, image_id_of(path.read_bytes()))


def arrive_labelled(images: Path, landing: str, held_back: float = HELD_BACK) -> int:
    """Copy what is not held back into the labelled landing zone; return how many were new.

    Raises DlassetsError, before any is, where two classes would have one number.
    """
    there = files_under(landing)
    check_classes(landing, {name.partition("/")[0] for name in there}, _class_folders(images))
    photos = (photo for photo in photos_in(images) if not photo.is_held_back(held_back))
    return sum(_copy(photo.path, landing, f"{photo.folder}/{photo.path.name}", there) for photo in photos)


def arrive_unlabelled(images: Path, landing: str, kept_aside: str, labelled: str, held_back: float = HELD_BACK) -> int:
    """Copy the held-back photos under names that tell nothing, and write their true classes down aside.

    Those that came into the landing zone `labelled` before, when fewer were held back, are not.
    """
    came_labelled = files_under(labelled)
    photos = {
        photo.image_id: photo
        for photo in photos_in(images)
        if photo.is_held_back(held_back) and f"{photo.folder}/{photo.path.name}" not in came_labelled
    }
    truth = read_truth(kept_aside) | {image_id: photo.folder for image_id, photo in photos.items()}
    table = io.StringIO(newline="")
    csv.writer(table).writerows(sorted(truth.items()))
    _write(f"{kept_aside}/{TRUTH}", table.getvalue())
    there = files_under(landing)
    return sum(
        _copy(photo.path, landing, f"{image_id[:16]}{photo.path.suffix.lower()}", there)
        for image_id, photo in photos.items()
    )


def read_truth(kept_aside: str) -> dict[str, str]:
    """Return the true class folder of every held-back image, by image_id."""
    location = f"{kept_aside}/{TRUTH}"
    return dict(csv.reader(io.StringIO(read_whole(location).decode()))) if is_there(location) else {}


def as_it_stands(images: Path, formats: Iterable[str]) -> Taken:
    """Return what a folder of class folders has, and which of its files are not taken in."""
    files = list(files_in(images))
    photos = [path for path in files if len(path.parts) == 2 and is_photo_name(path.name)]  # noqa: PLR2004 - NNN.class/name
    elsewhere = [path for path in files if len(path.parts) != 2 and is_photo_name(path.name)]  # noqa: PLR2004
    sentences = in_words((path.name for path in {*files} - {*elsewhere}), formats)
    if elsewhere:
        lie = "photos lie" if len(elsewhere) > 1 else "photo lies"
        sentences.append(f"{len(elsewhere):,} {lie} in no class folder and are left out, such as {min(elsewhere)}.")
    classes = {path.parent for path in photos}
    understood = f"{len(photos):,} photos of {len(classes)} classes, by their folders as they stand."
    return Taken(len(photos), understood, tuple(sentences))


def has_class_folders(images: Path) -> bool:
    """Whether the folder holds `NNN.class` folders, and can be used as it stands."""
    return any(path.is_dir() and is_numbered(path.name) for path in images.iterdir())


def _class_folders(images: Path) -> set[str]:
    return {path.name for path in images.iterdir() if path.is_dir()}


def _copy(source: Path, landing: str, name: str, there: Container[str]) -> bool:
    """Copy a photo into the landing zone by this name, unless one is `there` already."""
    if name in there:
        return False
    _write(f"{landing}/{name}", source.read_bytes())
    return True


def _write(target: str, data: bytes | str) -> None:
    """Write it whole or not at all, since a pipeline may be watching the folder."""
    try:
        write_whole(target, data)
    except OSError as error:
        raise DlassetsError(
            f"{target} could not be written: {error}. Check that the place has room and is yours to write, then run "
            "again: what was copied stays."
        ) from error
