"""The label in force of every image: its folder's, unless a person has said otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.images.folders import folder_label
from dlassets.lakehouse.hashing import split_of
from dlassets.lakehouse.tables import LABELED_IMAGES
from dlassets.settings import LandingZone, SplitSettings


def update_labels(
    engine: Engine,
    raw_images: Snapshot,
    human_labels: Snapshot,
    labeled_images: Snapshot,
    zones: Mapping[str, LandingZone],
    split: SplitSettings,
    commit: Commit,
) -> Written:
    """Merge the labels that are new or have changed into `labeled_images`.

    An answer is about an image, so it holds for every path with the same bytes; of several, the newest counts.
    """
    changed = engine.sql(
        f"""
        WITH answers AS (
            SELECT image_id, label, annotator, answered_at, ROW_NUMBER() OVER (
                PARTITION BY image_id ORDER BY answered_at DESC, request_id DESC, annotator DESC, label) AS place
            FROM human_labels WHERE status = 'accepted'
        ), names AS (
            SELECT label, MIN(label_name) AS label_name FROM classes GROUP BY label
        ), in_force AS (
            SELECT images.path, images.image_id,
                COALESCE(answers.label, classes.label) AS label,
                CASE WHEN answers.label IS NULL THEN 'folder' ELSE 'human' END AS source,
                answers.annotator,
                COALESCE(answers.answered_at, images.modificationTime) AS labeled_at
            FROM raw_images AS images
            LEFT JOIN answers ON answers.image_id = images.image_id AND answers.place = 1
            LEFT JOIN classes ON classes.landing = images.landing AND classes.folder = images.folder
            WHERE answers.label IS NOT NULL OR classes.label IS NOT NULL
        ), named AS (
            SELECT in_force.*, names.label_name, {split_of("in_force.image_id", split)} AS split
            FROM in_force LEFT JOIN names ON names.label = in_force.label
        )
        SELECT named.* FROM named LEFT JOIN labeled_images AS old ON old.path = named.path
        WHERE old.path IS NULL OR old.image_id <> named.image_id OR old.label <> named.label
            OR old.source <> named.source OR old.split <> named.split
            OR old.label_name IS DISTINCT FROM named.label_name OR old.annotator IS DISTINCT FROM named.annotator
        """,  # noqa: S608 - made of constants and a share
        {
            "raw_images": raw_images,
            "human_labels": human_labels,
            "labeled_images": labeled_images,
            "classes": classes_of_folders(engine, raw_images, zones),
        },
    )
    return engine.merge(changed, LABELED_IMAGES, labeled_images.uri, commit)


def classes_of_folders(engine: Engine, raw_images: Snapshot, zones: Mapping[str, LandingZone]) -> Rows:
    """Return landing, folder, label and label_name of every folder that says a label, by its zone's rule."""
    import pyarrow as pa

    folders = engine.sql("SELECT DISTINCT landing, folder FROM raw_images", {"raw_images": raw_images}).arrow()
    rows = []
    for landing, folder in zip(*(folders[name].to_pylist() for name in ("landing", "folder")), strict=True):
        zone = zones.get(landing)
        if zone is not None and zone.labelled and (found := folder_label(folder, re.compile(zone.label_rule))):
            label, class_name = found
            rows.append((landing, folder, label, class_name or str(label)))
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    types = (("landing", pa.string()), ("folder", pa.string()), ("label", pa.int64()), ("label_name", pa.string()))
    return engine.rows(
        pa.table({name: pa.array(values, type_) for (name, type_), values in zip(types, columns, strict=True)})
    )


def known_classes(engine: Engine, labeled_images: Snapshot) -> dict[int, str]:
    """Return the name of every class that has a labelled image, by its label."""
    classes = engine.sql(
        "SELECT label, MIN(label_name) AS label_name FROM labeled_images GROUP BY label ORDER BY label",
        {"labeled_images": labeled_images},
    ).arrow()
    return dict(zip(classes["label"].to_pylist(), classes["label_name"].to_pylist(), strict=True))
