"""What a model version has said: how many predictions it made, since when, and what of them is in use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.tables import PREDICTIONS, PREDICTIONS_CURRENT
from dlassets.registry.models import PREDICTED, ModelVersion


@dataclass(frozen=True)
class Predicted:
    """The rows of a table that a model version has made; `since` is None where there are none."""

    table: str
    rows: int
    since: dt.datetime | None


def predicted(engine: Engine, tables: Mapping[str, Snapshot], model: ModelVersion) -> list[Predicted]:
    """Return how much a model version has said in `predictions`, and in `predictions_current`, which are in use."""
    return [_predicted(engine, name, tables[name], model) for name in (PREDICTIONS.name, PREDICTIONS_CURRENT.name)]


def _predicted(engine: Engine, name: str, table: Snapshot, model: ModelVersion) -> Predicted:
    row = (
        engine.sql(
            f"SELECT COUNT(*) AS made, MIN(p.scored_at) AS since FROM ({PREDICTED}) AS p",  # noqa: S608 - a constant
            {"predictions": table, "model": engine.rows(model.row)},
        )
        .arrow()
        .to_pylist()[0]
    )
    return Predicted(name, row["made"], row["since"])
