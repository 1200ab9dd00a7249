"""Photos in: raw images, what was refused, what they look like, and the label in force of each."""

from typing import Any

import dagster as dg

from dlassets.defs.common import INGEST, table_asset
from dlassets.lakehouse.tables import IMAGE_PROFILES, LABELED_IMAGES, QUARANTINED_FILES, RAW_IMAGES
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads


def _files_of_zones(_: Session, __: Reads, made: Made) -> dict[str, Any]:
    done = made.details["ingested"]
    return {"batches": done.batches, "by_landing_zone": done.zones, "left_out_as_junk": done.left_out}


def _gallery(session: Session, read: Reads, _: Made) -> dict[str, Any]:
    """Return the gallery's link and path (browsers follow no link from a page of a server to a file) and its counts."""
    from dlassets.images.data_uri import data_uri
    from dlassets.monitoring.gallery import write_gallery

    raw, profiles, refused = read[RAW_IMAGES], read.own(IMAGE_PROFILES), read[QUARANTINED_FILES]
    gallery = write_gallery(session.engine, session.lake, raw, profiles, refused, session.settings.landing)
    metadata: dict[str, Any] = {
        "gallery": dg.MetadataValue.url(gallery.url),
        "gallery_path": dg.MetadataValue.path(gallery.page),
        "defects": dg.MetadataValue.json(gallery.defects),
        "near_duplicate_groups": dg.MetadataValue.int(gallery.near_duplicate_groups),
        "near_duplicates_across_classes": dg.MetadataValue.int(gallery.across_classes),
    }
    if gallery.contact_sheet is not None:
        metadata["examples"] = dg.MetadataValue.md(f"![a few images]({data_uri(gallery.contact_sheet)})")
    return metadata


def _classes(session: Session, read: Reads, _: Made) -> dict[str, Any]:
    from dlassets.lakehouse.labels import known_classes

    classes = known_classes(session.engine, read.own(LABELED_IMAGES))
    return {"classes": {str(label): name for label, name in classes.items()}}


ingested_files = table_asset(steps.ingested_files, INGEST, _files_of_zones)
image_profiles = table_asset(steps.image_profiles, INGEST, _gallery)
labeled_images = table_asset(steps.labeled_images, INGEST, _classes)
