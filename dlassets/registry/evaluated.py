"""The table `evaluated_rows`: what training runs have logged of each row of validation and test, gathered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import EVALUATED_ROWS, TEST, VALIDATION
from dlassets.registry.lifecycle import TAG_ASSET, TAG_INPUTS, first_of, runs_where
from dlassets.registry.lineage import learned_in
from dlassets.registry.models import TRAINED_MODEL
from dlassets.registry.report import EVALUATION, ROWS, TAG_ROWS
from dlassets.registry.store import MlflowStore
from dlassets.registry.tracking import NOT_EVALUATED, artifact_of
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Gathered:
    """What `gather` did: the runs whose rows are new, and why those of others cannot be had."""

    written: Written
    runs: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def evaluated_runs(mlflow: MlflowStore, lake: Lake) -> list[Run]:
    """Return the finished runs of `trained_model` on this lake that have logged their rows, the newest first.

    Neither trials of a study are among them, nor trainings that reproduce another, nor those of earlier releases; and
    of several on the same inputs it is the one that `first_of` says.
    """
    condition = f"tags.{TAG_ASSET} = '{TRAINED_MODEL.name}' AND attributes.status = 'FINISHED'"
    found = runs_where(mlflow.client, mlflow.experiment, condition)
    # A lake that was moved has its own runs still, whose inputs name where it was.
    of_lake = [run for run in found if TAG_ROWS in run.data.tags and (mlflow.is_own or learned_in(run, lake))]
    by_inputs: dict[str, list[Run]] = defaultdict(list)
    for run in of_lake:
        by_inputs[run.data.tags[TAG_INPUTS]].append(run)
    name = mlflow.settings.registry.model_name
    chosen = [first_of(mlflow.client, name, trainings) for trainings in by_inputs.values()]
    return sorted(chosen, key=lambda run: (run.info.end_time, run.info.run_id), reverse=True)


def gather(
    engine: Engine, table: Snapshot, runs: Sequence[Run], client: MlflowClient, provenance: Mapping[str, Any]
) -> Gathered:
    """Merge the rows of those runs into `table`, a version of `evaluated_rows`, that it has none of."""
    import pyarrow as pa

    there = _rows_by_run(engine, table)
    found, problems = {}, []
    for run_id in (run.info.run_id for run in runs if run.info.run_id not in there):
        try:
            found[run_id] = _logged(client, run_id)
        except DlassetsError as error:
            problems.append(str(error))
    if not found:
        return Gathered(Written(table.version, changed=False), problems=problems)
    commit = Commit({**provenance, "runs": sorted(found)})
    written = engine.merge(engine.rows(pa.concat_tables(found.values())), EVALUATED_ROWS, table.uri, commit)
    return Gathered(written, list(found), problems)


def lacking_rows(engine: Engine, table: Snapshot, runs: Sequence[Run]) -> list[str]:
    """Say of each run that has not every row of its validation and test split there, how many it has."""
    there = _rows_by_run(engine, table)
    expected = {run.info.run_id: _evaluated(run) for run in runs}
    return [
        f"run {run_id} has {there.get(run_id, 0)} of {rows} rows"
        for run_id, rows in expected.items()
        if there.get(run_id, 0) != rows
    ]


def _rows_by_run(engine: Engine, table: Snapshot) -> dict[str, int]:
    query = "SELECT run_id, COUNT(*) AS number FROM evaluated_rows GROUP BY run_id"
    found = engine.sql(query, {EVALUATED_ROWS.name: table}).arrow()
    return dict(zip(found["run_id"].to_pylist(), found["number"].to_pylist(), strict=True))


def _evaluated(run: Run) -> int:
    """Return how many rows the run was evaluated on: those of its splits, but for photos that could not be had."""
    of_splits = sum(int(run.data.params[f"{split}_rows"]) for split in (VALIDATION, TEST))
    return of_splits - int(run.data.metrics.get(NOT_EVALUATED, 0))


def _logged(client: MlflowClient, run_id: str) -> pa.Table:
    """Return the rows that a run has logged. Raises DlassetsError where they are gone or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = artifact_of(client, run_id, f"{EVALUATION}/{ROWS}")
    try:
        return pq.read_table(pa.BufferReader(content)).select(EVALUATED_ROWS.names).cast(EVALUATED_ROWS.schema)
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise DlassetsError(
            f"The file {EVALUATION}/{ROWS} of MLflow run {run_id} is damaged: {error}. Restore it, or delete the run "
            "in MLflow to train again."
        ) from error
