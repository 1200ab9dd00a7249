"""The steps that take photos in, look at them and label them."""

from __future__ import annotations

from dlassets.engines.base import Written
from dlassets.lakehouse.tables import (
    CLASSES,
    CONSENSUS,
    DELETED_FILES,
    HUMAN_LABELS,
    IMAGE_PROFILES,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    LISTED_LABELS,
    QUARANTINED_FILES,
    RAW_IMAGES,
)
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, commit_of, step
from dlassets.pipeline.steps.shared import MOST_SAID, derived


@step(RAW_IMAGES, QUARANTINED_FILES, DELETED_FILES, LISTED_LABELS)
def ingested_files(session: Session, read: Reads, report: Report) -> Made:
    """Take every new or changed file of every landing zone in, once, lists of labels too, and note what has gone."""
    from dlassets.intake.handover import ZONE_TAG
    from dlassets.intake.ingest import ingest

    provenance = read.provenance()
    progress = report.progress("files read")
    zone = session.tags.get(ZONE_TAG)
    done = ingest(session.engine, session.lake, session.settings, provenance.as_dict(), progress, listed_zone=zone)
    if done.bad_events:
        report.warning(
            f"{done.bad_events} lines of event files could not be read, so every file was listed instead. The first: "
            f"{done.first_bad}"
        )
    for problem in done.bad_lists[:MOST_SAID]:
        report.warning(f"{problem}. What it said before stands.")
    written = {
        RAW_IMAGES.name: Written(0, done.images, done.replaced, changed=done.images + done.replaced > 0),
        QUARANTINED_FILES.name: Written(0, done.quarantined, changed=done.quarantined > 0),
        DELETED_FILES.name: Written(0, done.deleted, done.returned, changed=done.deleted + done.returned > 0),
        LISTED_LABELS.name: Written(0, done.listed, changed=done.lists > 0),
    }
    return Made(provenance, written, {"ingested": done})


@step(CLASSES, reads=[RAW_IMAGES, DELETED_FILES, LISTED_LABELS])
def classes(session: Session, read: Reads, report: Report) -> Made:
    """Give each class that folders say its number and its name, once; say which folders contradict those."""
    from dlassets.lakehouse.classes import update_classes
    from dlassets.lakehouse.snapshots import replanned

    settings, tables = session.settings, read.named(RAW_IMAGES, DELETED_FILES, LISTED_LABELS)
    provenance = read.provenance(ignore_case=settings.labels.ignore_case)

    def update() -> tuple[Written, list[str]]:
        now = {**tables, CLASSES.name: read.own(CLASSES)}
        return update_classes(session.engine, now, settings, commit_of(provenance))

    written, problems = replanned(update)
    for problem in problems[:MOST_SAID]:
        report.warning(f"Photos of this folder have no label. {problem}. Rename the folder.")
    return Made(provenance, {CLASSES.name: written}, {"problems": problems})


# The gallery, which Dagster shows beside it, is by class, and of what was refused as well.
@step(IMAGE_PROFILES, reads=[RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES, LISTED_LABELS, CLASSES])
def image_profiles(session: Session, read: Reads, report: Report) -> Made:
    """Look at every new image: its size, brightness, sharpness, a thumbnail."""
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.profiles import profile_images

    return derived(session, read, Derivation(IMAGE_PROFILES, profile_images), report, "images profiled")


@step(
    LABELED_IMAGES,
    reads=[RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES, HUMAN_LABELS, CONSENSUS, IMAGE_PROFILES],
    looks_back=[LABEL_REQUESTS],
)
def labeled_images(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001 - as every step
    """Bring the label in force of each image up to what folders and people say."""
    from dlassets.lakehouse.labels import update_labels

    settings = session.settings
    tables = read.named(RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES, HUMAN_LABELS, CONSENSUS, IMAGE_PROFILES)
    tables |= read.named(LABEL_REQUESTS)
    provenance = read.provenance(**settings.split.model_dump())
    tables[LABELED_IMAGES.name] = read.own(LABELED_IMAGES)
    written = update_labels(session.engine, tables, settings, commit_of(provenance))
    return Made(provenance, {LABELED_IMAGES.name: written})
