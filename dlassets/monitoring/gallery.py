"""One page of pictures to look at: by class, by what is wrong with them, by near duplicates, and what was refused.

It is made of the tables' narrow columns and the thumbnails of those few that are shown, so it costs a few queries and
has a few megabytes however large the lake is.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image, ImageOps

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.errors import DlassetsError
from dlassets.images.decode import SIDE
from dlassets.images.near_duplicates import DISTANCE, groups
from dlassets.lakehouse.labels import classes_of_folders
from dlassets.lakehouse.tables import IMAGE_PROFILES
from dlassets.settings import LandingZone
from dlassets.storage.files import read_bytes, write_whole
from dlassets.storage.lake import Lake, is_uri
from dlassets.storage.stores import filesystem_of

if TYPE_CHECKING:
    import pyarrow as pa

# What bounds the page. A thumbnail is some 4 kB in it, rarely 8.
CLASS_THUMBNAILS, CLASS_THUMBNAILS_AT_MOST = 360, 12
DEFECT_THUMBNAILS = 18
GROUPS, GROUP_THUMBNAILS = 24, 6
REFUSED_OF_A_REASON = 20
SIZES = 8

_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_TILE = 5, 4, 80

_PAGE, _SUMMARY, _SHEET = "index.html", "gallery.json", "contact_sheet.jpg"
_TEMPLATE = Path(__file__).with_name("gallery.html")

Row = dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """`where` is SQL over a profile's columns, `worst_first` a number that is least for the worst."""

    name: str
    meaning: str
    where: str
    worst_first: str


DEFECTS = (
    Defect("blurred", "sharpness below 50", "sharpness < 50", "sharpness"),
    Defect("dark", "mean brightness below 50 of 255", "brightness < 50", "brightness"),
    Defect("overexposed", "mean brightness above 210 of 255", "brightness > 210", "-brightness"),
    Defect(
        "tiny",
        f"shorter side below {SIDE // 2} pixels, half of what a model looks at",
        f"LEAST(width, height) < {SIDE // 2}",
        "LEAST(width, height)",
    ),
    Defect(
        "extreme aspect ratio",
        "longer side more than 3 times the shorter",
        "GREATEST(width, height) > 3 * LEAST(width, height)",
        "-CAST(GREATEST(width, height) AS DOUBLE) / LEAST(width, height)",
    ),
    Defect("greyscale", "stored without colours", "channels <= 2 AND mode NOT IN ('P', 'PA')", "0"),
)


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

    @property
    def url(self) -> str:
        return self.page if is_uri(self.page) else f"file://{quote(self.page)}"


def write_gallery(
    engine: Engine,
    lake: Lake,
    raw_images: Snapshot,
    image_profiles: Snapshot,
    quarantined_files: Snapshot,
    zones: Mapping[str, LandingZone],
) -> Gallery:
    """Write `<root>/reports/image_gallery/index.html`, unless the one there was made of the same versions.

    Raises DlassetsError where the place cannot be written.
    """
    folder = lake.under("reports", "image_gallery")
    made_of = _digest((raw_images, image_profiles, quarantined_files), zones)
    if standing := _standing(folder, made_of):
        return standing
    images = _images(engine, raw_images, image_profiles, zones)
    modes, sizes = _modes(engine, images), _sizes(engine, images)
    classes, defects = _classes(engine, images), _defects(engine, images)
    duplicates = _near_duplicates(engine, images)
    refused = _refused(engine, quarantined_files)
    shown = [row for section in (*classes, *defects, *duplicates.shown) for row in section["rows"]]
    thumbnails = _thumbnails(engine, image_profiles, {row["image_id"] for row in shown})
    gallery = Gallery(
        page=f"{folder}/{_PAGE}",
        images=sum(mode["images"] for mode in modes),
        files=sum(mode["files"] for mode in modes),
        defects={section["name"]: section["total"] for section in defects},
        near_duplicate_groups=duplicates.groups,
        near_duplicate_files=duplicates.files,
        across_classes=duplicates.across_classes,
        refused=sum(reason["total"] for reason in refused),
        contact_sheet=_contact_sheet(classes, thumbnails),
    )
    page = _rendered(
        thumbnails=thumbnails,
        gallery=gallery,
        length=sum(mode["length"] for mode in modes),
        modes=modes,
        sizes=sizes,
        classes=classes,
        defects=defects,
        duplicates=duplicates,
        refused=refused,
        distance=DISTANCE,
    )
    _write(folder, page, made_of, gallery)
    return gallery


_SHOWN = "path, image_id, length, label, label_name, width, height, brightness, sharpness"


def _images(engine: Engine, raw_images: Snapshot, image_profiles: Snapshot, zones: Mapping[str, LandingZone]) -> Rows:
    """Return a row for every file that has a profile, computed once: some 200 bytes each."""
    images = engine.sql(
        """
        SELECT raw_images.path, raw_images.image_id, raw_images.length, raw_images.landing, classes.label,
            classes.label_name, profiles.width, profiles.height, profiles.mode, profiles.channels, profiles.brightness,
            profiles.sharpness, profiles.perceptual_hash
        FROM raw_images JOIN image_profiles AS profiles ON profiles.image_id = raw_images.image_id
        LEFT JOIN classes ON classes.landing = raw_images.landing AND classes.folder = raw_images.folder
        """,
        {
            "raw_images": raw_images,
            "image_profiles": image_profiles,
            "classes": classes_of_folders(engine, raw_images, zones),
        },
    )
    images.count()
    return images


def _modes(engine: Engine, images: Rows) -> list[Row]:
    """Return files, images and bytes by colour mode."""
    return _queried(
        engine,
        {"images": images},
        """
        SELECT mode, COUNT(*) AS files, COUNT(DISTINCT image_id) AS images, CAST(SUM(length) AS BIGINT) AS length
        FROM images GROUP BY mode ORDER BY files DESC, mode
        """,
    )


def _sizes(engine: Engine, images: Rows) -> list[Row]:
    return _queried(
        engine,
        {"images": images},
        f"""
        SELECT width, height, COUNT(*) AS files, COUNT(*) OVER () AS kinds
        FROM images GROUP BY width, height ORDER BY files DESC, width, height LIMIT {SIZES}
        """,  # noqa: S608 - made of constants
    )


def _classes(engine: Engine, images: Rows) -> list[Row]:
    """Return a section for every class of the folders, and one for every landing zone's files without a class.

    An image_id is a hash, so the first ones in its order are a sample of a class that stays the same.
    """
    rows = _queried(
        engine,
        {"images": images},
        f"""
        WITH placed AS (
            SELECT {_SHOWN}, CASE WHEN label IS NULL THEN landing END AS zone,
                ROW_NUMBER() OVER (
                    PARTITION BY label, CASE WHEN label IS NULL THEN landing END ORDER BY image_id, path) AS place,
                COUNT(*) OVER (PARTITION BY label, CASE WHEN label IS NULL THEN landing END) AS total
            FROM images
        )
        SELECT * FROM placed WHERE place <= {CLASS_THUMBNAILS_AT_MOST}
        ORDER BY label IS NULL, label, zone, place
        """,  # noqa: S608 - made of constants
    )
    sections = _sections(rows, lambda row: _class_name(row) or f"{row['zone']}: no label")
    share = min(CLASS_THUMBNAILS_AT_MOST, max(1, CLASS_THUMBNAILS // max(1, len(sections))))
    return [
        {
            **section,
            "labelled": section["rows"][0]["label"] is not None,
            "rows": section["rows"][: share if number < CLASS_THUMBNAILS else 0],
        }
        for number, section in enumerate(sections)
    ]


def _defects(engine: Engine, images: Rows) -> list[Row]:
    flagged = " UNION ALL ".join(
        f"SELECT {_SHOWN}, '{defect.name}' AS defect, CAST({defect.worst_first} AS DOUBLE) AS severity "  # noqa: S608
        f"FROM images WHERE {defect.where}"
        for defect in DEFECTS
    )
    rows = _queried(
        engine,
        {"images": images},
        f"""
        WITH flagged AS ({flagged}), placed AS (
            SELECT flagged.*, ROW_NUMBER() OVER (PARTITION BY defect ORDER BY severity, path) AS place,
                COUNT(*) OVER (PARTITION BY defect) AS total
            FROM flagged
        )
        SELECT * FROM placed WHERE place <= {DEFECT_THUMBNAILS} ORDER BY defect, place
        """,  # noqa: S608 - made of constants
    )
    found = {section["name"]: section for section in _sections(rows, lambda row: row["defect"])}
    return [
        {"meaning": defect.meaning, **found.get(defect.name, {"name": defect.name, "total": 0, "rows": []})}
        for defect in DEFECTS
    ]


@dataclass(frozen=True)
class _Duplicates:
    groups: int
    files: int
    across_classes: int
    shown: list[Row]


def _near_duplicates(engine: Engine, images: Rows) -> _Duplicates:
    """Group files, not images, so that the same bytes under two paths are a group as well."""
    import pyarrow as pa

    hashed = engine.sql(
        "SELECT path, label, perceptual_hash FROM images WHERE perceptual_hash IS NOT NULL ORDER BY path",
        {"images": images},
    ).arrow()
    paths = hashed["path"].to_pylist()
    found = groups(paths, hashed["perceptual_hash"].to_numpy())
    grouped = {path for group in found for path in group}
    labels = {path: label.as_py() for path, label in zip(paths, hashed["label"], strict=True) if path in grouped}
    several = [len({labels[path] for path in group} - {None}) > 1 for group in found]
    chosen = [path for group in found[:GROUPS] for path in group[:GROUP_THUMBNAILS]]
    rows = _queried(
        engine,
        {"images": images, "chosen": engine.rows(pa.table({"chosen_path": pa.array(chosen, pa.string())}))},
        f"SELECT {_SHOWN} FROM images JOIN chosen ON path = chosen_path",  # noqa: S608 - constants
    )
    by_path = {row["path"]: row for row in rows}
    shown = [
        {
            "name": f"{len(group)} files",
            "total": len(group),
            "several": across,
            "rows": [by_path[path] for path in group[:GROUP_THUMBNAILS]],
        }
        for group, across in zip(found[:GROUPS], several, strict=False)
    ]
    return _Duplicates(len(found), len(grouped), sum(several), shown)


def _refused(engine: Engine, quarantined_files: Snapshot) -> list[Row]:
    """Return a section for every reason, newest files first; not those that a person has dropped."""
    rows = _queried(
        engine,
        {"quarantined_files": quarantined_files},
        f"""
        WITH placed AS (
            SELECT path, reason, detail, length, load_date,
                ROW_NUMBER() OVER (
                    PARTITION BY reason ORDER BY load_date DESC, path, modificationTime, length) AS place,
                COUNT(*) OVER (PARTITION BY reason) AS total
            FROM quarantined_files WHERE dropped_at IS NULL
        )
        SELECT * FROM placed WHERE place <= {REFUSED_OF_A_REASON} ORDER BY total DESC, reason, place
        """,  # noqa: S608 - made of constants
    )
    return _sections(rows, lambda row: row["reason"])


def _thumbnails(engine: Engine, image_profiles: Snapshot, image_ids: set[str]) -> dict[str, bytes]:
    import pyarrow as pa

    keys = engine.rows(pa.table({"image_id": pa.array(sorted(image_ids), pa.string())}))
    columns = IMAGE_PROFILES.columns_named("image_id", "thumbnail")
    found = engine.map(image_profiles, ["image_id", "thumbnail"], keys, _same, columns).arrow()
    pairs = zip(found["image_id"].to_pylist(), found["thumbnail"].to_pylist(), strict=True)
    return {image_id: thumbnail for image_id, thumbnail in pairs if thumbnail}


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: the rows themselves."""
    return batch


def _queried(engine: Engine, tables: Mapping[str, Snapshot | Rows], query: str) -> list[Row]:
    found: list[Row] = engine.sql(query, tables).arrow().to_pylist()
    return found


def _sections(rows: Sequence[Row], name: Callable[[Row], str]) -> list[Row]:
    """Put rows that follow each other and have one name together."""
    sections: list[Row] = []
    for row in rows:
        if not sections or sections[-1]["name"] != name(row):
            sections.append({"name": name(row), "total": row["total"], "rows": []})
        sections[-1]["rows"].append(row)
    return sections


def _class_name(row: Row) -> str | None:
    if row["label"] is None:
        return None
    name = row["label_name"]
    return str(row["label"]) if name in {None, str(row["label"])} else f"{row['label']} {name}"


def _contact_sheet(classes: Sequence[Row], thumbnails: Mapping[str, bytes]) -> bytes | None:
    """Return a JPEG with a picture of each class, then a second of each, and so on."""
    in_turn = (row for place in zip_longest(*(section["rows"] for section in classes)) for row in place if row)
    chosen = [thumbnails[row["image_id"]] for row in islice(in_turn, _SHEET_COLUMNS * _SHEET_ROWS)]
    if not chosen:
        return None
    rows = -(-len(chosen) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _SHEET_TILE, rows * _SHEET_TILE), "white")
    for number, content in enumerate(chosen):
        row, column = divmod(number, _SHEET_COLUMNS)
        with Image.open(io.BytesIO(content)) as image:
            tile = ImageOps.pad(image, (_SHEET_TILE - 2, _SHEET_TILE - 2), color="white")
            sheet.paste(tile, (column * _SHEET_TILE + 1, row * _SHEET_TILE + 1))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=75)
    return out.getvalue()


def _rendered(thumbnails: Mapping[str, bytes], **what: Any) -> bytes:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["in_bytes"] = in_bytes
    environment.filters["data_uri"] = lambda image_id: data_uri(thumbnails[image_id])
    environment.globals["class_name"] = _class_name
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(**what).strip().encode()


def data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def in_bytes(number: float) -> str:
    """Return a number of bytes as people say it, such as 34 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(number) < 1000:  # noqa: PLR2004 - what kilo means
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _digest(snapshots: Sequence[Snapshot], zones: Mapping[str, LandingZone]) -> str:
    """Return a name for everything that decides the page's bytes: versions, label rules, and this code."""
    decides = [
        [[snapshot.name, snapshot.version] for snapshot in snapshots],
        {name: zone.model_dump() for name, zone in zones.items()},
        Path(__file__).read_text(encoding="utf-8"),
        _TEMPLATE.read_text(encoding="utf-8"),
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _standing(folder: str, made_of: str) -> Gallery | None:
    """Return what the gallery in `folder` says, None where there is none or it was made of something else."""
    import pyarrow.fs as pafs

    filesystem, at = filesystem_of(folder)
    if filesystem.get_file_info(f"{at}/{_PAGE}").type != pafs.FileType.File:
        return None
    try:
        summary = json.loads(read_bytes(filesystem, f"{at}/{_SUMMARY}"))
        if summary.pop("made_of", None) != made_of:
            return None
        sheet = read_bytes(filesystem, f"{at}/{_SHEET}") if summary["images"] else None
    except (FileNotFoundError, json.JSONDecodeError):  # written last, so there is no whole gallery without it
        return None
    return Gallery(page=f"{folder}/{_PAGE}", **summary, contact_sheet=sheet, changed=False)


def _write(folder: str, page: bytes, made_of: str, gallery: Gallery) -> None:
    summary = asdict(replace(gallery, contact_sheet=None))
    for name in ("page", "contact_sheet", "changed"):  # the first may move with the lake, the others lie beside it
        summary.pop(name)
    files = {_PAGE: page, _SHEET: gallery.contact_sheet, _SUMMARY: json.dumps({"made_of": made_of, **summary}).encode()}
    try:
        for name, content in files.items():
            if content is not None:
                write_whole(f"{folder}/{name}", content)
    except OSError as error:
        raise DlassetsError(
            f"The gallery in {folder} cannot be written: {error}. Check that the place exists, has room and is yours "
            "to write."
        ) from error
