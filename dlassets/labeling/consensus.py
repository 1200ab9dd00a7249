"""The table `consensus`: what several people who were asked about the same photo say together."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlassets import extras
from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.labeling.overlap import UNANSWERED, Answers, answers_of_several
from dlassets.lakehouse.classes import known_classes, with_classes_in_force
from dlassets.lakehouse.labels import STANDING_LABELS
from dlassets.lakehouse.tables import CONSENSUS, HONEYPOT, LABEL_REQUESTS
from dlassets.lakehouse.whole_tables import replace_where_changed
from dlassets.settings import LabelingSettings

# How the quality of an answer is known.
CROWDLAB, BY_ACCURACY = "crowdlab", "accuracy"

# CROWDLAB knows people by each other: on a handful of images, one dispute makes everybody's word worth nothing.
FEWEST_IMAGES = 20
# What is supposed of a person before anything is known: four answers right, and one wrong.
_RIGHT_BEFORE, _BEFORE = 4, 5

_APART = 1e-9
_PEOPLE_SHOWN = 20

# SQL over `label_requests` and `predictions`: the newest request about each image, with the prediction that it was made
# of. That was there before people answered, so the model has not learned from what they said.
_GUESSES = f"""
    SELECT r.image_id, r.path, r.predicted_label, r.confidence, p.top_k FROM (
        SELECT image_id, path, predicted_label, confidence, ROW_NUMBER() OVER (
            PARTITION BY image_id ORDER BY requested_at DESC, request_id) AS place
        FROM label_requests WHERE strategy <> '{HONEYPOT}') AS r
    LEFT JOIN (
        SELECT image_id, predicted_label, confidence, top_k, ROW_NUMBER() OVER (
            PARTITION BY image_id, predicted_label, confidence ORDER BY scored_at, path, model_name, model_version
        ) AS place FROM predictions) AS p
        ON p.image_id = r.image_id AND p.predicted_label = r.predicted_label AND p.confidence = r.confidence
            AND p.place = 1
    JOIN asked ON asked.image_id = r.image_id WHERE r.place = 1
"""  # noqa: S608 - constants

# SQL over `human_labels`, `classes` and `label_requests`: of each person how many honeypots they answered, and how many
# rightly.
HONEYPOT_ANSWERS = f"""
    SELECT standing.annotator, COUNT(*) AS honeypots,
        CAST(SUM(CASE WHEN standing.label = r.known_label THEN 1 ELSE 0 END) AS BIGINT) AS honeypots_right
    FROM ({STANDING_LABELS}) AS standing
    JOIN ({with_classes_in_force(LABEL_REQUESTS)}) AS r
        ON r.request_id = standing.request_id AND r.strategy = '{HONEYPOT}'
    GROUP BY standing.annotator
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class _Judged:
    """Of each image the likeliest class, as a place among the classes, and how much it is to be believed, 0 to 1."""

    best: NDArray[np.int64]
    quality: NDArray[np.float64]
    method: str


def update_consensus(
    engine: Engine, snapshots: Mapping[str, Snapshot], settings: LabelingSettings, commit: Commit
) -> tuple[Written, dict[str, Any]]:
    """Replace `consensus` by what people say together now; return with it how many images are disputed, and the method.

    Every image that several people are asked about, and two have answered, has a row. The likeliest class and its
    quality are CROWDLAB's (Goh et al., 2022, "CROWDLAB: Supervised learning to infer consensus labels and quality
    scores for data with multiple annotators"), through cleanlab: it weighs people by how they agree with others, and
    the model by how it agrees with them. Of fewer than FEWEST_IMAGES images, or without the extra `label-errors`, they
    are by each person's accuracy alone (see `_by_accuracy`); of the latter `left_out` tells. An image is disputed where
    no more than half of its people gave the likeliest class, or its quality is below `settings.consensus_quality`.

    The rows are a function of the tables: where they are the same, there is no new version. `snapshots` holds
    human_labels, label_requests, predictions, classes and consensus.
    """
    answers = answers_of_several(engine, snapshots).of_several()
    names = known_classes(engine, snapshots["classes"])
    labels = sorted(names.keys() | set(np.unique(answers.labels).tolist()) - {UNANSWERED})
    facts: dict[str, Any] = {"images": len(answers.image_ids), "disputed": 0}
    rows: list[dict[str, Any]] = []
    if answers.image_ids:
        guesses = _guesses(engine, snapshots, answers.image_ids)
        left_out = extras.missing(extras.LABEL_ERRORS, "Weighing people's answers by CROWDLAB")
        if left_out is not None:
            facts["left_out"] = f"{left_out} Until then people are weighed by their accuracy alone."
        if left_out is None and len(answers.image_ids) >= FEWEST_IMAGES:
            judged = _by_crowdlab(answers, labels, _probabilities(guesses, answers.image_ids, labels))
        else:
            judged = _by_accuracy(answers, labels, _honeypots(engine, snapshots))
        rows = _rows(answers, labels, names, judged, guesses, settings.consensus_quality)
        facts |= {"disputed": sum(row["disputed"] for row in rows), "method": judged.method}
    return replace_where_changed(engine, CONSENSUS, snapshots[CONSENSUS.name], rows, commit), facts


def _guesses(engine: Engine, snapshots: Mapping[str, Snapshot], image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    import pyarrow as pa

    tables = {name: snapshots[name] for name in ("label_requests", "predictions")}
    asked = engine.rows(pa.table({"image_id": pa.array(image_ids, pa.string())}))
    return {row["image_id"]: row for row in engine.sql(_GUESSES, {**tables, "asked": asked}).arrow().to_pylist()}


def _honeypots(engine: Engine, snapshots: Mapping[str, Snapshot]) -> dict[str | None, tuple[int, int]]:
    """Return of each person how many honeypots they answered rightly, and how many at all."""
    tables = {name: snapshots[name] for name in ("human_labels", "label_requests", "classes")}
    rows = engine.sql(HONEYPOT_ANSWERS, tables).arrow().to_pylist()
    return {row["annotator"]: (row["honeypots_right"], row["honeypots"]) for row in rows}


def _probabilities(
    guesses: Mapping[str, Mapping[str, Any]], image_ids: Sequence[str], labels: Sequence[int]
) -> NDArray[np.float64]:
    """Return what the model thought of each image, (images, labels): what it says of none is spread over the others.

    Of a request whose prediction is there no more, or that was made of none, its own confidence is all that is known.
    """
    places = {label: place for place, label in enumerate(labels)}
    probabilities = np.full((len(image_ids), len(labels)), np.nan)
    for row, image_id in enumerate(image_ids):
        guess = guesses[image_id]
        alone = [{"label": guess["predicted_label"], "confidence": guess["confidence"]}]
        for each in guess["top_k"] or alone:
            if each["label"] in places:
                probabilities[row, places[each["label"]]] = min(max(each["confidence"], 0.0), 1.0)
    unsaid = np.isnan(probabilities)
    left = np.clip(1 - np.nansum(probabilities, axis=1), 0, 1) / np.maximum(unsaid.sum(axis=1), 1)
    probabilities = np.where(unsaid, left[:, np.newaxis], probabilities)
    probabilities = probabilities + _APART * np.arange(len(labels), 0, -1)  # no two alike, or lots would be drawn
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def _by_crowdlab(answers: Answers, labels: Sequence[int], probabilities: NDArray[np.float64]) -> _Judged:
    import pandas as pd
    from cleanlab.multiannotator import get_label_quality_multiannotator

    if len(labels) == 1:  # it compares with another class
        return _Judged(np.zeros(len(answers.image_ids), np.int64), np.ones(len(answers.image_ids)), CROWDLAB)
    has_answered = (answers.labels != UNANSWERED).any(axis=0)
    codes = np.searchsorted(labels, answers.labels[:, has_answered]).astype(float)
    codes[answers.labels[:, has_answered] == UNANSWERED] = np.nan
    found = get_label_quality_multiannotator(
        pd.DataFrame(codes), probabilities, return_detailed_quality=False, return_annotator_stats=False, verbose=False
    )["label_quality"]
    best = found["consensus_label"].to_numpy(np.int64)
    return _Judged(best, found["consensus_quality_score"].to_numpy(np.float64), CROWDLAB)


def _by_accuracy(answers: Answers, labels: Sequence[int], honeypots: Mapping[str | None, tuple[int, int]]) -> _Judged:
    """Weigh each answer by how often that person is right, and all mistakes alike (Dawid and Skene, 1979, one coin).

    A person's accuracy is by honeypots, and by what more than half of those said who answered about the same photo.
    """
    votes = np.stack([(answers.labels == label).sum(axis=1) for label in labels], axis=1)
    majority = np.where(votes.max(axis=1) * 2 > answers.counts, votes.argmax(axis=1), UNANSWERED)
    others = max(len(labels) - 1, 1)
    log_likelihood = np.zeros(votes.shape)
    for place, annotator in enumerate(answers.annotators):
        answered = np.flatnonzero(answers.labels[:, place] != UNANSWERED)
        codes = np.searchsorted(labels, answers.labels[answered, place])
        right, known = honeypots.get(annotator, (0, 0))
        is_compared = majority[answered] != UNANSWERED
        right += int((codes == majority[answered])[is_compared].sum())
        accuracy = (right + _RIGHT_BEFORE) / (known + int(is_compared.sum()) + _BEFORE)
        accuracy = min(max(accuracy, 1 / (others + 1)), 1 - 1e-6)  # who knows nothing says nothing
        log_likelihood[answered] += np.log((1 - accuracy) / others)
        log_likelihood[answered, codes] += np.log(accuracy) - np.log((1 - accuracy) / others)
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    quality = likelihood / likelihood.sum(axis=1, keepdims=True)
    return _Judged(quality.argmax(axis=1), quality.max(axis=1), BY_ACCURACY)


def _rows(
    answers: Answers,
    labels: Sequence[int],
    names: Mapping[int, str],
    judged: _Judged,
    guesses: Mapping[str, Mapping[str, Any]],
    least_quality: float,
) -> list[dict[str, Any]]:
    rows = []
    for row, image_id in enumerate(answers.image_ids):
        said: dict[int, list[str]] = defaultdict(list)
        for label, annotator in zip(answers.labels[row].tolist(), answers.annotators, strict=True):
            if label != UNANSWERED:
                said[label].append(annotator or "somebody")
        best, people = labels[judged.best[row]], int(answers.counts[row])
        quality, agreeing = float(judged.quality[row]), said.get(best, [])
        disputed = len(agreeing) * 2 <= people or quality < least_quality
        rows.append(
            {
                "image_id": image_id,
                "path": guesses[image_id]["path"],
                "label": None if disputed else best,
                "label_name": None if disputed else names.get(best, str(best)),
                "answers": people,
                "agreement": len(agreeing) / people,
                "quality": quality,
                "disputed": disputed,
                "annotators": None if disputed else _people(agreeing),
                "said": "; ".join(f"{names.get(label, label)}: {_people(said[label])}" for label in sorted(said)),
                "method": judged.method,
                "decided_at": answers.newest[row].item().replace(tzinfo=dt.UTC),
            }
        )
    return rows


def _people(annotators: Sequence[str]) -> str:
    shown = ", ".join(annotators[:_PEOPLE_SHOWN])
    return shown if len(annotators) <= _PEOPLE_SHOWN else f"{shown} and {len(annotators) - _PEOPLE_SHOWN} more"
