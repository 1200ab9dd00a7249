"""How much people have said that no model has learned from yet."""

from __future__ import annotations

from collections.abc import Mapping

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.refusals import FAILED
from dlassets.lakehouse.tables import LABELED_IMAGES, QUARANTINED_FILES, TRAINING_SET
from dlassets.settings import LabelSettings

READS = (LABELED_IMAGES, QUARANTINED_FILES, TRAINING_SET)


def new_labels(engine: Engine, tables: Mapping[str, Snapshot], labels: LabelSettings) -> int:
    """Return how many images carry a label of a person that the training set lacks, or has another of.

    Those that a step has failed for are not counted: no training set will have them. `tables` are those of READS.
    """
    query = f"""
        SELECT COUNT(*) AS new_labels FROM ({labels_in_force(labels)}) AS in_force
        JOIN labeled_images AS said ON said.path = in_force.path AND said.source = 'human'
        LEFT JOIN training_set AS learned ON learned.image_id = in_force.image_id
        WHERE (learned.image_id IS NULL OR learned.label <> in_force.label) AND in_force.image_id NOT IN ({FAILED})
    """  # noqa: S608 - constants
    return int(engine.sql(query, tables).arrow()["new_labels"][0].as_py())
