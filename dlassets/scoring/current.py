"""The table `predictions_current`: what the champion says of every photo that is there, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlassets.engines.base import REPLACED_AT_ONCE, Commit, Engine, Rows, Snapshot, Written
from dlassets.lakehouse.tables import PREDICTIONS_CURRENT
from dlassets.registry.models import CURRENT, NOT_CURRENT, ModelVersion

_SAID = ", ".join(f"said.{name}" for name in PREDICTIONS_CURRENT.names if name not in PREDICTIONS_CURRENT.key)


def update_current(
    engine: Engine, tables: Mapping[str, Snapshot], model: ModelVersion, provenance: Mapping[str, Any]
) -> Written:
    """Bring `predictions_current` up to what this model version says, and write nothing but what differs from that.

    A photo whose file has gone leaves, and so does what was said of other bytes or by another model. `tables` are
    predictions, raw_images, deleted_files and predictions_current.
    """
    found = engine.sql(
        f"SELECT COALESCE(said.path, old.path) AS path, {_SAID} {NOT_CURRENT}",
        {**tables, "model": engine.rows(model.row)},
    )
    left, changed = found.split_by_null("image_id")
    paths = left.select(["path"]).arrow()["path"].to_pylist()
    uri, commit = tables["predictions_current"].uri, Commit(provenance)
    if len(paths) > REPLACED_AT_ONCE:  # one write of all rows is less than many of some
        return engine.replace(_all(engine, tables, model), PREDICTIONS_CURRENT, uri, commit)
    written = engine.merge(changed, PREDICTIONS_CURRENT, uri, commit)
    if not paths:
        return written
    nothing = engine.rows(PREDICTIONS_CURRENT.schema.empty_table())
    removed = engine.replace(nothing, PREDICTIONS_CURRENT, uri, Commit(provenance), {"path": paths})
    return replace(written, version=removed.version, changed=True)


def _all(engine: Engine, tables: Mapping[str, Snapshot], model: ModelVersion) -> Rows:
    read = {name: tables[name] for name in ("predictions", "raw_images", "deleted_files")}
    return engine.sql(CURRENT, {**read, "model": engine.rows(model.row)})
