"""Photos in: raw images, what was refused, what they look like, and the label in force of each."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.defs.common import INGEST, provenance, table_result, table_spec
from dlassets.engines.base import Commit, Written
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    HUMAN_LABELS,
    IMAGE_PROFILES,
    LABELED_IMAGES,
    QUARANTINED_FILES,
    RAW_IMAGES,
)
from dlassets.resources.lake import LakeResource
from dlassets.resources.progress import LoggedProgress

if TYPE_CHECKING:
    from dlassets.monitoring.gallery import Gallery


@dg.multi_asset(
    specs=[table_spec(table, INGEST) for table in (RAW_IMAGES, QUARANTINED_FILES, DELETED_FILES)],
    description="Take every new or changed file of every landing zone in, once, and note what has gone.",
    can_subset=True,  # so that `--select raw_images` will do; all three are written whichever is asked for
)
def ingested_files(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    progress: dg.ResourceParam[LoggedProgress],
) -> Iterator[dg.MaterializeResult]:
    from dlassets.intake.handover import ZONE_TAG
    from dlassets.intake.ingest import ingest

    origin = provenance(context, RAW_IMAGES.name, [])
    report = progress.of(context, "files read")
    listed_zone = context.run.tags.get(ZONE_TAG)
    done = ingest(lake.engine, lake.lake, lake.settings, origin.as_dict(), report, listed_zone=listed_zone)
    taken_in = Written(0, done.images, done.replaced, changed=done.images + done.replaced > 0)
    refused = Written(0, done.quarantined, changed=done.quarantined > 0)
    gone = Written(0, done.deleted, done.returned, changed=done.deleted + done.returned > 0)
    if done.bad_events:
        context.log.warning(
            f"{done.bad_events} lines of event files could not be read, so every file was listed instead. The first: "
            f"{done.first_bad}"
        )
    results = (
        table_result(
            lake, RAW_IMAGES, taken_in, origin, metadata={"batches": done.batches, "by_landing_zone": done.zones}
        ),
        table_result(lake, QUARANTINED_FILES, refused, origin),
        table_result(lake, DELETED_FILES, gone, origin),
    )
    yield from (result for result in results if result.asset_key in context.selected_asset_keys)


@dg.multi_asset(specs=[table_spec(IMAGE_PROFILES, INGEST, reads=[RAW_IMAGES])])
def image_profiles(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    progress: dg.ResourceParam[LoggedProgress],
) -> dg.MaterializeResult:
    from dlassets.lakehouse.derived import derive
    from dlassets.lakehouse.profiles import profile_images
    from dlassets.monitoring.gallery import write_gallery

    (raw,) = lake.pin(RAW_IMAGES.name)
    origin = provenance(context, IMAGE_PROFILES.name, [raw])
    report = progress.of(context, "images profiled")
    written = derive(lake.engine, lake.lake, raw, IMAGE_PROFILES, profile_images, origin.as_dict(), progress=report)
    profiles, refused = lake.pin(IMAGE_PROFILES.name, QUARANTINED_FILES.name)
    gallery = write_gallery(lake.engine, lake.lake, raw, profiles, refused, lake.settings.landing)
    return table_result(lake, IMAGE_PROFILES, written, origin, metadata=_metadata(gallery))


def _metadata(gallery: "Gallery") -> dict[str, dg.MetadataValue]:
    """Return the gallery's link and path (browsers follow no link from a page of a server to a file) and its counts."""
    from dlassets.monitoring.gallery import data_uri

    metadata: dict[str, dg.MetadataValue] = {
        "gallery": dg.MetadataValue.url(gallery.url),
        "gallery_path": dg.MetadataValue.path(gallery.page),
        "defects": dg.MetadataValue.json(gallery.defects),
        "near_duplicate_groups": dg.MetadataValue.int(gallery.near_duplicate_groups),
        "near_duplicates_across_classes": dg.MetadataValue.int(gallery.across_classes),
    }
    if gallery.contact_sheet is not None:
        metadata["examples"] = dg.MetadataValue.md(f"![a few images]({data_uri(gallery.contact_sheet)})")
    return metadata


@dg.multi_asset(specs=[table_spec(LABELED_IMAGES, INGEST, reads=[RAW_IMAGES, DELETED_FILES, HUMAN_LABELS])])
def labeled_images(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> dg.MaterializeResult:
    from dlassets.lakehouse.labels import known_classes, update_labels

    raw, deleted, human, labeled = lake.pin(RAW_IMAGES.name, DELETED_FILES.name, HUMAN_LABELS.name, LABELED_IMAGES.name)
    split = lake.settings.split
    origin = provenance(context, LABELED_IMAGES.name, [raw, deleted, human], parameters=split.model_dump())
    commit = Commit(origin.as_dict())
    written = update_labels(lake.engine, raw, deleted, human, labeled, lake.settings.landing, split, commit)
    classes = known_classes(lake.engine, lake.pin(LABELED_IMAGES.name)[0])
    return table_result(
        lake, LABELED_IMAGES, written, origin, metadata={"classes": {str(k): v for k, v in classes.items()}}
    )
