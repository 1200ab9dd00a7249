import functools
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.resources import instance
from dlassets.resources.instance import DATABASES, DEFAULT, dagster_home
from dlassets.storage.databases import rows_of
from dlassets.storage.lake import Lake
from dlassets_tests.disk import disk_full_after

_make = instance._make


@pytest.fixture(autouse=True)
def made_by_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster takes most of a second to make its databases."""
    monkeypatch.setattr(instance, "_make", lambda new: shutil.copytree(_made(), new, dirs_exist_ok=True))


@functools.cache
def _made() -> Path:
    folder = Path(tempfile.mkdtemp())
    _make(folder)
    return folder


def test_a_lake_gets_a_configured_folder_of_its_own(lake):
    home = dagster_home(lake)
    assert home == Path(lake.root) / "dagster"
    assert (home / "dagster.yaml").read_text() == DEFAULT.read_text()


def test_a_users_dagster_yaml_is_never_overwritten(lake):
    (dagster_home(lake) / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    assert (dagster_home(lake) / "dagster.yaml").read_text() == "telemetry: {enabled: true}\n"


def test_dagster_home_wins_and_a_new_folder_is_configured(lake, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    assert dagster_home(lake) == tmp_path / "elsewhere"
    assert (tmp_path / "elsewhere" / "dagster.yaml").read_text() == DEFAULT.read_text()
    assert not Path(lake.root).exists()


def test_a_used_folder_without_configuration_is_left_as_it_is(lake, tmp_path, monkeypatch):
    (tmp_path / "used" / "history").mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "used"))
    assert "dagster.yaml" not in [path.name for path in dagster_home(lake).iterdir()]


def test_half_made_databases_are_made_anew_and_used_ones_are_left(lake):
    half, double, used = (dagster_home(lake) / name for name in DATABASES)
    half.write_bytes(b"")
    for database, table in ((double, "secondary_indexes"), (used, "jobs")):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO alembic_version VALUES ('another')")
            connection.execute(f"INSERT INTO {table} (id) VALUES (1)" if table == "jobs" else "DELETE FROM event_logs")

    dagster_home(lake)

    assert [rows_of(database, "alembic_version") for database in (half, double, used)] == [1, 1, 2]


def test_who_keeps_runs_elsewhere_has_no_databases_made(lake):
    home = Path(lake.root) / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("storage: {postgres: {postgres_url: postgresql://db.example.com/dagster}}\n")

    assert [path.name for path in dagster_home(lake).iterdir()] == ["dagster.yaml"]


def test_a_lake_in_object_storage_asks_for_dagster_home(lake):
    with pytest.raises(DlassetsError, match="s3a://bucket/lake: set DAGSTER_HOME"):
        dagster_home(Lake.at("s3a://bucket/lake"))


def test_a_folder_that_cannot_be_made_is_said(lake, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DlassetsError, match="cannot be used"):
        dagster_home(lake)


def test_a_full_disk_leaves_no_part_of_a_configuration(lake):
    with disk_full_after(100), pytest.raises(DlassetsError, match="cannot be used"):
        dagster_home(lake)
    assert (dagster_home(lake) / "dagster.yaml").read_text() == DEFAULT.read_text()


def test_dagster_runs_one_run_of_a_pipeline_at_a_time_and_phones_nobody(lake):
    from dagster import DagsterInstance, DagsterRun
    from dagster._utils.tags import TagConcurrencyLimitsCounter

    with DagsterInstance.from_config(str(dagster_home(lake))) as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled
        queue = instance.get_concurrency_config().run_queue_config

    def run(pipeline: str) -> DagsterRun:
        return DagsterRun(job_name=pipeline, tags={"dlassets/pipeline": pipeline})

    running = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, [run("training")])
    assert running.is_blocked(run("training"))
    assert not running.is_blocked(run("scoring"))


def test_dagsters_folder_in_another_lake_is_warned_of(lake, tmp_path, monkeypatch, caplog):
    other = Lake.at(str(tmp_path / "other"))
    monkeypatch.setenv("DAGSTER_HOME", other.dagster_home)
    dagster_home(lake)
    assert not caplog.messages  # it is no lake yet
    Path(other.table("raw_images")).mkdir(parents=True)

    dagster_home(lake)

    (warning,) = caplog.messages
    assert f"DAGSTER_HOME is {other.dagster_home}, which is the lake's at {other.root}" in warning
    assert f"Unset DAGSTER_HOME, or set it to {lake.dagster_home}." in warning


def test_dagsters_folder_in_its_own_lake_is_not_warned_of(lake, monkeypatch, caplog):
    Path(lake.table("raw_images")).mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", lake.dagster_home)
    dagster_home(lake)
    assert not caplog.messages
