"""What must hold of every table, as SQL that finds the rows that break it. Run by either engine on pinned versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.engines.schema import Table
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.labels import CONFLICT_OUTCOMES, NAMELESS, NAMES_WANTED, labels_in_force, undecided
from dlassets.lakehouse.refusals import QUARANTINED
from dlassets.lakehouse.tables import LONGEST_SECONDS, TABLES, TEST, TRAIN, VALIDATION, WAITING
from dlassets.registry.models import NOT_CURRENT, PREDICTED, ModelVersion
from dlassets.settings import LabelSettings

SHOWN = 5
# Photos of a class that a model learns from.
FEWEST = 2
_PATH_OF = "MIN(CASE WHEN label = {} THEN path END)"


@dataclass(frozen=True)
class Rule:
    """`broken` is SQL for the rows that break the rule.

    A `blocking` rule protects people downstream: what depends on the table does not run where it is broken. Names in
    braces (`{undecided}`) are filled in by the one who runs the rule. `remedy` says what to do, or what becomes of
    the rows meanwhile.
    """

    name: str
    table: str
    description: str
    broken: str
    blocking: bool = False
    remedy: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables that `broken` names."""
        return tuple(name for name in TABLES if re.search(rf"\b{name}\b", self.broken))

    @property
    def is_about_champion(self) -> bool:
        return PREDICTED in self.broken


@dataclass(frozen=True)
class Finding:
    """How many rows break a rule, a few of them, and the rule's remedy where there are any."""

    rule: Rule
    broken: int
    examples: list[dict[str, Any]]
    remedy: str = ""

    @property
    def passed(self) -> bool:
        return self.broken == 0


def check(
    engine: Engine,
    rule: Rule,
    snapshots: Mapping[str, Snapshot],
    settings: LabelSettings,
    champion: ModelVersion | None = None,
) -> Finding:
    """Count the rows that break the rule; one that is about the champion needs it."""
    values = _values_of(settings)
    found = f"({rule.broken.format(**values)}) AS found"
    tables: dict[str, Snapshot | Rows] = {name: snapshots[name] for name in rule.reads}
    if rule.is_about_champion and champion is not None:
        tables["model"] = engine.rows(champion.row)
    count = engine.sql(f"SELECT COUNT(*) AS broken FROM {found}", tables).arrow()["broken"][0].as_py()  # noqa: S608 - a rule of this module
    examples = engine.sql(f"SELECT * FROM {found} LIMIT {SHOWN}", tables).arrow().to_pylist() if count else []  # noqa: S608 - as above
    return Finding(rule, count, examples, rule.remedy.format(**values) if count else "")


def _values_of(settings: LabelSettings) -> dict[str, str]:
    """Return what fills the names in braces."""
    return {
        "labels_in_force": labels_in_force(settings),
        "undecided": undecided(settings),
        "conflicts": settings.conflicts,
        "outcome": CONFLICT_OUTCOMES[settings.conflicts],
    }


def unique_key(table: Table) -> Rule:
    """A table's key is a key."""
    key = ", ".join(table.key)
    return Rule(
        f"unique_{'_and_'.join(table.key)}",
        table.name,
        f"No two rows have the same {key}.",
        f"SELECT {key}, COUNT(*) AS copies FROM {table.name} GROUP BY {key} HAVING COUNT(*) > 1",  # noqa: S608 - of the schema
        blocking=True,
    )


RULES = (
    *(unique_key(table) for table in TABLES.values()),
    Rule(
        "image_ids_are_hashes",
        "raw_images",
        "Every image is named by a SHA-256: 64 hexadecimal digits.",
        "SELECT path, image_id FROM raw_images WHERE LENGTH(image_id) <> 64 OR image_id <> LOWER(image_id)",
        blocking=True,
    ),
    Rule(
        "no_empty_image",
        "raw_images",
        "Every image taken in has bytes.",
        "SELECT path FROM raw_images WHERE length <= 0",
        blocking=True,
    ),
    Rule(
        "nothing_quarantined",
        "quarantined_files",
        "No file of the landing zones is refused, and no step failed for one. A warning: `dlassets quarantine list` "
        "says which are, and why.",
        f"SELECT path, reason, detail FROM ({QUARANTINED}) AS refused",  # noqa: S608 - constants
        remedy="`dlassets quarantine` lists them, looks at them again (retry), or notes that they are not wanted "
        "(drop).",
    ),
    Rule(
        "every_image_profiled",
        "image_profiles",
        "Every image whose bytes are to be had, and that no step failed for, has its profile.",
        f"SELECT path FROM ({USABLE}) AS images "  # noqa: S608 - constants
        "WHERE image_id NOT IN (SELECT image_id FROM image_profiles)",
    ),
    Rule(
        "every_answer_is_decided",
        "human_labels",
        "An answer is accepted with image and label, or kept with a reason: refused, skipped or taken back.",
        "SELECT request_id, status FROM human_labels "
        "WHERE status NOT IN ('accepted', 'refused', 'skipped', 'taken_back') "
        "OR (status = 'accepted' AND (image_id IS NULL OR label IS NULL)) "
        "OR (status <> 'accepted' AND (reason IS NULL OR label IS NOT NULL AND status <> 'refused'))",
        blocking=True,
    ),
    Rule(
        "every_answer_took_a_time",
        "human_labels",
        "Where it was measured how long an answer took, that is a number from 0 to a month of seconds.",
        f"SELECT request_id, seconds FROM human_labels WHERE NOT seconds BETWEEN 0 AND {LONGEST_SECONDS}",  # noqa: S608
    ),
    Rule(
        "nothing_refused",
        "human_labels",
        "No answer was refused, but where one to the same request was accepted later. A warning: `reason` says why.",
        "SELECT request_id, answer, reason, origin FROM human_labels AS refused WHERE status = 'refused' "
        "AND NOT EXISTS (SELECT 1 FROM human_labels AS later WHERE later.request_id = refused.request_id "
        "AND later.status = 'accepted' AND COALESCE(later.read_order, 0) > COALESCE(refused.read_order, 0))",
        remedy="Beside the answers, files called refused.csv name those that stand there still, and what to do.",
    ),
    Rule(
        "merged_into_a_class",
        "classes",
        "A class that was merged is one that was not.",
        "SELECT old.label, old.merged_into FROM classes AS old "
        "LEFT JOIN classes AS other ON other.label = old.merged_into AND other.merged_into IS NULL "
        "WHERE old.merged_into IS NOT NULL AND other.label IS NULL",
        blocking=True,
    ),
    Rule(
        "no_label_of_a_merged_class",
        "labeled_images",
        "No image has a class that was merged into another.",
        "SELECT path, l.label FROM labeled_images AS l JOIN classes ON classes.label = l.label "
        "WHERE classes.merged_into IS NOT NULL",
        remedy="Materialize `labeled_images`.",
    ),
    Rule(
        "nothing_disputed",
        "consensus",
        "What several people say of an image is no dispute, but where a further person is asked. A warning.",
        "SELECT c.path, c.said, c.quality FROM consensus AS c WHERE c.disputed AND NOT EXISTS ("  # noqa: S608 - constants
        f"SELECT 1 FROM label_requests AS r WHERE r.image_id = c.image_id AND r.{WAITING})",
        remedy="These images have no label, and nobody else is asked. An answer to the request in a file ends it, by "
        "somebody who answers otherwise than before, or who has not answered yet; so does a lower "
        "labeling.consensus_quality where more than half agree.",
    ),
    Rule(
        "several_have_names",
        "label_requests",
        "Nobody without a name has answered an open request that several people are to answer. A warning.",
        NAMELESS,
        remedy=NAMES_WANTED,
    ),
    Rule(
        "every_consensus_is_of_several",
        "consensus",
        "Two people or more have answered, what is not disputed has a label, and what is has none.",
        "SELECT image_id, answers, label, disputed FROM consensus WHERE answers < 2 OR disputed <> (label IS NULL) "
        "OR NOT (quality BETWEEN 0 AND 1 AND agreement BETWEEN 0 AND 1)",
        blocking=True,
    ),
    Rule(
        "shares_are_of_what_was_answered",
        "annotators",
        "Nobody is right, or agrees, more often than they answered.",
        "SELECT annotator FROM annotators "
        "WHERE honeypots > answers OR honeypots_right > honeypots OR agreed > compared",
    ),
    Rule(
        "exactly_one_split",
        "labeled_images",
        "Every image is on exactly one side.",
        f"SELECT path, split FROM labeled_images WHERE split IS NULL "  # noqa: S608 - constants
        f"OR split NOT IN ('{TRAIN}', '{VALIDATION}', '{TEST}')",
        blocking=True,
    ),
    Rule(
        "equal_bytes_never_straddle",
        "labeled_images",
        "Equal bytes are on one side, under however many paths.",
        "SELECT image_id, MIN(path) AS path FROM labeled_images GROUP BY image_id HAVING MIN(split) <> MAX(split)",
        blocking=True,
    ),
    Rule(
        "no_group_outweighs_the_split",
        "labeled_images",
        "No more than a tenth of the photos (and 100) are on one side because of one group. A warning.",
        "SELECT split_group, COUNT(*) AS photos, MIN(path) AS one, MAX(path) AS other FROM labeled_images "
        "WHERE split_group IS NOT NULL GROUP BY split_group "
        "HAVING COUNT(*) > 100 AND COUNT(*) > (SELECT COUNT(*) FROM labeled_images) / 10",
        remedy="Where all photos of a fixed camera look alike, and are not, set split.look_alike_bits to null before "
        "they arrive.",
    ),
    Rule(
        "equal_bytes_have_one_label",
        "labeled_images",
        "Equal bytes carry one label. A warning: the setting labels.conflicts says what becomes of those that do not.",
        f"SELECT image_id, {_PATH_OF.format('lowest')} AS one_path, MIN(label) AS one, "  # noqa: S608 - constants
        f"{_PATH_OF.format('highest')} AS other_path, MAX(label) AS other, COUNT(*) AS paths "
        "FROM (SELECT labeled_images.*, MIN(label) OVER (PARTITION BY image_id) AS lowest, "
        "MAX(label) OVER (PARTITION BY image_id) AS highest FROM labeled_images) AS said "
        "WHERE lowest <> highest GROUP BY image_id",
        remedy="By labels.conflicts={conflicts}, {outcome}. Delete the file in the wrong folder, or let people decide "
        "(labels.conflicts=ask).",
    ),
    Rule(
        "every_image_embedded",
        "image_features",
        "Every image whose bytes are to be had, and that no step failed for, has features.",
        f"SELECT path FROM ({USABLE}) AS images "  # noqa: S608 - constants
        "WHERE image_id NOT IN (SELECT image_id FROM image_features)",
        blocking=True,
    ),
    Rule(
        "one_backbone",
        "training_set",
        "All rows have features of one version.",
        "SELECT MIN(feature_version) AS one, MAX(feature_version) AS other FROM training_set "
        "HAVING MIN(feature_version) <> MAX(feature_version)",
        blocking=True,
    ),
    Rule(
        "labels_as_in_force",
        "training_set",
        "Every row carries the label in force, on the side it belongs to.",
        "SELECT t.path FROM training_set AS t "
        "LEFT JOIN labeled_images AS said ON said.path = t.path AND said.image_id = t.image_id "
        "LEFT JOIN ({labels_in_force}) AS l ON l.image_id = t.image_id AND l.label = t.label AND l.split = t.split "
        "WHERE said.path IS NULL OR l.image_id IS NULL",
        blocking=True,
    ),
    Rule(
        "every_class_can_be_learned",
        "training_set",
        f"Every class that has a labelled image has {FEWEST} photos to learn from.",
        "SELECT classes.label, classes.name, COALESCE(learned.photos, 0) AS photos FROM classes "  # noqa: S608 - constants
        "JOIN (SELECT DISTINCT label FROM labeled_images) AS said ON said.label = classes.label LEFT JOIN "
        f"(SELECT label, COUNT(*) AS photos FROM training_set WHERE split = '{TRAIN}' GROUP BY label) AS learned "
        f"ON learned.label = classes.label WHERE COALESCE(learned.photos, 0) < {FEWEST}",
        remedy="Add labelled photos of these classes: of one photo no model learns what others look like.",
    ),
    Rule(
        "every_unlabelled_image_scored",
        "predictions",
        "Every image without a label, or that people are to decide, has a prediction by the champion.",
        f"SELECT r.path FROM ({USABLE}) AS r "  # noqa: S608 - constants
        "LEFT JOIN (SELECT path, image_id FROM labeled_images WHERE image_id NOT IN ({undecided})) AS l "
        "ON l.path = r.path AND l.image_id = r.image_id "
        f"LEFT JOIN ({PREDICTED}) AS p ON p.path = r.path AND p.image_id = r.image_id "
        "WHERE l.path IS NULL AND p.path IS NULL",
        blocking=True,
    ),
    Rule(
        "predictions_are_of_current_bytes",
        "predictions",
        "What the champion says of a path is about the bytes that are there.",
        f"SELECT p.path FROM ({PREDICTED}) AS p JOIN raw_images AS r ON r.path = p.path "  # noqa: S608 - constant
        "WHERE p.image_id <> r.image_id",
        remedy="Materialize `predictions`.",
    ),
    Rule(
        "confidence_is_a_probability",
        "predictions",
        "Confidence and margin lie between 0 and 1.",
        "SELECT path, confidence, margin FROM predictions WHERE NOT (confidence BETWEEN 0 AND 1 "
        "AND margin BETWEEN 0 AND 1)",
        blocking=True,
    ),
    Rule(
        "is_what_the_champion_says",
        "predictions_current",
        "What the champion says of the photos that are there is what stands here, and nothing else does.",
        f"SELECT COALESCE(said.path, old.path) AS path {NOT_CURRENT}",
        remedy="Materialize `predictions_current`.",
    ),
    Rule(
        "evaluated_on_what_was_held_back",
        "evaluated_rows",
        "Every row is of validation or test, and its confidence is a probability.",
        "SELECT run_id, path, split, confidence FROM evaluated_rows "  # noqa: S608 - constants
        f"WHERE split NOT IN ('{VALIDATION}', '{TEST}') OR NOT (confidence BETWEEN 0 AND 1)",
        blocking=True,
    ),
    Rule(
        "suggests_another_label",
        "label_errors",
        "Each row suggests a label other than the one it has, and says how sure that is by a probability.",
        "SELECT path, label, suggested_label, quality, confidence FROM label_errors WHERE suggested_label = label "
        "OR NOT (quality BETWEEN 0 AND 1 AND confidence BETWEEN 0 AND 1)",
    ),
    Rule(
        "one_open_request_an_image",
        "label_requests",
        "No image waits in two requests.",
        f"SELECT image_id, COUNT(*) AS requests FROM label_requests WHERE {WAITING} "  # noqa: S608 - a constant
        "GROUP BY image_id HAVING COUNT(*) > 1",
    ),
    Rule(
        "requests_are_about_current_images",
        "label_requests",
        "Every request that waits is about bytes that are still there.",
        f"SELECT request_id, path FROM label_requests WHERE {WAITING} "  # noqa: S608 - a constant
        "AND image_id NOT IN (SELECT image_id FROM raw_images)",
        remedy="An answer to these changes no label, unless the bytes come back.",
    ),
)


def rules_of(table: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.table == table)
