"""A lake of an earlier release is upgraded as a whole, first on a copy, and has a way back."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from dlassets.lakehouse.snapshots import newest, row_count
from dlassets.lakehouse.tables import TABLES
from dlassets.registry.release import standing_of
from dlassets.registry.store import MlflowStore
from dlassets.resources.instance import DATABASES
from dlassets.resources.upgrade import BEGUN, Stores, changes, tables_there
from dlassets.settings import MlflowSettings, Settings
from dlassets.storage.backups import Backups
from dlassets.storage.lake import Lake
from dlassets_tests.earlier import unpack
from dlassets_tests.earlier.stores import DAGSTER, MLFLOW, earlier_dagster, earlier_mlflow, used_dagster
from dlassets_tests.postgres import postgres
from dlassets_tests.programs import invoke
from dlassets_tests.tables import put

TELEMETRY = "telemetry: {enabled: false}\n"
GAINED = {"table quarantined_files", "table human_labels", "table labeled_images", "table label_requests"}


def contents(root: str) -> dict[str, bytes]:
    """Return what lies under a root, but for who holds what."""
    files = (path for path in Path(root).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.read_bytes() for path in files}


def rows(lake: Lake) -> dict[str, int]:
    found = {name: newest(lake, name) for name in TABLES}
    return {name: row_count(snapshot) for name, snapshot in found.items() if snapshot is not None}


def what(root: str, mlflow: str | None = None) -> set[str]:
    """Return what an upgrade would change."""
    settings = Settings(root=root, mlflow=MlflowSettings(tracking_uri=mlflow))
    return {change.what for change in changes(Stores.of(settings, Lake.at(root)))}


@pytest.fixture
def earlier(tmp_path: Path) -> Lake:
    """A lake of an earlier release of this project, with models, beside which Dagster's is of one too."""
    lake = Lake.at(str(tmp_path / "lake"))
    unpack(Path(lake.root))
    with_earlier_dagster(lake)
    return lake


@pytest.fixture
def stores(lake: Lake) -> Lake:
    """A small lake with both stores of earlier releases."""
    put(lake, "label_requests", {"request_id": "a", "path": "z/1.jpg", "status": "open"})
    Path(lake.mlflow).mkdir()
    earlier_mlflow(f"sqlite:///{lake.mlflow}/mlflow.db")
    with_earlier_dagster(lake)
    return lake


def with_earlier_dagster(lake: Lake) -> None:
    home = Path(lake.dagster_home)
    home.mkdir()
    (home / "dagster.yaml").write_text(TELEMETRY)
    used_dagster(home)
    earlier_dagster(home)


@pytest.mark.slow
def test_a_rehearsal_says_what_would_change_and_changes_nothing(earlier: Lake) -> None:
    before = contents(earlier.root)

    result = invoke("upgrade", "--rehearse", DLASSETS_ROOT=earlier.root)

    assert result.exit_code == 0, result.output
    assert all(each in result.output for each in (*GAINED, *(f"Dagster's {name}" for name in DATABASES)))
    assert "2 versions of models" in result.output
    assert contents(earlier.root) == before


@pytest.mark.slow
def test_a_rehearsal_tells_of_a_data_file_that_is_gone(earlier: Lake) -> None:
    next(Path(earlier.table("labeled_images")).glob("*.parquet")).unlink()

    result = invoke("upgrade", "--rehearse", DLASSETS_ROOT=earlier.root)

    assert result.exit_code == 1
    assert "labeled_images lacks 1 of its" in result.output


@pytest.mark.slow
def test_a_lake_is_upgraded_with_all_its_rows_and_comes_back_as_it_was(earlier: Lake, tmp_path: Path) -> None:
    before, target = rows(earlier), tmp_path / "kept"

    done = invoke("upgrade", target, DLASSETS_ROOT=earlier.root)

    assert done.exit_code == 0, done.output
    assert (what(earlier.root), rows(earlier)) == (set(), before)
    assert invoke("doctor", DLASSETS_ROOT=earlier.root).exit_code == 0
    with dg.DagsterInstance.from_config(earlier.dagster_home) as instance:
        (run,) = instance.get_runs()
        assert instance.all_logs(run.run_id)[-1].dagster_event_type is dg.DagsterEventType.RUN_SUCCESS
    again = invoke("upgrade", target, DLASSETS_ROOT=earlier.root)
    assert "nothing to upgrade" in again.output
    assert len(Backups(str(target)).names()) == 1

    invoke("backup", target, DLASSETS_ROOT=earlier.root)  # a later one is not what it goes back to
    way_back = done.output.rpartition("--from ")[2].strip()
    other = tmp_path / "other" / "lake"
    assert invoke("restore", "--from", way_back, DLASSETS_ROOT=str(other)).exit_code == 0
    assert what(str(other)) >= GAINED | {f"Dagster's {name}" for name in DATABASES}
    assert rows(Lake.at(str(other))) == before


def test_a_store_of_an_earlier_mlflow_is_not_changed_by_who_opens_it(lake: Lake) -> None:
    put(lake, "label_requests", {"request_id": "a", "path": "z/1.jpg", "status": "open"})
    Path(lake.mlflow).mkdir()
    earlier_mlflow(f"sqlite:///{lake.mlflow}/mlflow.db")
    before = contents(lake.mlflow)

    for command in (("models",), ("doctor", "--only=MLflow's store")):
        result = invoke(*command, DLASSETS_ROOT=lake.root)
        assert result.exit_code == 1
        assert f"is of an earlier release ({MLFLOW}, and here" in result.output
        assert "`dlassets upgrade PLACE` does it" in result.output
    assert contents(lake.mlflow) == before


def test_what_a_newer_release_wrote_is_refused_and_left_alone(lake: Lake, tmp_path: Path) -> None:
    put(lake, "label_requests", {"request_id": "a", "path": "z/1.jpg", "status": "open"})
    for database in (f"{lake.mlflow}/mlflow.db", f"{lake.dagster_home}/{DATABASES[0]}"):
        Path(database).parent.mkdir(parents=True)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            connection.execute("INSERT INTO alembic_version VALUES ('fffffffffff1')")
        before = contents(lake.root)

        for arguments in (("--rehearse",), (tmp_path / "kept",)):
            result = invoke("upgrade", *arguments, DLASSETS_ROOT=lake.root)
            assert result.exit_code == 1
            assert "was written by a newer release (it is of fffffffffff1" in result.output
        assert contents(lake.root) == before
        Path(database).unlink()
        Path(database).parent.rmdir()
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_nothing_is_upgraded_while_dagsters_daemon_or_a_run_goes_on(stores: Lake, tmp_path: Path) -> None:
    database = Path(stores.dagster_home, DATABASES[0])
    before, target = what(stores.root), tmp_path / "kept"

    def refused(statement: str, said: str) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)
        result = invoke("upgrade", target, DLASSETS_ROOT=stores.root)
        assert result.exit_code == 1
        assert said in result.output
        assert (what(stores.root), target.exists()) == (before, False)

    refused("UPDATE runs SET status = 'STARTED'", "These runs of Dagster go on: ")
    heard = "INSERT INTO daemon_heartbeats (daemon_type, daemon_id, timestamp) VALUES ('SENSOR', 'a', datetime('now'))"
    refused(heard, "Dagster's daemon was heard of")


KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from dlassets.cli import main

left = [int(sys.argv[1])]

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *_):
    left[0] -= statement.lstrip().startswith(("CREATE", "ALTER", "INSERT", "UPDATE", "DROP"))
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)

main(sys.argv[2:])
"""


# Of 359 statements: in MLflow's migrations, early and late, and in Dagster's.
@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 200, 320, 345])
def test_an_upgrade_that_was_killed_goes_on_when_run_again(stores: Lake, tmp_path: Path, after: int) -> None:
    target = str(tmp_path / "kept")
    environment = os.environ | {"DLASSETS_ROOT": stores.root}
    program = [sys.executable, "-c", KILLED, str(after), "upgrade", target]
    assert subprocess.run(program, env=environment, check=False).returncode == -signal.SIGKILL
    assert Path(stores.under(BEGUN)).exists()

    done = invoke("upgrade", target, DLASSETS_ROOT=stores.root)

    assert done.exit_code == 0, done.output
    assert (what(stores.root), Path(stores.under(BEGUN)).exists()) == (set(), False)
    (name,) = Backups(target).names()
    assert name in done.output
    client = MlflowStore(Settings(root=stores.root)).client
    assert [run.info.run_id for run in client.search_runs(["7"])] == ["a" * 32]
    with dg.DagsterInstance.from_config(stores.dagster_home) as instance:
        (run,) = instance.get_runs()
        assert instance.all_logs(run.run_id)


@pytest.fixture
def on_postgres(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lake, str]]:
    put(lake, "label_requests", {"request_id": "a", "path": "z/1.jpg", "status": "open"})
    home = tmp_path / "home"
    home.mkdir()
    with postgres() as server:
        mlflow, dagster = server.create("mlflow"), server.create("dagster")
        (home / "dagster.yaml").write_text(TELEMETRY + server.dagster_yaml("dagster"))
        earlier_mlflow(mlflow)
        used_dagster(home)
        earlier_dagster(home, [dagster])
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("DLASSETS_MLFLOW__TRACKING_URI", mlflow)
        yield lake, mlflow


@pytest.mark.slow
def test_stores_on_postgresql_are_rehearsed_on_databases_of_their_own_and_upgraded(on_postgres, tmp_path) -> None:
    from sqlalchemy import create_engine, text

    lake, mlflow = on_postgres

    def databases() -> set[str]:
        with create_engine(mlflow).connect() as connection:
            return set(connection.execute(text("SELECT datname FROM pg_database")).scalars())

    there = databases()
    rehearsed = invoke("upgrade", "--rehearse", DLASSETS_ROOT=lake.root)
    assert rehearsed.exit_code == 0, rehearsed.output
    assert (MLFLOW in rehearsed.output, DAGSTER in rehearsed.output) == (True, True)
    assert "Qz7fPass1" not in rehearsed.output
    assert standing_of(mlflow).revision == MLFLOW, "the store itself is as it was"
    assert (databases(), len(what(lake.root, mlflow))) == (there, 2)

    done = invoke("upgrade", tmp_path / "kept", DLASSETS_ROOT=lake.root)

    assert done.exit_code == 0, done.output
    assert what(lake.root, mlflow) == set()
    client = MlflowStore(Settings(root=lake.root, mlflow=MlflowSettings(tracking_uri=mlflow))).client
    assert [run.info.run_id for run in client.search_runs(["7"])] == ["a" * 32]
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs()
        assert instance.all_logs(run.run_id)[-1].dagster_event_type is dg.DagsterEventType.RUN_SUCCESS
    assert tables_there(lake) == ["label_requests"]
