"""The page as a file of the lake: what it is made of, what it says in short, and whether the one there still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dlassets.engines.base import Engine, Snapshot
from dlassets.errors import DlassetsError
from dlassets.images.data_uri import data_uri
from dlassets.images.near_duplicates import DISTANCE
from dlassets.monitoring.gallery import queries
from dlassets.monitoring.gallery.duplicates import near_duplicates
from dlassets.monitoring.gallery.thumbnails import contact_sheet, thumbnails_of
from dlassets.settings import Settings
from dlassets.storage.files import read_bytes, write_whole
from dlassets.storage.lake import Lake
from dlassets.storage.stores import filesystem_of

_PAGE, _SUMMARY, _SHEET = "index.html", "gallery.json", "contact_sheet.jpg"
# Of a gallery, not in its summary: the first may move with the lake, the second lies beside it.
_NOT_IN_SUMMARY = {"page", "contact_sheet", "changed"}
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Gallery:
    """What a gallery says in short. `page` is its path, or its URI where the lake is no local folder.

    `defects` are files by the name of the defect; `across_classes` are groups of near duplicates with more than one
    label. `contact_sheet` is a JPEG, None where there are no images. `changed` is False where the page was left.
    """

    page: str
    images: int
    files: int
    defects: dict[str, int]
    near_duplicate_groups: int
    near_duplicate_files: int
    across_classes: int
    refused: int
    contact_sheet: bytes | None
    changed: bool = True


def write_gallery(
    engine: Engine,
    lake: Lake,
    tables: Mapping[str, Snapshot],
    settings: Settings,
) -> Gallery:
    """Write `<root>/reports/image_gallery/index.html`, unless the one there was made of the same versions.

    `tables` are raw_images, deleted_files, classes, image_profiles and quarantined_files. Raises DlassetsError where
    the place cannot be written.
    """
    folder = f"{lake.reports}/image_gallery"
    digest = _digest(tables, settings)
    if existing := _existing_gallery(folder, digest):
        return existing
    images = queries.profiled_files(engine, tables, settings)
    classes, defects = queries.by_class(engine, images), queries.by_defect(engine, images)
    duplicates, refused = near_duplicates(engine, images), queries.by_reason(engine, tables["quarantined_files"])
    modes, sizes = queries.modes(engine, images), queries.sizes(engine, images)
    shown = {row["image_id"] for section in (*classes, *defects, *duplicates.shown) for row in section["rows"]}
    thumbnails = thumbnails_of(engine, tables["image_profiles"], shown)
    gallery = Gallery(
        page=f"{folder}/{_PAGE}",
        images=sum(mode["images"] for mode in modes),
        files=sum(mode["files"] for mode in modes),
        defects={section["name"]: section["total"] for section in defects},
        near_duplicate_groups=duplicates.groups,
        near_duplicate_files=duplicates.files,
        across_classes=duplicates.across_classes,
        refused=sum(reason["total"] for reason in refused),
        contact_sheet=contact_sheet(classes, thumbnails),
    )
    length = sum(mode["length"] for mode in modes)
    contents = {"gallery": gallery, "classes": classes, "defects": defects, "duplicates": duplicates}
    contents |= {"refused": refused, "modes": modes, "sizes": sizes, "length": length, "distance": DISTANCE}
    _write_files(gallery, folder, _rendered(contents, thumbnails), digest)
    return gallery


def _rendered(contents: Mapping[str, object], thumbnails: Mapping[str, bytes]) -> bytes:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["in_bytes"] = in_bytes
    environment.filters["data_uri"] = lambda image_id: data_uri(thumbnails[image_id])
    environment.globals["class_name"] = queries.class_name
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(contents).strip().encode()


def in_bytes(number: float) -> str:
    """Return a number of bytes as people say it, such as 34 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(number) < 1000:  # noqa: PLR2004 - what kilo means
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _digest(tables: Mapping[str, Snapshot], settings: Settings) -> str:
    """Return a name for what decides the page's bytes: versions, label rules, and the code and template beside this."""
    code = sorted(file for file in _HERE.iterdir() if file.suffix in {".py", ".html"})
    decides = [
        {name: snapshot.version for name, snapshot in tables.items()},
        {name: zone.model_dump() for name, zone in settings.landing.items()},
        settings.labels.model_dump(),
        [file.read_text(encoding="utf-8") for file in code],
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _existing_gallery(folder: str, digest: str) -> Gallery | None:
    """Return what the gallery in `folder` says, None where there is none or it was made of something else."""
    import pyarrow.fs as pafs

    filesystem, at = filesystem_of(folder)
    if filesystem.get_file_info(f"{at}/{_PAGE}").type != pafs.FileType.File:
        return None
    try:
        summary = json.loads(read_bytes(filesystem, f"{at}/{_SUMMARY}"))
        if summary.pop("made_of", None) != digest:
            return None
        sheet = read_bytes(filesystem, f"{at}/{_SHEET}") if summary["images"] else None
    except (FileNotFoundError, json.JSONDecodeError):  # written last: without it there is no whole gallery
        return None
    return Gallery(page=f"{folder}/{_PAGE}", **summary, contact_sheet=sheet, changed=False)


def _write_files(gallery: Gallery, folder: str, page: bytes, digest: str) -> None:
    summary = {name: value for name, value in asdict(gallery).items() if name not in _NOT_IN_SUMMARY}
    whole = json.dumps({"made_of": digest, **summary}).encode()
    # Between the first and the last no gallery stands, so one that is cut short is not taken for the one before it.
    files = ((_SUMMARY, b"{}"), (_PAGE, page), (_SHEET, gallery.contact_sheet), (_SUMMARY, whole))
    try:
        for name, content in files:
            if content is not None:
                write_whole(f"{folder}/{name}", content)
    except OSError as error:
        raise DlassetsError(
            f"The gallery in {folder} cannot be written: {error}. Check that the place exists, has room and is yours "
            "to write."
        ) from error
