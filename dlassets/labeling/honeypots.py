"""Honeypots: photos whose label is settled, asked among the others: answers to them say how good a person is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Engine, Snapshot
from dlassets.labeling.selection.sources import asking
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.hashing import BAITED, is_below_share
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.tables import HONEYPOT, WAITING
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import LabelSettings, Settings

if TYPE_CHECKING:
    import pyarrow as pa


def settled_labels(settings: LabelSettings) -> str:
    """Return SQL over `labeled_images`, `label_errors` and `consensus` for path, image_id and label: what is settled.

    That is a label in force that a place says (a folder, a list) or several people agree on, and that models believe.
    One person's answer settles nothing.
    """
    return f"""
        SELECT in_force.path, in_force.image_id, in_force.label FROM ({labels_in_force(settings)}) AS in_force
        JOIN labeled_images AS said ON said.path = in_force.path
        LEFT JOIN consensus AS together ON together.image_id = in_force.image_id
        LEFT JOIN label_errors AS doubted ON doubted.image_id = in_force.image_id
        WHERE doubted.image_id IS NULL AND (said.source <> 'human' OR together.label = in_force.label)
    """  # noqa: S608 - constants


def with_honeypots(
    engine: Engine,
    snapshots: Mapping[str, Snapshot],
    chosen: list[dict[str, Any]],
    model: ModelVersion,
    settings: Settings,
) -> list[dict[str, Any]]:
    """Return the images that people are to be asked about with honeypots among them.

    Which images bring one is a function of image_id, such that `labeling.honeypot_share` of all that is asked are
    honeypots in the long run; each comes right after the image that brings it, with that one's priority, or it would be
    told by its place. `snapshots` holds what `select_requests`
    reads, label_errors and consensus.
    """
    share = settings.labeling.honeypot_share
    if not share:
        return chosen
    brings = share / (1 - share)
    number = sum(is_below_share(row["image_id"], brings, BAITED) for row in chosen)
    honeypots = iter(_honeypots(engine, snapshots, number, model, settings).to_pylist() if number else [])
    mixed: list[dict[str, Any]] = []
    for row in chosen:
        mixed.append(row)
        if is_below_share(row["image_id"], brings, BAITED) and (honeypot := next(honeypots, None)):
            mixed.append({**honeypot, "strategy": HONEYPOT, "priority": row["priority"]})
    return mixed


def _honeypots(
    engine: Engine, snapshots: Mapping[str, Snapshot], number: int, model: ModelVersion, settings: Settings
) -> pa.Table:
    """Return `number` photos whose label is settled, with what the model says of them: what it is unsure of first.

    So are the others that are asked about, and people are not to tell them from these. None was a honeypot for this
    version before; those that never were come first.
    """
    query = f"""
        SELECT images.path, settled.image_id, p.predicted_label, p.predicted_name, p.confidence,
            settled.label AS known_label
        FROM ({settled_labels(settings.labels)}) AS settled
        JOIN ({USABLE}) AS images ON images.path = settled.path AND images.image_id = settled.image_id
        JOIN ({PREDICTED}) AS p ON p.path = settled.path AND p.image_id = settled.image_id
        CROSS JOIN model
        LEFT JOIN (
            SELECT image_id, COUNT(*) AS times, MAX(CASE WHEN batch_id LIKE 'v{model.version:d}-%' THEN 1 ELSE 0 END)
                AS was_one_now
            FROM label_requests WHERE strategy = '{HONEYPOT}' GROUP BY image_id) AS before
            ON before.image_id = settled.image_id
        WHERE COALESCE(before.was_one_now, 0) = 0
            AND settled.image_id NOT IN (SELECT image_id FROM label_requests WHERE {WAITING})
        ORDER BY CASE WHEN p.confidence < model.threshold THEN 0 ELSE 1 END, COALESCE(before.times, 0),
            SUBSTR(settled.image_id, 33), settled.image_id
        LIMIT {number:d}
    """  # noqa: S608 - constants and numbers
    names = (
        "raw_images",
        "deleted_files",
        "quarantined_files",
        "predictions",
        "labeled_images",
        "label_requests",
        "label_errors",
        "consensus",
    )
    tables = {name: snapshots[name] for name in names}
    return engine.sql(query, {**tables, "model": engine.rows(asking(model, settings.labeling))}).arrow()
