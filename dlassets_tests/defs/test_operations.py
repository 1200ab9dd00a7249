"""Care of the tables as Dagster runs it, and what the command tells of a lake that was trained on twice."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import files_of, pin
from dlassets.lakehouse.tables import BOOKS, TABLES
from dlassets.registry.store import MlflowStore
from dlassets.settings import MaintenanceSettings
from dlassets_tests.pipelines import Pipelines, arrive, failures, materialized, new_lake, values
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get


def cared_for(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    made = {name.removeprefix("maintenance/"): values(made) for name, made in materialized(result).items()}
    assert made.pop("dagster_runs") == {"runs_deleted": 0, "run_days": 90}
    return made


def test_the_pipeline_cares_for_every_table_and_says_what_it_did(tmp_path, instance, photos) -> None:
    pipelines = new_lake(tmp_path / "lake", instance, ingest={"files_per_batch": 20})
    arrive(photos, pipelines)
    assert pipelines.run("ingest_pipeline").success
    files = len(files_of(pin(pipelines.lake, "raw_images")))
    rows = get(LocalEngine(), pipelines.lake, "raw_images", "path, image_id")

    first = pipelines.run("maintenance_pipeline")
    versions = pipelines.versions()
    again = pipelines.run("maintenance_pipeline")
    ingested = pipelines.run("ingest_pipeline")

    assert failures(first) == {}
    care = cared_for(first)
    assert set(care) == {*TABLES, *BOOKS}
    for name in ("model_events", "alerts"):
        assert care[name]["changed"] == "nothing new: there is no such table yet"
        assert not Path(pipelines.lake.table(name)).exists()
    raw = care["raw_images"]
    assert (raw["files_before"], raw["files_after"], raw["files_deleted"]) == (files, 1, 0)
    assert files >= 5
    assert raw["bytes_before"] > raw["bytes_after"] > 0
    assert raw["changed"] == "a new version"
    assert care["human_labels"]["changed"].startswith("nothing new")
    assert versions == pipelines.versions()
    assert all(made["changed"].startswith("nothing new") for made in cared_for(again).values())
    assert get(LocalEngine(), pipelines.lake, "raw_images", "path, image_id") == rows
    made = {name: values(found)["changed"] for name, found in materialized(ingested).items()}
    assert all(changed.startswith("nothing new") for changed in made.values()), made


@pytest.fixture(scope="module")
def trained_twice(photos, tmp_path_factory):
    """A lake with two model versions, whose tables were then cared for with no retention at all."""
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path_factory.mktemp("lake"), instance)
        arrive(photos, pipelines)
        zone = pipelines.zone("unlabeled")
        later = zone.rename(zone.with_name("later"))
        zone.mkdir()
        pipelines.run("training_pipeline")
        versions = pipelines.versions()
        folders = {folder.name[:3]: folder for folder in pipelines.zone("labeled").iterdir()}
        for photo in later.iterdir():
            photo.rename(folders[photo.name[:3]] / photo.name)
        pipelines.run("training_pipeline")
        maintenance = MaintenanceSettings().model_copy(update={"retention_hours": 0})
        at_once = Pipelines(pipelines.settings.model_copy(update={"maintenance": maintenance}), instance)
        care = at_once.run("maintenance_pipeline")
        yield pipelines, versions, care


def test_what_models_were_trained_from_outlives_a_vacuum_without_retention(trained_twice) -> None:
    _, versions, care = trained_twice

    assert failures(care) == {}
    made = cared_for(care)
    for name in ("raw_images", "labeled_images", "image_features", "training_set"):
        kept = made[name]["versions_kept_for_models"]
        assert versions[name] in kept, name
        assert len(kept) == 2, name
        assert made[name]["versions_lost_before"] == []
    # The training set's older files are a model's, and label_errors' older one is no one's.
    assert made["training_set"]["files_deleted"] == 0
    assert made["label_errors"]["files_deleted"] == 1


def test_care_of_the_training_set_is_nothing_new_to_learn_from(trained_twice) -> None:
    pipelines, _, _ = trained_twice
    uri = pin(pipelines.lake, "training_set").uri
    before = pin(pipelines.lake, "training_set").version
    LocalEngine().maintain(TABLES["training_set"], uri, z_order=["image_id"])
    assert pin(pipelines.lake, "training_set").version > before

    result = pipelines.run("training_pipeline")

    made = {name: values(found) for name, found in materialized(result).items()}
    assert made["trained_model"]["changed"].startswith("nothing new")
    assert made["training_set"]["changed"].startswith("nothing new")
    assert made["registered_version"]["version"] == made["validated_version"]["version"] == 2


def command(pipelines: Pipelines, *arguments: object, answer: str | None = None) -> Result:
    return invoke(*arguments, answer=answer, DLASSETS_ROOT=pipelines.settings.root)


def test_history_of_a_model_says_what_it_was_trained_from_and_that_it_is_there(trained_twice) -> None:
    pipelines, versions, _ = trained_twice

    first = json.loads(command(pipelines, "history", "--model", "1", "--json").output)
    one = json.loads(command(pipelines, "history", "raw_images", "--model", "1", "--json").output)
    shown = command(pipelines, "history", "--model", "champion")

    told = {row["table"]: row for row in first}
    for name in ("raw_images", "labeled_images", "image_features", "training_set"):
        assert (told[name]["version"], told[name]["readable"]) == (versions[name], True), name
    assert (told["raw_images"]["rows"], told["training_set"]["rows"]) == (56, 56)
    assert one == [told["raw_images"]]
    assert shown.exit_code == 0
    champion = MlflowStore(pipelines.settings).champion()
    rows = {1: "56", 2: "80"}[champion.version]
    assert next(line.split() for line in shown.output.splitlines() if "training_set" in line)[-2:] == [rows, "yes"]


def test_history_of_a_table_shows_versions_with_what_they_read(trained_twice) -> None:
    pipelines, versions, _ = trained_twice

    shown = command(pipelines, "history", "labeled_images").output
    told = json.loads(command(pipelines, "history", "labeled_images", "--json", "--limit", 3).output)

    assert f"raw_images@{versions['raw_images']}" in shown
    assert "MERGE" in shown
    newest = pin(pipelines.lake, "labeled_images").version
    assert [version["version"] for version in told] == [newest, newest - 1, newest - 2]


def test_a_table_as_a_model_saw_it_is_put_elsewhere(trained_twice, tmp_path) -> None:
    pipelines, _, _ = trained_twice
    before = pipelines.versions()

    ran = command(pipelines, "restore", "training_set", "--model", "1", "--to", tmp_path / "seen by 1")

    assert ran.exit_code == 0, ran.output
    assert "has the 56 rows of version 1 of training_set" in ran.output
    from deltalake import DeltaTable

    copy = DeltaTable(str(tmp_path / "seen by 1"))
    assert (copy.count(), copy.metadata().partition_columns) == (56, ["split"])
    assert pipelines.versions() == before


def test_what_cannot_be_restored_is_said_with_an_exit_code(trained_twice, tmp_path) -> None:
    pipelines, _, _ = trained_twice
    (tmp_path / "taken" / "by").mkdir(parents=True)
    cases: dict[tuple[object, ...], tuple[int, str]] = {
        ("restore", "raw_image", "--version", 1): (1, "Did you mean raw_images?"),
        ("restore", "raw_images", "--version", 99): (1, "raw_images has no version 99"),
        ("restore", "raw_images"): (2, "one of --version, --at and --model"),
        ("restore", "raw_images", "--at", "yesterday"): (2, "'yesterday' is no time such as"),
        ("restore", "raw_images", "--at", "2001-01-01"): (1, "The log of raw_images begins at"),
        ("restore", "raw_images", "--model", "7"): (1, "image_classifier has no version 7. It has 1, 2."),
        ("restore", "predictions", "--model", "1"): (1, "was not trained from predictions"),
        ("restore", "training_set", "--model", "1", "--to", tmp_path / "taken"): (1, "taken exists already"),
        ("restore", "label_errors", "--version", 1): (1, "maintenance.retention_hours"),
        ("history",): (2, "Name a table"),
        ("history", "--model", "best"): (1, "image_classifier has no version best"),
    }
    for arguments, (code, says) in cases.items():
        ran = command(pipelines, *arguments, "--yes") if arguments[0] == "restore" else command(pipelines, *arguments)
        assert (ran.exit_code, says in ran.output) == (code, True), (arguments, ran.output)


def test_a_model_whose_run_recorded_no_version_is_said_and_hinders_no_care(trained_twice, monkeypatch) -> None:
    pipelines, _, _ = trained_twice
    monkeypatch.setattr("dlassets.registry.lineage.TAG_TRAINING_SET", "dlassets.never_written")

    ran = command(pipelines, "history", "--model", "1")

    assert ran.exit_code == 1
    assert "did not record which version of training_set it read" in ran.output
    assert pipelines.run("maintenance_pipeline").success


def test_restoring_in_place_asks_first(trained_twice) -> None:
    pipelines, _, _ = trained_twice
    before = pin(pipelines.lake, "labeled_images").version

    refused = command(pipelines, "restore", "labeled_images", "--model", "1", answer="n\n")
    assert (refused.exit_code, pin(pipelines.lake, "labeled_images").version) == (1, before)
    done = command(pipelines, "restore", "labeled_images", "--model", "1", answer="y\n")

    assert done.exit_code == 0, done.output
    assert f"the 56 rows of version 1 again, as version {before + 1}" in done.output
    assert len(get(LocalEngine(), pipelines.lake, "labeled_images", "path")) == 56
    again = command(pipelines, "restore", "labeled_images", "--model", "1", "--yes")
    assert "already: nothing was written" in again.output
    assert pipelines.run("ingest_pipeline").success
    assert len(get(LocalEngine(), pipelines.lake, "labeled_images", "path")) == 80


@pytest.mark.slow
def test_everything_materializes_at_once(trained_twice) -> None:
    pipelines, _, _ = trained_twice

    result = pipelines.run_only(dg.AssetSelection.all())

    assert failures(result) == {}
    assert {f"maintenance/{name}" for name in TABLES} | set(TABLES) <= set(materialized(result))


def test_a_store_that_does_not_answer_stops_care_before_anything_is_deleted(tmp_path, instance) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    pipelines = new_lake(tmp_path / "lake", instance, mlflow={"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})
    pin(pipelines.lake, "raw_images")
    leftover = Path(pipelines.lake.table("raw_images"), "part-killed.parquet")
    leftover.write_bytes(b"x")
    os.utime(leftover, (0, 0))

    result = pipelines.run("maintenance_pipeline")

    assert not result.success
    assert "file is not a database" in next(iter(failures(result).values()))
    assert leftover.exists()
