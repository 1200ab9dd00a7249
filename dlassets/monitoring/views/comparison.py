"""Two model versions beside each other: how they differ on photos that both answered about, and who was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.tables import CLASSES, LABELED_IMAGES, PREDICTIONS, SERVED_REQUESTS, TEST
from dlassets.monitoring.views.reading import Reading
from dlassets.registry.gate import chance_of, shown
from dlassets.registry.models import ModelVersion, of_one_model

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN, PAIRS = 12, 10

# SQL over `predictions`, `served_requests`, `classes` and `asked`, the two versions with their `side`: what both say of
# an image.
_BOTH = f"""
    WITH said AS (
        SELECT asked.side, p.image_id, p.path, p.predicted_label, p.predicted_name, p.confidence, p.scored_at AS said_at
        FROM ({with_classes_in_force(PREDICTIONS)}) AS p JOIN asked ON {of_one_model("p", "asked")}
        UNION ALL
        SELECT asked.side, s.image_id, CAST(NULL AS STRING) AS path, s.predicted_label, s.predicted_name, s.confidence,
            s.received_at AS said_at
        FROM ({with_classes_in_force(SERVED_REQUESTS)}) AS s JOIN asked ON {of_one_model("s", "asked")}
    ), ranked AS (
        SELECT said.*, COALESCE(predicted_name, CAST(predicted_label AS STRING)) AS name, ROW_NUMBER() OVER (
            PARTITION BY side, image_id ORDER BY CASE WHEN path IS NULL THEN 1 ELSE 0 END, path, said_at DESC) AS place
        FROM said
    ), answered AS (
        SELECT a.image_id, COALESCE(a.path, b.path) AS path, a.predicted_label AS label_a, a.name AS name_a,
            a.confidence AS confidence_a, b.predicted_label AS label_b, b.name AS name_b,
            b.confidence AS confidence_b, GREATEST(a.said_at, b.said_at) AS said_at
        FROM ranked AS a JOIN ranked AS b ON b.image_id = a.image_id AND b.side = 'b' AND b.place = 1
        WHERE a.side = 'a' AND a.place = 1
    )
"""  # noqa: S608 - names of columns
# SQL, behind that: how often each says what.
_COUNTED = """
    SELECT label_a, label_b, MIN(name_a) AS name_a, MIN(name_b) AS name_b, COUNT(*) AS photos,
        SUM(confidence_a) AS confidence_a, SUM(confidence_b) AS confidence_b
    FROM answered GROUP BY label_a, label_b ORDER BY photos DESC, label_a, label_b
"""

# SQL over `labeled_images`: what an image is, by whom and since when.
_TRUE = """
    SELECT f.image_id, f.label, COALESCE(f.label_name, CAST(f.label AS STRING)) AS label_name, f.split, said.source,
        said.labeled_at
    FROM ({in_force}) AS f JOIN labeled_images AS said ON said.path = f.path AND said.image_id = f.image_id
"""

# SQL, behind _BOTH: who is right, where neither can have learned from the label.
_JUDGED = f"""
    SELECT CASE WHEN truth.source = 'human' THEN 1 ELSE 0 END AS by_people,
        CASE WHEN truth.split = '{TEST}' THEN 1 ELSE 0 END AS is_test,
        CASE WHEN truth.label = label_a THEN 1 ELSE 0 END AS right_a,
        CASE WHEN truth.label = label_b THEN 1 ELSE 0 END AS right_b, COUNT(*) AS photos
    FROM answered JOIN ({{labels}}) AS truth ON truth.image_id = answered.image_id
    WHERE truth.split = '{TEST}' OR truth.labeled_at > answered.said_at
    GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - a constant

# SQL, behind _BOTH: where they differ, those first that both are sure of.
_SUREST = f"""
    SELECT answered.image_id, path, name_a, confidence_a, name_b, confidence_b, truth.label_name
    FROM answered LEFT JOIN ({{labels}}) AS truth ON truth.image_id = answered.image_id
    WHERE label_a <> label_b ORDER BY confidence_a + confidence_b DESC, answered.image_id LIMIT {SHOWN}
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class Pair:
    """How many photos one version takes for one class and the other for another."""

    name_a: str
    name_b: str
    photos: int


@dataclass(frozen=True)
class Judged:
    """Photos whose true label is known: how many both were right on, one of them alone, or neither."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    @property
    def photos(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def right_a(self) -> int:
        return self.both + self.only_a

    @property
    def right_b(self) -> int:
        return self.both + self.only_b

    @property
    def p(self) -> float:
        """How likely chance makes as large a difference, either way, of equally good models (McNemar, exact)."""
        return min(1.0, 2 * chance_of(max(self.only_a, self.only_b), min(self.only_a, self.only_b)))

    @property
    def sentence(self) -> str:
        if not self.photos:
            return "no photo that judges them has a label yet"
        return (
            f"{self.right_a:,} and {self.right_b:,} of {self.photos:,} are right, "
            f"{self.only_a:,} and {self.only_b:,} of them alone ({shown(self.p)})"
        )


@dataclass(frozen=True)
class Difference:
    """A photo that the two take for different classes; `label_name` is what it is, where that is known."""

    image_id: str
    path: str | None
    name_a: str
    confidence_a: float
    name_b: str
    confidence_b: float
    label_name: str | None


@dataclass(frozen=True)
class Comparison:
    """`pairs` are the commonest differences, `shown` the surest; confidences are means over all `photos`.

    `people` judges by what people answered, `test` by the labels of test photos, whoever gave them.
    """

    a: ModelVersion
    b: ModelVersion
    photos: int
    agree: int
    confidence_a: float
    confidence_b: float
    pairs: Sequence[Pair]
    people: Judged
    test: Judged
    shown: Sequence[Difference]

    @property
    def sentences(self) -> list[str]:
        """What there is to say, in short."""
        if not self.photos:
            return [f"There is no photo that versions {self.a.version} and {self.b.version} have both answered about."]
        how_often = f"{self.agree:,} of {self.photos:,} photos ({self.agree / self.photos:.1%})"
        how_sure = f"{self.confidence_a:.3f} and {self.confidence_b:.3f}"
        versions = f"Versions {self.a.version} and {self.b.version}"
        return [
            f"{versions} say the same of {how_often}; their mean confidence is {how_sure}.",
            f"By what people have answered since: {self.people.sentence}.",
            f"By the labels of test photos: {self.test.sentence}.",
        ]


def versions_that_answered(reading: Reading) -> dict[int, ModelVersion]:
    """Return the versions of the settings' model that have predictions or served requests, by number.

    Of a number that was given twice, since MLflow's store was lost, it is the one that answered last.
    """
    columns = "model_name, model_version, package, MAX"
    query = f"""
        SELECT model_name, model_version, package, MAX(said_at) AS said_at FROM (
            SELECT {columns}(scored_at) AS said_at FROM predictions GROUP BY model_name, model_version, package
            UNION ALL
            SELECT {columns}(received_at) AS said_at FROM served_requests GROUP BY model_name, model_version, package
        ) AS answered GROUP BY model_name, model_version, package ORDER BY said_at, package
    """  # noqa: S608 - constants
    rows = reading.asked(query, [PREDICTIONS, SERVED_REQUESTS])
    name = reading.settings.registry.model_name
    models = [ModelVersion(row["model_name"], row["model_version"], row["package"]) for row in rows]
    return {model.version: model for model in models if model.name == name}


def compare(reading: Reading, a: int, b: int) -> Comparison:
    """Compare two versions on the images that both answered about, in predictions or served requests, each once.

    Where a label judges them, neither can have learned from it: it is of the test side, or came after both had
    answered. Raises DlassetsError for a version that answered about none.
    """
    known = versions_that_answered(reading)
    for version in (a, b):
        if version not in known:
            raise DlassetsError(
                f"Version {version} of {reading.settings.registry.model_name} has answered about no photo. "
                f"{_those_that_have(known)} With scoring.challengers, challengers score what the champion scores."
            )
    asked = _asked(known[a], known[b])
    answers = [PREDICTIONS, SERVED_REQUESTS, CLASSES]
    labels = _TRUE.format(in_force=labels_in_force(reading.settings.labels))
    counted = reading.asked(_BOTH + _COUNTED, answers, asked=asked)
    judged = reading.asked(_BOTH + _JUDGED.format(labels=labels), [*answers, LABELED_IMAGES], asked=asked)
    surest = reading.asked(_BOTH + _SUREST.format(labels=labels), [*answers, LABELED_IMAGES], asked=asked)
    photos = sum(row["photos"] for row in counted)
    different = [row for row in counted if row["label_a"] != row["label_b"]]
    mean_a, mean_b = (sum(row[f"confidence_{side}"] for row in counted) / max(photos, 1) for side in "ab")
    return Comparison(
        known[a],
        known[b],
        photos,
        photos - sum(row["photos"] for row in different),
        mean_a,
        mean_b,
        [Pair(row["name_a"], row["name_b"], row["photos"]) for row in different[:PAIRS]],
        _judged([row for row in judged if row["by_people"]]),
        _judged([row for row in judged if row["is_test"]]),
        [Difference(**row) for row in surest],
    )


def _judged(rows: Sequence[dict[str, int]]) -> Judged:
    counts = {(1, 1): 0, (1, 0): 0, (0, 1): 0, (0, 0): 0}
    for row in rows:
        counts[row["right_a"], row["right_b"]] += row["photos"]
    return Judged(*counts.values())


def _asked(a: ModelVersion, b: ModelVersion) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([a.row, b.row]).append_column("side", pa.array(["a", "b"]))


def _those_that_have(known: dict[int, ModelVersion]) -> str:
    if not known:
        return "No version has yet: run scoring_pipeline."
    return f"Those that have: {', '.join(map(str, sorted(known)))}."
