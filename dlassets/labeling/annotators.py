"""The table `annotators`: how much and how well each person answers, and how far they agree with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.labeling.agreement import group_kappa, kappa_with_others
from dlassets.labeling.consensus import HONEYPOT_ANSWERS
from dlassets.labeling.overlap import answers_of_several
from dlassets.lakehouse.labels import GIVEN_AT, STANDING_ANSWERS
from dlassets.lakehouse.tables import ACCEPTED, ANNOTATORS, SKIPPED, TAKEN_BACK
from dlassets.lakehouse.whole_tables import replace_where_changed
from dlassets.learning.evaluation.evaluate import wilson_interval

# SQL over `human_labels`, `label_requests` and `consensus`: what can be counted of each person.
_COUNTED = f"""
    WITH people AS (
        SELECT annotator, COUNT(DISTINCT CASE WHEN status = '{SKIPPED}' THEN request_id END) AS skipped,
            CAST(SUM(CASE WHEN status = '{TAKEN_BACK}' THEN 1 ELSE 0 END) AS BIGINT) AS taken_back
        FROM human_labels WHERE status IN ('{ACCEPTED}', '{SKIPPED}', '{TAKEN_BACK}') GROUP BY annotator
    ), standing AS (
        SELECT annotator, COUNT(*) AS answers, PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY seconds) AS median_seconds,
            MIN({GIVEN_AT}) AS first_answer_at, MAX({GIVEN_AT}) AS last_answer_at
        FROM ({STANDING_ANSWERS}) AS said GROUP BY annotator
    ), honeypots AS ({HONEYPOT_ANSWERS})
    SELECT people.annotator, COALESCE(standing.answers, 0) AS answers, people.skipped, people.taken_back,
        COALESCE(honeypots.honeypots, 0) AS honeypots, COALESCE(honeypots.honeypots_right, 0) AS honeypots_right,
        standing.median_seconds, standing.first_answer_at, standing.last_answer_at
    FROM people LEFT JOIN standing ON standing.annotator IS NOT DISTINCT FROM people.annotator
    LEFT JOIN honeypots ON honeypots.annotator IS NOT DISTINCT FROM people.annotator
    ORDER BY COALESCE(standing.answers, 0) DESC, people.annotator
"""  # noqa: S608 - constants


def update_annotators(
    engine: Engine, snapshots: Mapping[str, Snapshot], commit: Commit
) -> tuple[Written, dict[str, Any]]:
    """Replace `annotators` by what is known of each person now; return with it what is known of all of them.

    Accuracy is by honeypots alone, agreement by images with a consensus, both with Wilson's interval at 95%. Cohen's
    kappa is a mean over those with whom a person has enough images in common, weighted by these. Of all, `fleiss_kappa`
    is returned, None where no two have answered about the same image. The rows are a function of the tables: where
    they are the same, there is no new version. `snapshots` holds human_labels, label_requests, classes, consensus
    and annotators.
    """
    rows, kappa = known_of_people(engine, snapshots)
    written = replace_where_changed(engine, ANNOTATORS, snapshots[ANNOTATORS.name], rows, commit)
    return written, {"people": rows, "fleiss_kappa": kappa}


def known_of_people(engine: Engine, snapshots: Mapping[str, Snapshot]) -> tuple[list[dict[str, Any]], float | None]:
    """Return the rows of `annotators`, who answers most first, and Fleiss' kappa of all: see `update_annotators`."""
    tables = {name: snapshots[name] for name in ("human_labels", "label_requests", "classes")}
    answers = answers_of_several(engine, snapshots)
    places = {annotator: place for place, annotator in enumerate(answers.annotators)}
    agreed_on = _agreed_on(engine, snapshots)
    rows = []
    for row in engine.sql(_COUNTED, tables).arrow().to_pylist():
        place = places.get(row["annotator"])
        compared = agreed = images = 0
        kappa = None
        if place is not None:
            own = zip(answers.image_ids, answers.labels[:, place].tolist(), strict=True)
            with_consensus = [label == agreed_on[image] for image, label in own if label >= 0 and image in agreed_on]
            compared, agreed = len(with_consensus), sum(with_consensus)
            kappa, images = kappa_with_others(answers, place)
        rows.append(
            {
                **row,
                **_share("accuracy", row["honeypots_right"], row["honeypots"]),
                **_share("agreement", agreed, compared),
                "compared": compared,
                "agreed": agreed,
                "kappa": kappa,
                "kappa_images": images,
            }
        )
    return rows, group_kappa(answers)


def _agreed_on(engine: Engine, snapshots: Mapping[str, Snapshot]) -> dict[str, int]:
    query = "SELECT image_id, label FROM consensus WHERE NOT disputed"
    found = engine.sql(query, {"consensus": snapshots["consensus"]}).arrow()
    return dict(zip(found["image_id"].to_pylist(), found["label"].to_pylist(), strict=True))


def _share(name: str, right: int, rows: int) -> dict[str, float | None]:
    low, high = wilson_interval(right, rows) if rows else (None, None)
    return {name: right / rows if rows else None, f"{name}_low": low, f"{name}_high": high}
