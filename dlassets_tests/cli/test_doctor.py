"""`dlassets doctor` finds what is wrong with a lake, says what to do, and says of a sound one that it is well."""

import datetime as dt
import functools
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dlassets.alerts.channels import channels_of
from dlassets.alerts.outbox import Alert, raise_alerts, send_waiting
from dlassets.engines.local import LocalEngine
from dlassets.resources.instance import DATABASES
from dlassets.settings import AlertSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.flipping import flip_footer
from dlassets_tests.programs import invoke
from dlassets_tests.stores import give_store
from dlassets_tests.tables import image_id, put


@pytest.fixture
def sound(lake: Lake) -> Lake:
    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)
    for number in range(3):
        put(lake, "raw_images", {"path": f"z/{number}.jpg", "image_id": image_id(str(number)), "content": b"1"})
    give_store(Settings(root=lake.root))
    for name in DATABASES:
        database = Path(lake.dagster_home, name)
        database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE filled (value TEXT)")
            connection.executemany("INSERT INTO filled VALUES (?)", [["x" * 3000] for _ in range(9)])
    return lake


def asked(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    result = invoke("doctor", DLASSETS_ROOT=lake.root)
    return result.exit_code, result.output


def test_an_empty_root_has_no_lake_and_lacks_its_landing_zones(lake, monkeypatch) -> None:
    code, said = asked(lake, monkeypatch)

    assert code == 1
    assert "lake: 1 found" in said
    assert "landing zones: 2 found" in said
    assert said.count(": well") == 8
    assert not Path(lake.root).exists(), "looking makes nothing"


def test_a_sound_lake_is_well(sound, monkeypatch) -> None:
    code, said = asked(sound, monkeypatch)

    assert (code, said.count(": well")) == (0, 10), said


def test_an_address_of_alerts_that_cannot_be_and_alerts_that_were_given_up_are_found(sound, monkeypatch) -> None:
    settings = AlertSettings(urls=("json://127.0.0.1:1/alerts",), attempts=1)
    raise_alerts(LocalEngine(), sound, [Alert("run_failed", "A run failed", "of nothing", "run 1")])
    monkeypatch.setenv("DLASSETS_ALERTS__URLS", "nosuch://Qz7fToken1")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    send_waiting(LocalEngine(), sound, settings, channels_of(settings), later)

    code, said = asked(sound, monkeypatch)

    assert code == 1
    assert "alerts: 2 found" in said
    assert "1 alerts were given up" in said
    assert "none that Apprise can send to" in said
    assert "Qz7fToken1" not in said


def damage(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])


@pytest.mark.parametrize(
    ("pattern", "fault", "said"),
    [
        ("tables/raw_images/*/*.parquet", Path.unlink, "raw_images lacks 1 of its 3 data files, or they are damaged"),
        ("tables/raw_images/*/*.parquet", lambda file: file.write_bytes(b""), "dlassets restore raw_images --version"),
        ("tables/raw_images/*/*.parquet", flip_footer, "raw_images lacks 1 of its 3 data files, or they are damaged"),
        ("tables/raw_images/_delta_log/*1.json", Path.unlink, "The log of the table at"),
        ("tables/raw_images/_delta_log/*3.json", lambda file: file.write_bytes(b""), "0003.json is empty"),
        ("tables/raw_images/_delta_log", shutil.rmtree, "there are data files, and no commit"),
        ("mlflow/mlflow.db", damage, "mlflow.db is damaged"),
        ("mlflow/mlflow.db", lambda file: file.write_bytes(b"no database" * 99), "file is not a database"),
        ("dagster/history/runs/index.db", damage, "index.db is damaged"),
        ("landing/labeled", Path.rmdir, "The landing zone labeled is not there"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(sound, monkeypatch, pattern, fault, said) -> None:
    fault(min(Path(sound.root).glob(pattern)))

    code, output = asked(sound, monkeypatch)

    assert code == 1
    assert said in output
    assert output.count(": well") == 9


def test_a_store_that_another_process_holds_is_not_called_damaged(sound, monkeypatch) -> None:
    monkeypatch.setattr("sqlite3.connect", functools.partial(sqlite3.connect, timeout=0))
    with closing(sqlite3.connect(f"{sound.root}/mlflow/mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, output = asked(sound, monkeypatch)

    assert code == 1
    assert "mlflow.db cannot be used: database is locked. Another process is writing to it" in output


def test_a_folder_for_temporary_files_that_cannot_be_used_is_named(sound, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc/self/nowhere")

    code, output = asked(sound, monkeypatch)

    assert code == 1
    assert "/proc/self/nowhere cannot be written: " in output
    assert "set TMPDIR to another folder" in output
