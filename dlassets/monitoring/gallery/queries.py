"""What the page shows, asked of the tables: counts, and sections of rows under a name. How it looks is for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.images.decode import SIDE
from dlassets.lakehouse.classes import SAID, SAID_LABEL, SAID_NAME, labels_said
from dlassets.settings import Settings

# What bounds the page. A thumbnail is some 4 kB in it, rarely 8.
CLASS_THUMBNAILS, CLASS_THUMBNAILS_AT_MOST = 360, 12
DEFECT_THUMBNAILS = 18
REFUSED_OF_A_REASON = 20
SIZES = 8

# Of an image that is shown.
SHOWN = "path, image_id, length, label, label_name, width, height, brightness, sharpness"

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


def profiled_files(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> Rows:
    """Return a row for every file that has a profile, computed once: some 200 bytes each."""
    query = f"""
        SELECT images.path, images.image_id, images.length, images.landing, {SAID_LABEL} AS label,
            {SAID_NAME} AS label_name, profiles.width, profiles.height, profiles.mode, profiles.channels,
            profiles.brightness, profiles.sharpness, profiles.perceptual_hash
        FROM raw_images AS images JOIN image_profiles AS profiles ON profiles.image_id = images.image_id {SAID}
    """  # noqa: S608 - constants
    read = {name: tables[name] for name in ("raw_images", "image_profiles")}
    images = engine.sql(query, {**read, **labels_said(engine, tables, settings)})
    images.count()
    return images


def modes(engine: Engine, images: Rows) -> list[Row]:
    """Return files, images and bytes by colour mode."""
    query = """
        SELECT mode, COUNT(*) AS files, COUNT(DISTINCT image_id) AS images, CAST(SUM(length) AS BIGINT) AS length
        FROM images GROUP BY mode ORDER BY files DESC, mode
    """
    return queried(engine, {"images": images}, query)


def sizes(engine: Engine, images: Rows) -> list[Row]:
    """Return the commonest sizes, each with how many sizes there are."""
    query = f"""
        SELECT width, height, COUNT(*) AS files, COUNT(*) OVER () AS kinds
        FROM images GROUP BY width, height ORDER BY files DESC, width, height LIMIT {SIZES}
    """  # noqa: S608 - made of constants
    return queried(engine, {"images": images}, query)


def by_class(engine: Engine, images: Rows) -> list[Row]:
    """Return a section for every class of the folders, and one for every landing zone's files without a class.

    An image_id is a hash, so the first ones in its order are a sample of a class that stays the same.
    """
    query = f"""
        WITH placed AS (
            SELECT {SHOWN}, CASE WHEN label IS NULL THEN landing END AS zone,
                ROW_NUMBER() OVER (
                    PARTITION BY label, CASE WHEN label IS NULL THEN landing END ORDER BY image_id, path) AS place,
                COUNT(*) OVER (PARTITION BY label, CASE WHEN label IS NULL THEN landing END) AS total
            FROM images
        )
        SELECT * FROM placed WHERE place <= {CLASS_THUMBNAILS_AT_MOST}
        ORDER BY label IS NULL, label, zone, place
    """  # noqa: S608 - made of constants
    rows = queried(engine, {"images": images}, query)
    sections = _sections(rows, lambda row: class_name(row) or f"{row['zone']}: no label")
    share = min(CLASS_THUMBNAILS_AT_MOST, max(1, CLASS_THUMBNAILS // max(1, len(sections))))
    for number, section in enumerate(sections):
        section["labelled"] = section["rows"][0]["label"] is not None
        section["rows"] = section["rows"][: share if number < CLASS_THUMBNAILS else 0]
    return sections


def by_defect(engine: Engine, images: Rows) -> list[Row]:
    """Return a section for every defect, the worst images first."""
    flagged = " UNION ALL ".join(
        f"SELECT {SHOWN}, '{defect.name}' AS defect, CAST({defect.worst_first} AS DOUBLE) AS severity "  # noqa: S608
        f"FROM images WHERE {defect.where}"
        for defect in DEFECTS
    )
    query = f"""
        WITH flagged AS ({flagged}), placed AS (
            SELECT flagged.*, ROW_NUMBER() OVER (PARTITION BY defect ORDER BY severity, path) AS place,
                COUNT(*) OVER (PARTITION BY defect) AS total
            FROM flagged
        )
        SELECT * FROM placed WHERE place <= {DEFECT_THUMBNAILS} ORDER BY defect, place
    """  # noqa: S608 - made of constants
    rows = queried(engine, {"images": images}, query)
    sections = {section["name"]: section for section in _sections(rows, lambda row: row["defect"])}
    return [
        {"meaning": defect.meaning, **sections.get(defect.name, {"name": defect.name, "total": 0, "rows": []})}
        for defect in DEFECTS
    ]


def by_reason(engine: Engine, quarantined_files: Snapshot) -> list[Row]:
    """Return a section for every reason of refusal, newest files first; not those that a person has dropped."""
    query = f"""
        WITH placed AS (
            SELECT path, reason, detail, length, load_date,
                ROW_NUMBER() OVER (
                    PARTITION BY reason ORDER BY load_date DESC, path, modificationTime, length) AS place,
                COUNT(*) OVER (PARTITION BY reason) AS total
            FROM quarantined_files WHERE dropped_at IS NULL
        )
        SELECT * FROM placed WHERE place <= {REFUSED_OF_A_REASON} ORDER BY total DESC, reason, place
    """  # noqa: S608 - made of constants
    rows = queried(engine, {"quarantined_files": quarantined_files}, query)
    return _sections(rows, lambda row: row["reason"])


def queried(engine: Engine, tables: Mapping[str, Snapshot | Rows], query: str) -> list[Row]:
    rows: list[Row] = engine.sql(query, tables).arrow().to_pylist()
    return rows


def class_name(row: Row) -> str | None:
    if row["label"] is None:
        return None
    name = row["label_name"]
    return str(row["label"]) if name in {None, str(row["label"])} else f"{row['label']} {name}"


def _sections(rows: Sequence[Row], name: Callable[[Row], str]) -> list[Row]:
    """Put rows that follow each other and have one name together."""
    sections: list[Row] = []
    for row in rows:
        if not sections or sections[-1]["name"] != name(row):
            sections.append({"name": name(row), "total": row["total"], "rows": []})
        sections[-1]["rows"].append(row)
    return sections
