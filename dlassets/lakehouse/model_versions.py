"""Which models the lake knows of: those that were registered, with what they were made of, and those that scored.

It stands in the tables, so that what maintenance may delete does not hang on which MLflow store is asked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlassets.engines.base import Commit, Engine
from dlassets.lakehouse.snapshots import evolve, pin, replanned
from dlassets.lakehouse.tables import MODEL_VERSIONS, PREDICTIONS
from dlassets.storage.lake import Lake


@dataclass(frozen=True)
class KnownModel:
    """A row of `model_versions`: see there."""

    model_name: str
    model_version: int
    run_id: str = ""
    package: str | None = None
    training_set_version: int | None = None
    forgotten_at: dt.datetime | None = None

    def __str__(self) -> str:
        return f"{self.model_name}/{self.model_version}"


def recorded_models(engine: Engine, lake: Lake) -> list[KnownModel]:
    """Return every model version that was ever registered from this lake, as far as it was recorded."""
    query = f"SELECT {', '.join(MODEL_VERSIONS.names)} FROM model_versions"  # noqa: S608 - the table's own columns
    rows = engine.sql(query, {MODEL_VERSIONS.name: evolve(lake, MODEL_VERSIONS)}).arrow().to_pylist()
    return _sorted(rows)


def scoring_models(engine: Engine, lake: Lake) -> list[KnownModel]:
    """Return every model version that has predictions."""
    query = "SELECT DISTINCT model_name, model_version, package FROM predictions"
    rows = engine.sql(query, {PREDICTIONS.name: pin(lake, PREDICTIONS.name)}).arrow().to_pylist()
    return _sorted(rows)


def record_models(engine: Engine, lake: Lake, models: Sequence[KnownModel], provenance: Mapping[str, Any]) -> None:
    """Write models down, in place of what was recorded of them."""
    import pyarrow as pa

    if not models:
        return
    rows = pa.Table.from_pylist([asdict(model) for model in models], schema=MODEL_VERSIONS.schema)
    uri = evolve(lake, MODEL_VERSIONS).uri
    replanned(lambda: engine.merge(engine.rows(rows), MODEL_VERSIONS, uri, Commit(provenance)))


def _sorted(rows: Sequence[Mapping[str, Any]]) -> list[KnownModel]:
    models = [KnownModel(**row) for row in rows]
    return sorted(models, key=lambda model: (model.model_name, model.model_version, model.run_id, model.package or ""))
