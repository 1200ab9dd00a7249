"""What registered models learned from outlives maintenance, whichever MLflow store it asks."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from dlassets.engines.base import Commit
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.history import missing_files
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.model_versions import recorded_models
from dlassets.lakehouse.snapshots import at_version, pin
from dlassets.lakehouse.tables import LABELED_IMAGES, TRAINING_SET
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import TAG_PACKAGE
from dlassets.registry.lineage import TAG_TRAINING_SET, forget, needed_versions, record_registered
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Pipelines, failures
from dlassets_tests.programs import invoke
from dlassets_tests.registry.conftest import MODEL, Registry, opened, store_of
from dlassets_tests.stores import give_store
from dlassets_tests.tables import AT_ONCE, arrow, image_id, labelled, put

ENGINE = LocalEngine()
MODELS = 5


def learn(registry: Registry, lake: Lake, name: str = MODEL, package: str | None = None) -> int:
    """Register a version that learned from the training set as it stands now."""
    from mlflow.entities import Dataset, DatasetInput

    client, training_set = registry.client, pin(lake, TRAINING_SET.name)
    experiment = client.get_experiment_by_name(registry.resource.experiment)
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.set_tag(run_id, TAG_TRAINING_SET, training_set.version)
    source = json.dumps({"path": training_set.uri, "delta_table_version": training_set.version})
    client.log_inputs(run_id, [DatasetInput(Dataset("training_set", "0", "delta", source), [])])
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    artifacts = client.get_run(run_id).info.artifact_uri
    tags = {} if package is None else {TAG_PACKAGE: package}
    version = int(client.create_model_version(name, f"{artifacts}/model", run_id, tags).version)
    record_registered(ENGINE, lake, client, name, {"asset": "registered_version"})
    return version


def replace_training_set(lake: Lake, place: int) -> None:
    """Make the labels anew, of another image alone, and the training set of those."""
    row = labelled(f"photo {place}", place % 2)
    labels = ENGINE.replace(
        ENGINE.rows(arrow(LABELED_IMAGES.name, row)), LABELED_IMAGES, pin(lake, LABELED_IMAGES.name).uri, Commit()
    )
    commit = Commit({"asset": TRAINING_SET.name, "inputs": {LABELED_IMAGES.name: labels.version}})
    ENGINE.replace(ENGINE.rows(arrow(TRAINING_SET.name, row)), TRAINING_SET, pin(lake, TRAINING_SET.name).uri, commit)


@dataclasses.dataclass
class Learned:
    """A lake, and the versions of its training set and labels that models learned from."""

    registry: Registry
    lake: Lake
    versions: dict[str, list[int]]

    @property
    def settings(self) -> Settings:
        return self.registry.resource.settings

    def readable(self) -> dict[str, int]:
        """Return how many of the versions that models learned from can be read whole, by table."""
        counts = {}
        for name, versions in self.versions.items():
            found = [at_version(pin(self.lake, name), version) for version in versions]
            counts[name] = sum(then is not None and not missing_files(then) for then in found)
        return counts

    def care(self, settings: Settings) -> None:
        """Do as the assets of maintenance do, with nothing kept for its age."""
        with opened(settings) as store:
            needed = needed_versions(ENGINE, self.lake, store.client)
            for table in (TRAINING_SET, LABELED_IMAGES):
                maintain(ENGINE, self.lake, table, AT_ONCE, needed.get(table.name, ()))


ALL = {TRAINING_SET.name: MODELS, LABELED_IMAGES.name: MODELS}


@pytest.fixture
def learned(registry: Registry) -> Learned:
    """Five models, each of a training set of its own."""
    lake = Lake.at(registry.resource.settings.root)
    versions: dict[str, list[int]] = {TRAINING_SET.name: [], LABELED_IMAGES.name: []}
    for place in range(MODELS):
        replace_training_set(lake, place)
        learn(registry, lake)
        for name, found in versions.items():
            found.append(pin(lake, name).version)
    replace_training_set(lake, MODELS)  # nobody learned from this one
    return Learned(registry, lake, versions)


def database(settings: Settings) -> Path:
    return Path(settings.root, "mlflow", "mlflow.db")


def asking(settings: Settings, store: Path) -> Settings:
    """Return the settings with another MLflow store."""
    mlflow = settings.mlflow.model_copy(update={"tracking_uri": f"sqlite:///{store}"})
    return settings.model_copy(update={"mlflow": mlflow})


def deleted(learned: Learned, _: Path) -> Settings:
    """Nothing is left of the store, and MLflow makes an empty one."""
    give_store(learned.settings)
    return learned.settings


def trained_anew(learned: Learned, folder: Path) -> Settings:
    """The store was lost, and its first new version has the name and the number of an old one."""
    settings = deleted(learned, folder)
    with opened(settings) as store:
        learn(Registry(store), learned.lake)
    return settings


def of_another_lake(learned: Learned, folder: Path) -> Settings:
    """The store is another lake's, which has as many versions of a model of this name."""
    other = Settings(root=str(folder / "other"))
    with store_of(other) as store:
        for place in range(MODELS):
            replace_training_set(Lake.at(other.root), place)
            learn(Registry(store), Lake.at(other.root))
    return asking(learned.settings, database(other))


@pytest.mark.parametrize("wrong", [deleted, trained_anew, of_another_lake])
def test_a_store_that_does_not_know_the_lake_s_models_stops_every_deletion(learned, tmp_path, wrong) -> None:
    settings = wrong(learned, tmp_path)

    with pytest.raises(DlassetsError, match=rf"does not know 5 of the models.*{MODEL}/1.*nothing was deleted.*forget"):
        learned.care(settings)

    assert learned.readable() == ALL


def test_an_older_copy_of_the_store_stops_every_deletion(registry, tmp_path) -> None:
    lake = Lake.at(registry.resource.settings.root)
    store = database(registry.resource.settings)
    replace_training_set(lake, 0)
    learn(registry, lake)
    shutil.copyfile(store, tmp_path / "backup.db")
    replace_training_set(lake, 1)
    learn(registry, lake)

    with (
        opened(asking(registry.resource.settings, tmp_path / "backup.db")) as backup,
        pytest.raises(DlassetsError, match=f"1 of the models .*: {MODEL}/2 .run [0-9a-f]+"),
    ):
        needed_versions(ENGINE, lake, backup.client)


def test_what_models_of_every_name_learned_from_is_kept(learned) -> None:
    learn(learned.registry, learned.lake, "another_classifier")
    for name, versions in learned.versions.items():
        versions.append(pin(learned.lake, name).version)
    replace_training_set(learned.lake, MODELS + 1)
    other_name = learned.settings.registry.model_copy(update={"model_name": "a_third"})

    learned.care(learned.settings.model_copy(update={"registry": other_name}))

    assert learned.readable() == dict.fromkeys(ALL, MODELS + 1)


def test_a_version_that_is_deleted_in_mlflow_is_let_go_of_and_the_others_stay(learned) -> None:
    learned.registry.client.delete_model_version(MODEL, "3")

    learned.care(learned.settings)

    assert learned.readable() == dict.fromkeys(ALL, MODELS - 1)


def test_a_registered_version_whose_run_is_gone_is_kept_by_the_lake_s_own_record(learned) -> None:
    with sqlite3.connect(database(learned.settings)) as store:
        store.execute("DELETE FROM tags")  # the run's record of what it learned from

    learned.care(learned.settings)

    assert learned.readable() == ALL


def test_a_model_that_only_predictions_tell_of_stops_every_deletion(registry) -> None:
    """As in a lake of a release that did not write its models down."""
    lake = Lake.at(registry.resource.settings.root)
    put(lake, "predictions", {"path": "z/a.jpg", "image_id": image_id("a"), "model_name": MODEL, "model_version": 7})

    with pytest.raises(DlassetsError, match=rf"1 of the models that this lake's tables name: {MODEL}/7\. It"):
        needed_versions(ENGINE, lake, registry.client)
    forget(ENGINE, lake, registry.client, f"{MODEL}/7", {"command": "forget"})

    assert needed_versions(ENGINE, lake, registry.client) == {}


def test_predictions_of_another_package_than_the_registered_version_s_stop_every_deletion(registry) -> None:
    """As where the next model after a loss of MLflow's store is version 1 again."""
    client, lake = registry.client, Lake.at(registry.resource.settings.root)
    replace_training_set(lake, 0)
    version = learn(registry, lake, package="its own")
    of_model = {"image_id": image_id("a"), "model_name": MODEL, "model_version": version}
    put(lake, "predictions", {**of_model, "path": "z/a.jpg", "package": "its own"})
    assert needed_versions(ENGINE, lake, client)[TRAINING_SET.name]

    put(lake, "predictions", {**of_model, "path": "z/b.jpg", "package": "another"})

    with pytest.raises(DlassetsError, match=rf"1 of the models that this lake's tables name: {MODEL}/1\. It"):
        needed_versions(ENGINE, lake, client)


def test_a_lake_without_models_is_cared_for_by_any_store(registry) -> None:
    lake = Lake.at(registry.resource.settings.root)
    replace_training_set(lake, 0)

    assert needed_versions(ENGINE, lake, registry.client) == {}


def test_models_that_are_gone_for_good_are_forgotten_by_the_command(learned, tmp_path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = invoke(*arguments, DLASSETS_ROOT=learned.lake.root)
        return done.exit_code, done.output

    assert run("forget", f"{MODEL}/1", "--yes")[0] == 1  # the store has it
    settings = trained_anew(learned, tmp_path)
    for version in range(1, MODELS + 1):
        assert run("forget", f"{MODEL}/{version}", "--yes") == (
            0,
            f"Maintenance need not keep what {MODEL}/{version} learned from.\n",
        )
    code, says = run("forget", f"{MODEL}/1", "--yes")

    assert (code, "delete it in MLflow" in says) == (1, True)
    learned.care(settings)
    assert learned.readable() == dict.fromkeys(ALL, 0)


@pytest.mark.slow
def test_with_a_store_made_anew_the_maintenance_pipeline_fails_and_deletes_nothing(tmp_path, instance) -> None:
    """Five real trainings, and care of the tables as Dagster runs it."""
    settings = Settings(root=str(tmp_path / "lake"), training={"epochs": 2})
    lake, session, random = Lake.at(settings.root), Session(settings), np.random.default_rng(0)
    versions: list[int] = []
    with store_of(settings):
        for model in range(MODELS):
            rows = [
                labelled(f"{model}-{n}", n % 2, split=("train", "validation", "test")[n // 2 % 3]) for n in range(12)
            ]
            put(lake, "labeled_images", *rows)
            features = np.eye(1280)[[row["label"] for row in rows]] * 12 + random.normal(size=(len(rows), 1280))
            common = {"feature_version": session.feature_version}
            embedded = zip(rows, features, strict=True)
            put(lake, "image_features", *({"image_id": r["image_id"], "features": f, **common} for r, f in embedded))
            for step in (steps.training_set, steps.trained_model, steps.registered_version, steps.validated_version):
                step.run(session)
            versions.append(pin(lake, "training_set").version)
    assert [model.training_set_version for model in recorded_models(ENGINE, lake)] == versions
    give_store(settings)
    at_once = settings.model_copy(update={"maintenance": AT_ONCE})

    done = Pipelines(at_once, instance).run_only(dg.AssetSelection.assets(["maintenance", "training_set"]))

    assert not done.success
    assert "does not know 5 of the models" in failures(done)["maintenance__training_set"]
    then = [at_version(pin(lake, "training_set"), version) for version in versions]
    assert [missing_files(version) for version in then if version] == [[]] * MODELS
