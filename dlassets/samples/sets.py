"""Sets of photos to try the project with: generated, one's own, or public ones from the network.

The public archives could not be downloaded where this was written: fetching and unpacking them was tried against a
server on loopback and archives of the same layout.
"""

from __future__ import annotations

import difflib
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.samples.fetch import fetch
from dlassets.samples.generated import generate
from dlassets.samples.unpack import ARCHIVE_NAME, Taken, unpack
from dlassets.settings import load_settings
from dlassets.storage.cache import cache_path

if TYPE_CHECKING:
    from dlassets.engines.base import Progress

GENERATED = "generated"

Stage = Literal["generate", "download", "unpack"]
StageProgress = Callable[[Stage, int, int | None], None]


@dataclass(frozen=True)
class Archive:
    """A public set of photos."""

    url: str
    checksum: str | None  # `md5:…` or `sha256:…`, as published with the set
    description: str


ARCHIVES: dict[str, Archive] = {
    "caltech256": Archive(
        "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
        "md5:67b4f42ca05d46448c6bb8ecd2220f6d",
        "30,607 photos, 256 kinds of object and clutter, 1.2 GB (Griffin, Holub and Perona, 2007)",
    ),
    "caltech101": Archive(
        "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
        "md5:3138e1922a9193bfa496528edbbc45d0",
        "9,144 photos, 101 kinds of object and background, 137 MB (Li, Andreeto, Ranzato and Perona, 2004)",
    ),
    "clothing": Archive(
        "https://github.com/alexeygrigorev/clothing-dataset-small/archive/refs/heads/master.zip",
        None,  # GitHub makes this zip anew on request and does not promise the same bytes
        "3,781 photos, 10 kinds of clothes, 109 MB (Grigorev, 2020)",
    ),
}


def samples(
    source: str | Path,
    folder: Path,
    *,
    classes: int = 10,
    per_class: int = 60,
    seed: int = 0,
    checksum: str | None = None,
    progress: StageProgress | None = None,
) -> Taken:
    """Put the photos of `source` into `folder/NNN.class/` and return how many the set has, and what it was taken for.

    `source` is "generated" (which `classes`, `per_class` and `seed` are for), a name of ARCHIVES, an http(s) URL of a
    zip or tar (with its `checksum`, if known), or the path of a folder, zip or tar. Downloads are kept in
    `cache_path()`. Photos already in `folder` are left as they are and nothing is deleted, so a second run goes on
    from what is there, or does nothing. `progress` is told the stage and how far it is: photos, and bytes for
    "download". Raises DlassetsError for anything that ends without the photos.
    """

    def progress_of(stage: Stage) -> Progress | None:
        return partial(progress, stage) if progress else None

    name = str(source)
    refuse_unknown(name, checksum)
    if name == GENERATED:
        made = generate(folder, classes=classes, per_class=per_class, seed=seed, progress=progress_of("generate"))
        return Taken(made, f"{made:,} drawings of {classes} classes.")
    if name in ARCHIVES:
        name, checksum = ARCHIVES[name].url, checksum or ARCHIVES[name].checksum
    settings, place = load_settings(), Path(name)
    if "://" in name:
        place = fetch(name, cache_path(), checksum=checksum, progress=progress_of("download"))
    return unpack(place, folder, progress_of("unpack"), settings.archives, settings.ingest.formats)


def refuse_unknown(source: str, checksum: str | None = None) -> None:
    """Raise DlassetsError for a source that is no path, no URL and no name of a set, or a checksum of no download."""
    is_download = "://" in source or source in ARCHIVES
    if checksum and not is_download:
        raise DlassetsError(f"A checksum is of a download, and {source} is none: leave --checksum out.")
    if is_download or source == GENERATED or Path(source).exists():
        return
    known = [GENERATED, *ARCHIVES]
    near = difflib.get_close_matches(source, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DlassetsError(f"{source} is neither a path that exists, nor a URL, nor one of {', '.join(known)}.{hint}")


def set_of(source: str, seed: int = 0) -> str:
    """Return what tells a set from others: where it lies or its name, and a generated one's seed."""
    if source == GENERATED:
        return f"{GENERATED}, seed {seed}" if seed else GENERATED
    return masked(source) if source in ARCHIVES or "://" in source else str(Path(source).resolve())


def short_name(source: str) -> str:
    """Return a short name of a set, of letters, digits, - and _, such as photos for /data/photos.zip."""
    last = PurePosixPath(urllib.parse.urlsplit(source).path if "://" in source else Path(source).resolve()).name
    return re.sub(r"\W+", "-", ARCHIVE_NAME.sub("", last), flags=re.ASCII).strip("-") or "photos"
