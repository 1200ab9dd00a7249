"""What `python -m benchmarks.scale` makes up, and how it is looked at then, as the code of dlassets does."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Snapshot
from dlassets.engines.delta_log import open_table
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Table
from dlassets.lakehouse.snapshots import evolve, files_of, newest, row_count
from dlassets.lakehouse.tables import BOOKS, PREDICTIONS, TABLES
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

# So many rows a file that maintenance has put together, of some 130 bytes each.
ROWS_A_FILE = 1_000_000
_FILE_BYTES = 256 * 2**20


def alone(measure: Callable[[Any], dict[str, Any]], made: Any) -> dict[str, Any]:
    """Run it in a new process; add what time of processors it took, and the memory that it came to."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (measure, made))


def _measured(measure: Callable[[Any], dict[str, Any]], made: Any) -> dict[str, Any]:
    warm()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.process_time()
    figures = measure(made)
    taken = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
    return figures | {"cpu_s": round(taken, 3), "memory_mb": round(grown / 1024)}


def warm() -> None:
    """Have what is imported on the way be here before anything is measured."""
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pyarrow.dataset  # noqa: F401


def _table(folder: Path, table: Table) -> Snapshot:
    return evolve(Lake.at(str(folder)), table)


def _adds(first: int, count: int) -> list[Any]:
    """Return log entries of data files that are not there, with the statistics that a real one has."""
    from deltalake.transaction import AddAction

    said = {
        name: f"labeled/012.name/{first:08}-{uuid.uuid4().hex}.jpg" for name in ("path", "model_name", "predicted_name")
    }
    numbers = {"model_version": 1, "predicted_label": 12, "confidence": 0.25, "margin": 0.125}
    ids = {"image_id": uuid.uuid4().hex * 2}
    values = said | numbers | ids
    stats = {"numRecords": ROWS_A_FILE, "minValues": values, "maxValues": values, "nullCount": dict.fromkeys(values, 0)}
    return [
        AddAction(f"part-{number:08}-{uuid.uuid4()}.parquet", _FILE_BYTES, {}, 1, True, json.dumps(stats))
        for number in range(first, first + count)
    ]


def _commit(snapshot: Snapshot, first: int, count: int) -> None:
    delta = open_table(snapshot.uri)
    delta.create_write_transaction(_adds(first, count), "append", delta.schema())


def log_of_files(folder: Path, files: int) -> str:
    """Make a table of so many data files, with a checkpoint, and return where."""
    snapshot = _table(folder, PREDICTIONS)
    _commit(snapshot, 0, files)
    open_table(snapshot.uri).create_checkpoint()
    return snapshot.uri


def log_of_commits(folder: Path, commits: int) -> str:
    """Make a table of so many commits of a file each, with no checkpoint, and return where."""
    snapshot = _table(folder, PREDICTIONS)
    for number in range(commits):
        _commit(snapshot, number, 1)
    for checkpoint in Path(snapshot.uri, "_delta_log").glob("*checkpoint*"):
        checkpoint.unlink()
    return snapshot.uri


def opened(uri: str) -> dict[str, Any]:
    """Open a table and count its rows from its log, as each step does."""
    log = list(Path(uri, "_delta_log").iterdir())
    commits = [file for file in log if file.suffix == ".json"]
    began = time.perf_counter()
    delta = open_table(uri)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    snapshot = Snapshot(PREDICTIONS.name, uri, delta.version())
    rows = row_count(snapshot)
    counted = time.perf_counter() - began
    return {
        "rows": f"{rows:,}",
        "json_bytes_a_commit": round(sum(file.stat().st_size for file in commits) / len(commits)),
        "checkpoint_mb": round(sum(file.stat().st_size for file in log if "checkpoint" in file.name) / 1e6, 1),
        "open_s": round(seconds, 3),
        "count_s": round(counted, 3),
    }


def tables_of_keys(folder: Path, rows: int) -> list[Snapshot]:
    """Make two narrow tables of so many keys each, of which one lacks a hundredth of the other's."""
    import numpy as np
    import pyarrow as pa
    from deltalake import write_deltalake

    made = []
    for name, table, step in (("labeled_images", TABLES["labeled_images"], 1), (PREDICTIONS.name, PREDICTIONS, 100)):
        snapshot = _table(folder, table)
        numbers = np.arange(rows)
        numbers = numbers if step == 1 else numbers[numbers % step > 0]
        paths = pa.array([f"labeled/{number % 1000:03}.name/2026-11-27/{number:010}.jpg" for number in numbers])
        ids = pa.array([f"{number:064x}" for number in numbers])
        keys = {"path": paths, "image_id": ids}
        columns = [
            keys[field.name] if field.name in keys else _one_value(field.type, len(numbers)) for field in table.schema
        ]
        write_deltalake(snapshot.uri, pa.table(columns, schema=table.schema), mode="append")
        found = newest(Lake.at(str(folder)), name)
        assert found is not None
        made.append(found)
    return made


def _one_value(kind: pa.DataType, rows: int) -> pa.Array:
    """Return a column of one value: what else a row holds is not looked at."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar("a"), rows)
    if pa.types.is_nested(kind):
        return pa.array([[]] * rows, kind) if pa.types.is_list(kind) else pa.nulls(rows, kind)
    return pa.repeat(pa.scalar(0, pa.int64()), rows).cast(kind)


def compared(tables: list[Snapshot]) -> dict[str, Any]:
    """Find the keys of one table that another lacks: what every step asks before it does its work."""
    labeled, predictions = tables
    began = time.perf_counter()
    lacking = LocalEngine().sql(
        "SELECT l.path, l.image_id FROM labeled AS l LEFT JOIN predictions AS p "
        "ON p.path = l.path AND p.image_id = l.image_id WHERE p.path IS NULL",
        {"labeled": labeled, "predictions": predictions},
    )
    return {"lacking": len(lacking.arrow()), "s": round(time.perf_counter() - began, 2)}


def nothing(_: Path, __: int) -> None:
    """Make nothing: what is looked at is there."""


def bytes_a_row(_: None) -> dict[str, Any]:
    """Return what a row of each table takes in its files, in the lake of the settings."""
    lake = Lake.at(load_settings().root)
    found = {name: newest(lake, name) for name in (*TABLES, *BOOKS)}
    return {
        name: f"{sum(files_of(table).values()) / rows:,.0f} ({rows:,})"
        for name, table in found.items()
        if table is not None and (rows := row_count(table))
    }


def instance_of_runs(folder: Path, runs: int) -> tuple[str, dict[str, Any]]:
    """Repeat the newest run of the lake of the settings so many times; return the instance's folder, and sizes."""
    lake = Lake.at(load_settings().root)
    there = Path(os.environ.get("DAGSTER_HOME") or lake.dagster_home)
    history = folder / "history"
    (history / "runs").mkdir(parents=True)
    shutil.copyfile(there / "history" / "runs.db", history / "runs.db")
    shutil.copyfile(there / "history" / "runs" / "index.db", history / "runs" / "index.db")
    with closing(sqlite3.connect(history / "runs.db")) as database:
        newest_runs = "SELECT run_id FROM runs WHERE status = 'SUCCESS' ORDER BY id DESC LIMIT 1"
        (run_id,) = database.execute(newest_runs).fetchone()
    own = there / "history" / "runs" / f"{run_id}.db"
    with closing(sqlite3.connect(own)) as database:
        (events,) = database.execute("SELECT COUNT(*) FROM event_logs").fetchone()
    before = _bytes_of(history)
    with closing(sqlite3.connect(history / "runs.db")) as database, database:
        _repeated(database, "runs", run_id, runs)
        _repeated(database, "run_tags", run_id, runs)
    with closing(sqlite3.connect(history / "runs" / "index.db")) as database, database:
        of_assets = _repeated(database, "event_logs", run_id, runs)
    grown = (_bytes_of(history) - before) / runs
    size = {
        "events_a_run": events,
        "of_assets": of_assets,
        "own_kb_a_run": round(own.stat().st_size / 1e3),
        "index_kb_a_run": round(grown / 1e3, 1),
    }
    return str(folder), size


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.db"))


def _repeated(database: sqlite3.Connection, table: str, run_id: str, times: int) -> int:
    """Insert the rows of a run under so many other ids; return how many it has."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
    rows = database.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE run_id = ?", [run_id]).fetchall()
    places = ", ".join("?" * len(columns))
    for _ in range(times):
        other = str(uuid.uuid4())
        copies = ([value.replace(run_id, other) if isinstance(value, str) else value for value in row] for row in rows)
        database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", copies)
    return len(rows)


def asked(made: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Ask an instance what its pages and sensors ask: newest runs, newest materializations of all assets."""
    import dagster as dg

    folder, size = made
    with dg.DagsterInstance.local_temp(folder) as instance:
        instance.get_runs_count()
        began = time.perf_counter()
        instance.get_run_records(limit=25)
        runs = time.perf_counter() - began
        began = time.perf_counter()
        instance.get_latest_materialization_events(instance.all_asset_keys())
        assets = time.perf_counter() - began
    return size | {"runs_page_s": round(runs, 3), "newest_of_assets_s": round(assets, 3)}


def store_of_runs(folder: Path, runs: int) -> str:
    """Log so many trainings to a store, each with metrics of 20 epochs, 30 parameters and 10 tags."""
    settings = Settings(root=str(folder))
    store = MlflowStore(settings)
    client, experiment = store.client, store.client.get_experiment_by_name(settings.mlflow.experiment)
    from mlflow.entities import Metric, Param, RunTag

    for number in range(runs):
        run = client.create_run(experiment.experiment_id)
        metrics = [Metric(name, epoch / 20, 1, epoch) for name in ("loss", "accuracy") for epoch in range(20)]
        params = [Param(f"parameter_{each}", str(number)) for each in range(30)]
        tags = [RunTag(f"tag_{each}", f"{number}") for each in range(9)]
        client.log_batch(run.info.run_id, metrics, params, [*tags, RunTag("dlassets.inputs_sha256", f"{number:064x}")])
        client.set_terminated(run.info.run_id)
    return str(folder)


def found(folder: str) -> dict[str, Any]:
    """Find a run by its inputs, as each training does first, and say what the store takes."""
    settings = Settings(root=folder)
    store = MlflowStore(settings)
    client = store.client
    runs = client.search_runs([client.get_experiment_by_name(settings.mlflow.experiment).experiment_id], max_results=1)
    began = time.perf_counter()
    store.find_run(f"{0:064x}")
    seconds = time.perf_counter() - began
    return {
        "store_mb": round(Path(folder, "mlflow", "mlflow.db").stat().st_size / 1e6, 2),
        "find_s": round(seconds, 3),
        "newest": len(runs),
    }
