"""A lake is backed up while it is used, a piece at a time, and comes back whole into an empty root, or not at all."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import newest
from dlassets.registry.store import MlflowStore
from dlassets.resources import backup
from dlassets.resources.backup import back_up, restore_backup, verify
from dlassets.resources.instance import DATABASES, dagster_home
from dlassets.settings import MlflowSettings, Settings
from dlassets.storage.backups import Backups
from dlassets.storage.lake import Lake
from dlassets_tests.pipeline.test_moved_lake import JOBS, nothing_is_made_anew
from dlassets_tests.pipelines import Pipelines, arrive, failures, new_lake
from dlassets_tests.postgres import postgres
from dlassets_tests.programs import invoke
from dlassets_tests.stores import give_store
from dlassets_tests.tables import image_id, put


def quiet(*_: object) -> None:
    """Say nothing of how far it is."""


def photo(number: int) -> dict[str, object]:
    return {"path": f"z/{number}.jpg", "image_id": image_id(str(number)), "content": b"1" * 999}


def paths(lake: Lake) -> list[str]:
    from deltalake import DeltaTable

    return sorted(DeltaTable(lake.table("raw_images")).to_pyarrow_table(columns=["path"])["path"].to_pylist())


def files(lake: Lake) -> dict[str, bytes]:
    """Return what the files of a lake hold, but for databases and for who holds what."""
    root = Path(lake.root)
    found = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith((".db", ".lock"))}


@pytest.fixture
def used(lake: Lake) -> Lake:
    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)
    for number in range(3):
        put(lake, "raw_images", photo(number))
    put(lake, "label_requests", {"request_id": "a", "path": "z/1.jpg", "status": "open"})
    for name in (
        "labeling/answers/b/001.x/a.jpg",
        "files/ab/abc",
        "reports/page.html",
        "landing/labeled/001.x/ü ä.jpg",
    ):
        place = Path(lake.root, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    give_store(Settings(root=lake.root))
    home = Path(lake.dagster_home)
    for name in DATABASES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(home / name)) as connection, connection:
            connection.execute("CREATE TABLE runs (value TEXT)")
            connection.execute("INSERT INTO runs VALUES ('first')")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return lake


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "kept")


@pytest.fixture
def other(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "new" / "lake"))


def made(lake: Lake, target: str) -> backup.Done:
    return back_up(Settings(root=lake.root), lake, target, quiet)


def restored(other: Lake, target: str) -> None:
    restore_backup(Settings(root=other.root), other, target, quiet)


def test_a_lake_comes_back_as_it_was_and_a_second_backup_copies_only_what_is_new(used, other, target) -> None:
    first = made(used, target)
    assert (first.copied > 0, made(used, target).copied) == (True, 0)
    put(used, "raw_images", photo(3))
    with closing(sqlite3.connect(Path(used.dagster_home, DATABASES[0]))) as connection, connection:
        connection.execute("INSERT INTO runs VALUES ('second')")

    again = made(used, target)
    restored(other, target)

    new = [path for path, held in again.manifest.files.items() if held not in first.manifest.files.values()]
    assert {path.partition("/")[0] for path in new} == {"tables", "dagster"}
    assert len(new) == 3
    assert files(other) == files(used)
    assert paths(other) == [f"z/{number}.jpg" for number in range(4)]
    with closing(sqlite3.connect(Path(other.dagster_home, DATABASES[0]))) as connection:
        assert connection.execute("SELECT value FROM runs").fetchall() == [("first",), ("second",)]


def test_what_is_committed_while_files_are_copied_is_not_in_it_in_part(used, other, target, monkeypatch) -> None:
    listing = backup._files

    def late(lake: Lake, pinned: Any) -> Any:
        put(used, "raw_images", photo(3))
        put(used, "label_requests", {"request_id": "late", "path": "z/3.jpg", "status": "open"})
        return listing(lake, pinned)

    monkeypatch.setattr(backup, "_files", late)
    done = made(used, target)
    restored(other, target)

    assert paths(other) == [f"z/{number}.jpg" for number in range(3)]
    assert {name: newest(other, name).version for name in done.manifest.tables} == done.manifest.tables
    assert not any("z/3" in str(path) for path in done.manifest.files)
    parquet = [path for path in done.manifest.files if path.startswith("tables/raw") and path.endswith(".parquet")]
    assert len([path for path in parquet if "_delta_log" not in path]) == 3


KILLED = """
import os, signal, sys
from dlassets.cli import main
from dlassets.storage import backups

write, left = backups.write_lines_where_changed, [int(sys.argv[1])]

def write_or_die(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments)

backups.write_lines_where_changed = write_or_die
main(sys.argv[2:])
"""


def killed(after: int, *arguments: str, root: str) -> None:
    """Run the command in a process that is killed once it has written so many files."""
    program = [sys.executable, "-c", KILLED, str(after), *arguments]
    done = subprocess.run(program, env=os.environ | {"DLASSETS_ROOT": root}, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 7])
def test_a_backup_that_was_killed_is_none_and_run_again_it_is_one(used, other, target, after) -> None:
    killed(after, "backup", target, root=used.root)

    assert Backups(target).names() == []
    with pytest.raises(DlassetsError, match="one that was killed is none"):
        verify(target, quiet)
    made(used, target)
    restored(other, target)
    assert files(other) == files(used)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 9, 15])
def test_a_restore_that_was_killed_goes_on_when_run_again(used, other, target, after) -> None:
    made(used, target)
    killed(after, "restore", "--from", target, root=other.root)
    assert Path(other.under(backup.BEGUN)).exists()

    restored(other, target)

    assert files(other) == files(used)
    assert not Path(other.under(backup.BEGUN)).exists()


def test_a_damaged_backup_is_refused_with_the_file_and_nothing_is_written(used, other, target) -> None:
    manifest = made(used, target).manifest
    data = next(path for path in manifest.files if path.startswith("tables/raw_images/image") or "part-" in path)
    digest = manifest.files[data].sha256
    object_ = Path(target, "objects", digest[:2], digest)
    object_.write_bytes(b"x" + object_.read_bytes()[1:])

    result = invoke("restore", "--from", target, DLASSETS_ROOT=other.root)

    assert result.exit_code == 1
    assert data in result.output
    assert digest in result.output
    assert not Path(other.root).exists()
    object_.unlink()
    assert made(used, target).copied == manifest.files[data].size, "what is gone is copied again"
    assert verify(target, quiet).tables == manifest.tables


def test_older_backups_are_deleted_when_that_is_asked_for_and_what_is_kept_stays_whole(used, other, target) -> None:
    settings = Settings(root=used.root)
    places = Path(target, "objects").rglob
    made = [back_up(settings, used, target, quiet).manifest.name]
    only_first = Path(used.root, "reports", "page.html")
    content = only_first.read_text()
    only_first.unlink()
    for number in (7, 8):
        put(used, "raw_images", photo(number))
        made.append(back_up(settings, used, target, quiet).manifest.name)
    holders = [place for place in places("*") if place.is_file() and place.read_bytes() == content.encode()]
    assert len(holders) == 1

    assert Backups(target).thin(2) == ([made[0]], 0)  # another backup may have just written what none names
    assert holders[0].exists()
    for place in places("*"):
        os.utime(place, (1, 1))
    deleted, freed = Backups(target).thin(2)

    assert deleted == []
    assert freed >= len(content)
    assert not holders[0].exists()
    assert Backups(target).names() == made[1:]
    assert verify(target, quiet).name == made[2]
    Path(target, "backups", made[2]).rename(Path(target, "taken-away"))
    assert verify(target, quiet).name == made[1]
    restore_backup(Settings(root=other.root), other, target, quiet)
    assert "z/7.jpg" in paths(other)
    assert "z/8.jpg" not in paths(other)


def test_a_manifest_that_was_changed_is_refused(used, other, target) -> None:
    name = made(used, target).manifest.name
    file = Path(target, "backups", name)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tables": {}}))

    with pytest.raises(DlassetsError, match=f"{name} is damaged"):
        restored(other, target)


def test_nothing_is_restored_over_anything_and_no_lake_keeps_its_own_backup(used, other, target) -> None:
    made(used, target)
    Path(other.root).mkdir(parents=True)
    Path(other.root, "mine.txt").write_text("mine")

    with pytest.raises(DlassetsError, match="is not empty"):
        restored(other, target)
    with pytest.raises(DlassetsError, match="lies in the lake"):
        made(used, used.under("backup"))
    with pytest.raises(DlassetsError, match="There is no backup at"):
        restored(Lake.at(f"{other.root}2"), str(Path(target).parent / "nothing"))
    assert files(other) == {"mine.txt": b"mine"}


@pytest.mark.slow
def test_a_bucket_keeps_backups_as_a_folder_does(used, other, bucket) -> None:
    target = f"s3://{bucket}/kept"
    made(used, target)
    assert made(used, target).copied == 0

    restored(other, target)

    assert files(other) == files(used)


@pytest.mark.slow
def test_a_store_of_mlflows_and_dagsters_on_postgresql_come_back_by_dumps(
    lake, other, target, tmp_path, monkeypatch
) -> None:
    put(lake, "raw_images", photo(1))
    with postgres() as server:
        live, empty = (server.create(name) for name in ("mlflow_live", "mlflow_new"))
        homes = [tmp_path / "home_live", tmp_path / "home_new"]
        for home, name in zip(homes, ("dagster_live", "dagster_new"), strict=True):
            home.mkdir()
            server.create(name)
            (home / "dagster.yaml").write_text(server.dagster_yaml(name))
        settings = Settings(root=lake.root, mlflow=MlflowSettings(tracking_uri=live))
        experiment = MlflowStore(settings).client.create_experiment("kept", "file:///nowhere")
        with dg.DagsterInstance.from_config(str(homes[0])) as instance:
            instance.add_run(dg.DagsterRun("job", run_id="a" * 32))
        monkeypatch.setenv("DAGSTER_HOME", str(homes[0]))
        done = back_up(settings, lake, target, quiet)
        assert {"dumps/mlflow.pgdump", "dumps/dagster.pgdump"} <= done.manifest.files.keys()

        monkeypatch.setenv("DAGSTER_HOME", str(homes[1]))
        there = settings.model_copy(update={"root": other.root, "mlflow": MlflowSettings(tracking_uri=empty)})
        restore_backup(there, other, target, quiet)

        assert MlflowStore(there).client.get_experiment(experiment).name == "kept"
        with dg.DagsterInstance.from_config(str(homes[1])) as instance:
            assert instance.has_run("a" * 32)


@pytest.fixture(scope="module")
def original(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    root = tmp_path_factory.mktemp("first") / "lake"
    root.mkdir()
    home = dagster_home(Lake.at(str(root)))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        pipelines = new_lake(root, instance)
        arrive(photos, pipelines)
        assert {job: failures(pipelines.run(job)) for job in JOBS} == {job: {} for job in JOBS}
        yield pipelines


@pytest.mark.slow
def test_a_lake_backed_up_while_it_scores_goes_on_where_it_is_restored(original, tmp_path) -> None:
    lake, target = original.lake, str(tmp_path / "kept")
    first = next(original.zone("labeled").rglob("*.jpg"))
    (original.zone("unlabeled") / "new.jpg").write_bytes(first.read_bytes() + b"\0")
    scoring = threading.Thread(target=original.run, args=("scoring_pipeline",))
    scoring.start()
    done = back_up(original.settings, lake, target, quiet)
    scoring.join()
    shutil.copytree(target, tmp_path / "moved")

    other = Lake.at(str(tmp_path / "restored"))
    restore_backup(Settings(root=other.root), other, str(tmp_path / "moved"), quiet)

    assert invoke("doctor", DLASSETS_ROOT=other.root).exit_code == 0
    assert {name: newest(other, name).version for name in done.manifest.tables} == done.manifest.tables
    with dg.DagsterInstance.from_config(other.dagster_home) as instance:
        pipelines = Pipelines(Settings(root=other.root), instance)
        assert instance.get_runs_count() >= len(JOBS)
        assert failures(pipelines.run("scoring_pipeline")) == {}
        nothing_is_made_anew(pipelines)
        result = invoke("reproduce", "champion", DLASSETS_ROOT=other.root)
        assert result.exit_code == 0, result.output
