"""Photos in: raw images, what was refused, what they look like, and the label in force of each."""

from typing import Any

import dagster as dg

from dlassets.defs.common import INGEST, few_photos, file_page, page, table_asset
from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    IMAGE_PROFILES,
    LISTED_LABELS,
    QUARANTINED_FILES,
    RAW_IMAGES,
)
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads


def _files_of_zones(_: Session, __: Reads, made: Made) -> dict[str, Any]:
    done = made.details["ingested"]
    return {
        "batches": done.batches,
        "by_landing_zone": done.zones,
        "lists": done.lists,
        "left_out_as_junk": done.left_out,
        "left_out_by_pattern": done.unmatched,
    }


def _gallery(session: Session, read: Reads, _: Made) -> dict[str, Any]:
    """Return the gallery's page, its path (for where nobody serves the pages) and its counts."""
    from dlassets.images.data_uri import data_uri
    from dlassets.monitoring.gallery import write_gallery

    tables = read.named(RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES, QUARANTINED_FILES)
    tables[IMAGE_PROFILES.name] = read.own(IMAGE_PROFILES)
    gallery = write_gallery(session.engine, session.lake, tables, session.settings)
    metadata: dict[str, Any] = {
        "gallery": file_page(session, gallery.page),
        "gallery_path": dg.MetadataValue.path(gallery.page),
        "defects": dg.MetadataValue.json(gallery.defects),
        "near_duplicate_groups": dg.MetadataValue.int(gallery.near_duplicate_groups),
        "near_duplicates_across_classes": dg.MetadataValue.int(gallery.across_classes),
    }
    if gallery.contact_sheet is not None:
        metadata["examples"] = dg.MetadataValue.md(f"![a few images]({data_uri(gallery.contact_sheet)})")
    return metadata


def _classes(session: Session, read: Reads, made: Made) -> dict[str, Any]:
    from dlassets.lakehouse.classes import known_classes

    named = known_classes(session.engine, read.own(CLASSES))
    return {"classes": {str(label): name for label, name in named.items()}, "no_class": made.details["problems"]}


def _contradictions(session: Session, read: Reads, _: Made) -> dict[str, Any]:
    """Return of how many photos people say another class than the folder or list, a few of them, and where all are."""
    from dlassets.monitoring.views.contradictions import contradictions
    from dlassets.monitoring.views.reading import Reading

    found = contradictions(Reading(session.settings), most=8)
    metadata: dict[str, Any] = {"people_contradict_folders": found.total}
    if found.total:
        columns = {"name": "people say", "folder_name": "folder says", "annotator": "who", "path": "path"}
        metadata["contradictions"] = few_photos(session, read, [vars(row) for row in found.shown], columns)
        metadata["contradictions_page"] = page(session, "contradictions")
    return metadata


ingested_files = table_asset(steps.ingested_files, INGEST, _files_of_zones)
image_profiles = table_asset(steps.image_profiles, INGEST, _gallery)
classes = table_asset(steps.classes, INGEST, _classes)
labeled_images = table_asset(steps.labeled_images, INGEST, _contradictions)
