"""The label in force of every image: its folder's, unless a person has said otherwise, and what to do where two differ.

`labeled_images` holds what is said of each path. Equal bytes under paths that say different labels are a conflict,
which the setting `labels.conflicts` resolves: `labels_in_force` and `undecided` are that setting as SQL, and everything
that learns, scores, asks or checks reads the labels through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlassets.engines.base import REPLACED_AT_ONCE, Commit, Engine, Snapshot, Written
from dlassets.lakehouse.classes import SAID, SAID_AT, SAID_BY, SAID_LABEL, labels_said, with_classes_in_force
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.hashing import split_of
from dlassets.lakehouse.split_groups import GROUPS, with_groups
from dlassets.lakehouse.tables import (
    ACCEPTED,
    CONSENSUS,
    FOLDER,
    HONEYPOT,
    HUMAN_LABELS,
    LABELED_IMAGES,
    OPEN,
    TAKEN_BACK,
)
from dlassets.settings import LabelSettings, Settings

# SQL over `labeled_images`: the images that carry different labels under different paths.
CONFLICTS = "SELECT image_id FROM labeled_images GROUP BY image_id HAVING MIN(label) <> MAX(label)"

# SQL: the order of answers in `human_labels`, the newest first. Those of before there was an order are the oldest.
NEWEST_ANSWER = "COALESCE(read_order, 0) DESC, answered_at DESC, request_id DESC, annotator DESC, label"

# SQL over a row of `human_labels`: when the person answered, not later than it was read, whatever their own clock says.
GIVEN_AT = "LEAST(answered_at, COALESCE(read_at, answered_at))"

# SQL over a row of `human_labels`: its time by the clock of the service that gave it, which orders that service's own
# answers. Into the folder's files many computers write their times: these are in the order in which they were read.
_OWN_TIME = f"CASE WHEN COALESCE(service, '{FOLDER}') <> '{FOLDER}' THEN LEAST(answered_at, read_at) END"


def _standing(human_labels: str) -> str:
    return f"""
    SELECT request_id, path, image_id, label, annotator, answered_at, read_at, read_order, service, seconds, origin
    FROM (
        SELECT of_service.*, ROW_NUMBER() OVER (
            PARTITION BY request_id, annotator ORDER BY {NEWEST_ANSWER}) AS place
        FROM (
            SELECT said.*, ROW_NUMBER() OVER (
                PARTITION BY request_id, annotator, COALESCE(service, '{FOLDER}')
                ORDER BY {_OWN_TIME} DESC, {NEWEST_ANSWER}) AS place_there
            FROM {human_labels} AS said WHERE status IN ('{ACCEPTED}', '{TAKEN_BACK}')) AS of_service
        WHERE place_there = 1) AS newest
    WHERE place = 1 AND status = '{ACCEPTED}'
"""  # noqa: S608 - constants


# SQL over `human_labels`: each person's newest answer to each request, unless it was taken back. What that person had
# answered before does not come back then. A skip takes nothing back. Of what one service gave, its newest answer by its
# own clock counts, also where an older one was read after it; that one and those of other services, as they were read.
STANDING_ANSWERS = _standing("human_labels")
# The same over `human_labels` and `classes`, with the classes in force: for whatever looks at the labels.
STANDING_LABELS = _standing(f"({with_classes_in_force(HUMAN_LABELS)})")
# SQL over `human_labels`, `classes` and `label_requests`: those of them that say what a photo is. To a honeypot, none
# does.
LABELING_ANSWERS = f"""
    SELECT standing.* FROM ({STANDING_LABELS}) AS standing
    LEFT JOIN (SELECT request_id FROM label_requests WHERE strategy = '{HONEYPOT}') AS honeypots
        ON honeypots.request_id = standing.request_id
    WHERE honeypots.request_id IS NULL
"""  # noqa: S608 - constants

# SQL over `label_requests` and `human_labels`: open requests that several people are to answer, of whom somebody has
# who gave no name. All who give none are one person, so no two of them can answer one.
NAMELESS = f"""
    SELECT r.request_id, r.path, r.answers_wanted FROM label_requests AS r
    WHERE r.status = '{OPEN}' AND r.answers_wanted > 1 AND EXISTS (
        SELECT 1 FROM ({STANDING_ANSWERS}) AS standing
        WHERE standing.request_id = r.request_id AND COALESCE(standing.annotator, '') = '')
"""  # noqa: S608 - constants
NAMES_WANTED = (
    "All who give no name count as one person, and these wait for others. Where people move photos or fill in lists, "
    "have them write who they are into a column `annotator` of the list; or ask them on the page of `dlassets label` "
    "or in Label Studio, which ask for a name."
)

# What a conflict comes to, in words, by the setting `labels.conflicts`.
CONFLICT_OUTCOMES = {
    "drop": "the training set leaves these images out",
    "first": "the label of the oldest file counts for the image",
    "ask": "people are asked, and the training set leaves these images out until they have answered",
}


def labels_in_force(settings: LabelSettings) -> str:
    """Return SQL over `labeled_images` for path, image_id, label, label_name and split: one row an image with a label.

    The row is that of the image's oldest path. An image in conflict has one only where the oldest counts.
    """
    agreed = "" if settings.conflicts == "first" else f"AND image_id NOT IN ({CONFLICTS})"
    return f"""
        SELECT path, image_id, label, label_name, split FROM (
            SELECT path, image_id, label, label_name, split, ROW_NUMBER() OVER (
                PARTITION BY image_id ORDER BY labeled_at, path) AS place
            FROM labeled_images) AS ranked
        WHERE place = 1 {agreed}
    """  # noqa: S608 - constants


def usable_with_label(settings: LabelSettings) -> str:
    """Return SQL for path and image_id of what can be learned: images with a label in force that are usable.

    It is over `labeled_images` and what USABLE is over.
    """
    return f"""
        SELECT in_force.path, in_force.image_id FROM ({labels_in_force(settings)}) AS in_force
        JOIN ({USABLE}) AS images ON images.path = in_force.path AND images.image_id = in_force.image_id
    """  # noqa: S608 - constants


def undecided(settings: LabelSettings) -> str:
    """Return SQL over `labeled_images` for image_id: the images that people are to decide, labelled as they are."""
    return CONFLICTS if settings.conflicts == "ask" else "SELECT image_id FROM labeled_images WHERE FALSE"


def update_labels(
    engine: Engine,
    tables: Mapping[str, Snapshot],
    settings: Settings,
    commit: Commit,
) -> Written:
    """Merge the labels that are new or have changed into `labeled_images`, and remove those that nothing says any more.

    `tables` are raw_images, deleted_files, classes, human_labels, consensus, label_requests, image_profiles and
    labeled_images.

    An answer is about an image, so it holds for every path with the same bytes; of several, the one that was read last
    counts. Where several people were asked and have answered, what they agree on does, and while that is disputed, the
    image has no label. Answers to honeypots count for nothing. A path whose file is gone takes the label of the same
    bytes that are there under another: a photo moved to another folder is no conflict. A label goes when its path
    has other bytes now, of which nothing is said; what a zone's folders said stays when the zone is taken out of the
    settings. Where a person says another class than the folder or list, the person's is in force, and `contradicts` has
    the other.
    """
    declared = ", ".join(f"'{name}'" for name in settings.landing) or "''"
    found = engine.sql(
        f"""
        WITH given AS (
            SELECT image_id, label, annotator, {GIVEN_AT} AS answered_at,
                ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY {NEWEST_ANSWER}) AS place
            FROM ({LABELING_ANSWERS}) AS standing
        ), answers AS (
            SELECT given.image_id, COALESCE(together.disputed, FALSE) AS disputed,
                CASE WHEN together.image_id IS NULL THEN given.label ELSE together.label END AS label,
                CASE WHEN together.image_id IS NULL THEN given.annotator ELSE together.annotators END AS annotator,
                COALESCE(together.decided_at, given.answered_at) AS answered_at
            FROM given LEFT JOIN ({with_classes_in_force(CONSENSUS)}) AS together ON together.image_id = given.image_id
            WHERE given.place = 1
        ), folders AS (
            SELECT images.path, images.image_id, {SAID_LABEL} AS label, {SAID_BY} AS said_by, {SAID_AT} AS labeled_at,
                gone.deleted_at AS gone_at
            FROM raw_images AS images {SAID}
            LEFT JOIN deleted_files AS gone ON gone.path = images.path AND gone.returned_at IS NULL
        ), present AS (
            SELECT image_id, label, ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY labeled_at, path) AS place
            FROM folders WHERE label IS NOT NULL AND gone_at IS NULL
        ), earlier AS (
            SELECT old.*, images.landing
            FROM ({with_classes_in_force(LABELED_IMAGES)}) AS old
            JOIN raw_images AS images ON images.path = old.path AND images.image_id = old.image_id
        ), said AS (
            SELECT folders.path, folders.image_id,
                CASE WHEN NOT COALESCE(answers.disputed, FALSE)
                    THEN COALESCE(answers.label, present.label, folders.label) END AS label,
                CASE WHEN answers.label IS NULL THEN folders.said_by ELSE 'human' END AS source,
                answers.annotator,
                COALESCE(answers.answered_at, CASE WHEN present.label IS NOT NULL THEN folders.gone_at END,
                    folders.labeled_at) AS labeled_at,
                CASE WHEN answers.label <> COALESCE(present.label, folders.label)
                    THEN COALESCE(present.label, folders.label) END AS contradicts
            FROM folders
            LEFT JOIN answers ON answers.image_id = folders.image_id
            LEFT JOIN present ON folders.gone_at IS NOT NULL AND present.image_id = folders.image_id
                AND present.place = 1
        ), kept AS (
            SELECT path, image_id, label, source, annotator, labeled_at, contradicts FROM said WHERE label IS NOT NULL
            UNION ALL
            SELECT path, image_id, label, source, annotator, labeled_at, contradicts FROM earlier
            WHERE landing NOT IN ({declared}) AND source <> 'human'
                AND NOT EXISTS (SELECT 1 FROM said WHERE said.path = earlier.path AND said.label IS NOT NULL)
        ), named AS (
            SELECT kept.*, classes.name AS label_name, known.split_group,
                {split_of("COALESCE(known.split_group, kept.image_id)", settings.split)} AS split
            FROM kept LEFT JOIN classes ON classes.label = kept.label
            LEFT JOIN ({GROUPS}) AS known ON known.image_id = kept.image_id
        )
        SELECT COALESCE(named.path, old.path) AS path, named.image_id, named.label, named.label_name, named.source,
            named.annotator, named.labeled_at, named.split, named.split_group, named.contradicts
        FROM named FULL JOIN labeled_images AS old ON old.path = named.path
        WHERE named.path IS NULL OR old.path IS NULL
            OR old.image_id <> named.image_id OR old.label <> named.label OR old.source <> named.source
            OR old.labeled_at <> named.labeled_at OR old.split <> named.split
            OR old.label_name IS DISTINCT FROM named.label_name OR old.annotator IS DISTINCT FROM named.annotator
            OR old.contradicts IS DISTINCT FROM named.contradicts
        """,  # noqa: S608 - made of constants, a share and checked names
        {**tables, **labels_said(engine, tables, settings)},
    )
    unsaid, changed = found.split_by_null("label")
    changed = with_groups(engine, changed, tables, settings.split)
    uri = tables["labeled_images"].uri
    written = engine.merge(changed, LABELED_IMAGES, uri, commit)
    paths = unsaid.select(["path"]).arrow()["path"].to_pylist()
    nothing = engine.rows(LABELED_IMAGES.schema.empty_table())
    for start in range(0, len(paths), REPLACED_AT_ONCE):
        where = {"path": paths[start : start + REPLACED_AT_ONCE]}
        removed = engine.replace(nothing, LABELED_IMAGES, uri, commit, where)
        written = replace(written, version=removed.version, changed=True)
    return written
