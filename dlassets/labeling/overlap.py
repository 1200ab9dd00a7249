"""Asking several people about the same photos: which photos those are, and what was answered about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.hashing import OVERLAPPED, is_below_share
from dlassets.lakehouse.labels import GIVEN_AT, LABELING_ANSWERS, NAMELESS, NEWEST_ANSWER
from dlassets.lakehouse.tables import HONEYPOT
from dlassets.settings import LabelingSettings

# No label: of a photo that this person has not answered about.
UNANSWERED = -1

# SQL over `human_labels`, `classes` and `label_requests`: of the photos that several people are asked about, each
# person's newest answer, to whichever request.
SEVERAL_ANSWERS = f"""
    SELECT image_id, annotator, label, answered_at FROM (
        SELECT standing.image_id, standing.annotator, standing.label,
            {GIVEN_AT} AS answered_at,
            ROW_NUMBER() OVER (PARTITION BY standing.image_id, standing.annotator ORDER BY {NEWEST_ANSWER}) AS place
        FROM ({LABELING_ANSWERS}) AS standing
        WHERE standing.image_id IN (
            SELECT image_id FROM label_requests WHERE answers_wanted > 1 AND strategy <> '{HONEYPOT}')) AS newest
    WHERE place = 1
"""  # noqa: S608 - constants


def answers_wanted(image_id: str, settings: LabelingSettings) -> int | None:
    """Return how many people are to answer about an image: `settings.overlap` of a share of them; None: one."""
    return settings.overlap if is_below_share(image_id, settings.overlap_share, OVERLAPPED) else None


@dataclass(frozen=True)
class Answers:
    """Who said what of photos that several people were asked about.

    `labels` is (images, annotators), in the order of `image_ids` and `annotators`, UNANSWERED where somebody has not
    answered. `newest` is the time of each image's newest answer, as numpy has it.
    """

    image_ids: Sequence[str]
    annotators: Sequence[str | None]
    labels: NDArray[np.int64]
    newest: NDArray[np.datetime64]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many people have answered about each image."""
        return np.asarray((self.labels != UNANSWERED).sum(axis=1))

    def of_several(self) -> Answers:
        """Return those about images that two people or more have answered about."""
        kept = self.counts > 1
        image_ids = [image_id for image_id, keep in zip(self.image_ids, kept, strict=True) if keep]
        return Answers(image_ids, self.annotators, self.labels[kept], self.newest[kept])


def answers_of_several(engine: Engine, snapshots: Mapping[str, Snapshot]) -> Answers:
    """Return what was answered about the photos that several people are asked about, in an order of their own.

    `snapshots` holds human_labels, label_requests and classes.
    """
    tables = {name: snapshots[name] for name in ("human_labels", "label_requests", "classes")}
    rows = engine.sql(SEVERAL_ANSWERS, tables).arrow()
    named = rows["annotator"].to_pylist()
    image_ids = sorted(set(rows["image_id"].to_pylist()))
    annotators = sorted(set(named), key=lambda name: (name is not None, name or ""))
    image_places = {image_id: place for place, image_id in enumerate(image_ids)}
    places = {name: place for place, name in enumerate(annotators)}
    at = [image_places[image_id] for image_id in rows["image_id"].to_pylist()], [places[name] for name in named]
    labels = np.full((len(image_ids), len(annotators)), UNANSWERED, np.int64)
    labels[at] = rows["label"].to_numpy()
    newest = np.full(len(image_ids), np.datetime64(0, "us"))
    np.maximum.at(newest, at[0], rows["answered_at"].to_numpy().astype("datetime64[us]"))
    return Answers(image_ids, annotators, labels, newest)


def without_names(engine: Engine, snapshots: Mapping[str, Snapshot]) -> int:
    """Return how many open requests that several are to answer somebody without a name has answered.

    `snapshots` holds label_requests and human_labels.
    """
    tables = {name: snapshots[name] for name in ("label_requests", "human_labels")}
    found = engine.sql(f"SELECT COUNT(*) AS requests FROM ({NAMELESS}) AS nameless", tables).arrow()  # noqa: S608
    return int(found["requests"][0].as_py())
