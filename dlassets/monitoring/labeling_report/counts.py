"""What figures are made of, counted by either engine: narrow rows, of which there are as many as requests at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.history import missing_files
from dlassets.lakehouse.labels import GIVEN_AT, STANDING_ANSWERS, labels_in_force
from dlassets.lakehouse.snapshots import at_version, provenance_of
from dlassets.lakehouse.tables import (
    ACCEPTED,
    AUDIT,
    CLASSES,
    EVALUATED_ROWS,
    HONEYPOT,
    HUMAN_LABELS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    MODEL_VERSIONS,
    PREDICTIONS,
    SKIPPED,
    TEST,
    TRAINING_SET,
)
from dlassets.monitoring.labeling_report.figures import BothTested, Given, Judged, Trained, compared
from dlassets.registry.models import ModelVersion, of_one_model
from dlassets.settings import LabelSettings

if TYPE_CHECKING:
    import pyarrow as pa

# The newest versions of which figures are made; what is known of older ones stands.
MOST_VERSIONS = 20

_REQUESTS = f"""
    SELECT r.strategy, r.status, r.requested_at, r.closed_at, answered.answered_at FROM label_requests AS r
    LEFT JOIN (SELECT request_id, MIN({GIVEN_AT}) AS answered_at FROM ({STANDING_ANSWERS}) AS standing
        GROUP BY request_id) AS answered ON answered.request_id = r.request_id
"""  # noqa: S608 - constants

_WORK = f"SELECT {GIVEN_AT} AS done_at, seconds FROM human_labels WHERE status IN ('{ACCEPTED}', '{SKIPPED}')"  # noqa: S608

# Each photo counts once: with an answer of which it is known how long it took, where there is one.
_GIVEN = f"""
    SELECT service, annotator AS person, COUNT(*) AS answers,
        COUNT(CASE WHEN nth = 1 THEN 1 END) AS photos,
        COUNT(CASE WHEN nth = 1 AND seconds IS NOT NULL THEN 1 END) AS measured
    FROM (SELECT standing.*, ROW_NUMBER() OVER (
            PARTITION BY image_id
            ORDER BY CASE WHEN seconds IS NULL THEN 1 ELSE 0 END, read_order, request_id, annotator) AS nth
        FROM ({STANDING_ANSWERS}) AS standing) AS placed
    GROUP BY service, annotator ORDER BY service, annotator
"""  # noqa: S608 - constants

# The label in force of each photo that people labelled, whatever they were asked about it but what was settled before;
# and what versions predicted of those that they did not learn from.
_JUDGED = f"""
    WITH answered AS (
        SELECT standing.image_id, MAX(CASE WHEN r.strategy = '{AUDIT}' THEN 1 ELSE 0 END) AS by_chance,
            MAX(CASE WHEN r.strategy = '{AUDIT}' THEN 0 ELSE 1 END) AS for_a_reason
        FROM ({STANDING_ANSWERS}) AS standing JOIN label_requests AS r ON r.request_id = standing.request_id
        WHERE r.strategy <> '{HONEYPOT}' GROUP BY standing.image_id
    ), truth AS (
        SELECT named.image_id, named.label, stated.labeled_at, answered.by_chance, answered.for_a_reason
        FROM ({{labels_in_force}}) AS named
        JOIN labeled_images AS stated ON stated.path = named.path AND stated.source = 'human'
        JOIN answered ON answered.image_id = named.image_id
    ), predicted AS (
        SELECT p.model_name, p.model_version, p.package, p.image_id, MIN(p.predicted_label) AS predicted_label,
            MIN(p.scored_at) AS scored_at, MIN(versions.training_set_version) AS training_set_version
        FROM ({with_classes_in_force(PREDICTIONS)}) AS p JOIN versions ON {of_one_model("p", "versions")}
        JOIN truth ON truth.image_id = p.image_id
        GROUP BY p.model_name, p.model_version, p.package, p.image_id
    )
    SELECT predicted.model_name, predicted.model_version, predicted.package, CAST(truth.labeled_at AS DATE) AS day,
        truth.by_chance, truth.for_a_reason, COUNT(*) AS photos,
        COUNT(CASE WHEN predicted.predicted_label = truth.label THEN 1 END) AS correct
    FROM predicted JOIN truth ON truth.image_id = predicted.image_id
    LEFT JOIN ({{learned}}) AS learned ON learned.training_set_version = predicted.training_set_version
        AND learned.image_id = predicted.image_id
    WHERE learned.image_id IS NULL
        AND (predicted.training_set_version IS NOT NULL OR truth.labeled_at > predicted.scored_at)
    GROUP BY predicted.model_name, predicted.model_version, predicted.package, CAST(truth.labeled_at AS DATE),
        truth.by_chance, truth.for_a_reason
"""  # noqa: S608 - constants

_NOTHING_LEARNED = "SELECT training_set_version, image_id FROM labeled_images CROSS JOIN versions WHERE FALSE"

_TESTED = f"""
    SELECT pairs.later, pairs.earlier,
        COUNT(CASE WHEN one.predicted_label = one.label AND other.predicted_label = one.label THEN 1 END) AS both,
        COUNT(CASE WHEN one.predicted_label = one.label AND other.predicted_label <> one.label THEN 1 END)
            AS only_later,
        COUNT(CASE WHEN one.predicted_label <> one.label AND other.predicted_label = one.label THEN 1 END)
            AS only_earlier,
        COUNT(CASE WHEN one.predicted_label <> one.label AND other.predicted_label <> one.label THEN 1 END) AS neither
    FROM pairs
    JOIN ({with_classes_in_force(EVALUATED_ROWS)}) AS one ON one.run_id = pairs.later AND one.split = '{TEST}'
    JOIN ({with_classes_in_force(EVALUATED_ROWS)}) AS other ON other.run_id = pairs.earlier AND other.split = '{TEST}'
        AND other.image_id = one.image_id AND other.label = one.label
    GROUP BY pairs.later, pairs.earlier
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Version:
    """A registered version, and the training set that it learned from, where the lake has that still.

    `labeled_images` is the version of that table which the training set was made from.
    """

    model: ModelVersion
    run_id: str
    training_set: Snapshot | None = None
    labeled_images: Snapshot | None = None


def versions_of(engine: Engine, tables: Mapping[str, Snapshot], name: str) -> list[Version]:
    """Return the newest versions of a model that the lake knows of, oldest first.

    `tables` are model_versions, training_set and labeled_images. A version that was registered twice is that of its
    last run; of one that was forgotten nothing is said.
    """
    query = """
        SELECT model_name, model_version, package, run_id, training_set_version FROM model_versions
        WHERE forgotten_at IS NULL ORDER BY model_version, run_id
    """
    rows = engine.sql(query, {MODEL_VERSIONS.name: tables[MODEL_VERSIONS.name]}).arrow().to_pylist()
    found = {
        ModelVersion(row["model_name"], row["model_version"], row["package"]): row
        for row in rows
        if row["model_name"] == name
    }
    newest = list(found.items())[-MOST_VERSIONS:]
    return [_version(model, row["run_id"], row["training_set_version"], tables) for model, row in newest]


def _version(
    model: ModelVersion, run_id: str, training_set_version: int | None, tables: Mapping[str, Snapshot]
) -> Version:
    training_set = _readable(tables[TRAINING_SET.name], training_set_version)
    if training_set is None:
        return Version(model, run_id)
    made_of = provenance_of(training_set).get("inputs", {}).get(LABELED_IMAGES.name)
    return Version(model, run_id, training_set, _readable(tables[LABELED_IMAGES.name], made_of))


def _readable(table: Snapshot, version: int | None) -> Snapshot | None:
    """Return that version of the table, None where it, or a file of it, is not there any more."""
    if version is None or version > table.version:
        return None
    then = at_version(table, version)
    return None if then is None or (version != table.version and missing_files(then)) else then


def requests(engine: Engine, tables: Mapping[str, Snapshot]) -> pa.Table:
    """Return strategy, status, requested_at, closed_at and answered_at of each request.

    The last is when its first answer came that stands.
    """
    return engine.sql(_REQUESTS, _of(tables, LABEL_REQUESTS.name, HUMAN_LABELS.name)).arrow()


def work(engine: Engine, tables: Mapping[str, Snapshot]) -> pa.Table:
    """Return done_at and seconds of each answer and each skipped photo, those that were changed later as well."""
    return engine.sql(_WORK, _of(tables, HUMAN_LABELS.name)).arrow()


def given(engine: Engine, tables: Mapping[str, Snapshot]) -> list[Given]:
    rows = engine.sql(_GIVEN, _of(tables, HUMAN_LABELS.name)).arrow().to_pylist()
    return [Given(**row) for row in rows]


def judged(
    engine: Engine, tables: Mapping[str, Snapshot], versions: Sequence[Version], labels: LabelSettings
) -> list[Judged]:
    """Return how many photos that people labelled each version was right on, of those that it did not learn from.

    Those are the photos that are among neither the train nor the validation rows of its training set, whoever gave
    their label then. Where that training set is not known any more, those that were labelled after the version had
    said what they are.
    """
    if not versions:
        return []
    names = (HUMAN_LABELS.name, LABEL_REQUESTS.name, LABELED_IMAGES.name, PREDICTIONS.name, CLASSES.name)
    learned_from = {v.training_set.version: v.training_set for v in versions if v.training_set is not None}
    learned = " UNION ALL ".join(
        f"SELECT CAST({number:d} AS BIGINT) AS training_set_version, image_id FROM training_set_{number:d} "  # noqa: S608 - numbers
        f"WHERE split <> '{TEST}'"
        for number in learned_from
    )
    given: dict[str, Snapshot | Rows] = {**_of(tables, *names), "versions": engine.rows(_versions_table(versions))}
    given |= {f"training_set_{number}": snapshot for number, snapshot in learned_from.items()}
    query = _JUDGED.format(labels_in_force=labels_in_force(labels), learned=learned or _NOTHING_LEARNED)
    found = []
    for row in engine.sql(query, given).arrow().to_pylist():
        model = ModelVersion(row.pop("model_name"), row.pop("model_version"), row.pop("package"))
        row |= {name: bool(row[name]) for name in ("by_chance", "for_a_reason")}
        found.append(Judged(model, **row))
    return found


def trained(engine: Engine, versions: Sequence[Version]) -> list[Trained]:
    """Return how many labels of people each version's training set had, by the labels of when it was made."""
    made: dict[str, Snapshot] = {}
    parts = []
    for number, one in {v.training_set.version: v for v in versions if v.training_set and v.labeled_images}.items():
        rows, labels = f"training_set_{number:d}", f"labeled_images_{number:d}"
        made[rows], made[labels] = one.training_set, one.labeled_images  # type: ignore[assignment]
        parts.append(
            f"SELECT CAST({number:d} AS BIGINT) AS training_set_version, COUNT(*) AS photos, "  # noqa: S608 - numbers
            f"COUNT(CASE WHEN named.source = 'human' THEN 1 END) AS human_labels FROM {rows} AS learned "
            f"LEFT JOIN {labels} AS named ON named.path = learned.path AND named.image_id = learned.image_id"
        )
    counts = engine.sql(" UNION ALL ".join(parts), made).arrow().to_pylist() if parts else []
    of_set = {row.pop("training_set_version"): row for row in counts}
    return [
        replace(Trained(v.model, v.run_id), **of_set.get(v.training_set.version if v.training_set else None, {}))
        for v in versions
    ]


def tested(engine: Engine, tables: Mapping[str, Snapshot], trained: Sequence[Trained]) -> list[BothTested]:
    """Return how right each version was on its test photos, and on those of the versions it is compared with."""
    import pyarrow as pa

    pairs = {(each.run_id, each.run_id) for each in trained}
    pairs |= {(later.run_id, earlier.run_id) for _, earlier, later in compared(trained)}
    wanted = sorted(pair for pair in pairs if all(pair))
    if not wanted:
        return []
    table = pa.table({"later": [one for one, _ in wanted], "earlier": [other for _, other in wanted]})
    given: dict[str, Snapshot | Rows] = {**_of(tables, EVALUATED_ROWS.name, CLASSES.name), "pairs": engine.rows(table)}
    rows = engine.sql(_TESTED, given).arrow().to_pylist()
    return [BothTested(**row) for row in rows]


def _versions_table(versions: Sequence[Version]) -> pa.Table:
    import pyarrow as pa

    numbers = [v.training_set.version if v.training_set else None for v in versions]
    rows = pa.concat_tables([v.model.row for v in versions])
    return rows.append_column("training_set_version", pa.array(numbers, pa.int64()))


def _of(tables: Mapping[str, Snapshot], *names: str) -> dict[str, Snapshot | Rows]:
    return {name: tables[name] for name in names}
