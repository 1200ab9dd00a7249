"""Runs and versions in a real registry on sqlite: found, registered once, loaded as they were logged."""

import hashlib
import os
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.backbones import BackboneRef, network
from dlassets.registry.entry import enter
from dlassets.registry.events import REGISTERED
from dlassets.registry.lifecycle import (
    CHALLENGER,
    PACKAGE,
    STEP,
    TAG_PACKAGE,
    TAG_PROCESS,
    TAG_STEP,
    end_dead_runs,
    find_run,
    load_run,
    register,
    version_files,
    version_of,
    versions_of,
)
from dlassets.registry.model_registry import load_version
from dlassets.registry.package import ModelPackage
from dlassets.settings import Settings
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.registry.conftest import MODEL, Registry, head, opened, points, store_of

GOOD, EQUAL, BAD = (
    ModelPackage(head(3, 40, knows=knows), BackboneRef("efficientnet_lite0"), "features-1") for knows in (1, 2, -1)
)
TEST = points(-1, -1, 1, 1, labels=(3, 3, 40, 40))


def test_a_run_is_found_by_what_it_learned_from_once_it_has_finished(registry) -> None:
    finished = registry.run(GOOD, "one")
    registry.run(GOOD, "failed", status="FAILED")
    registry.run(GOOD, "running", status="RUNNING")

    experiment = registry.resource.experiment
    assert find_run(registry.client, experiment, MODEL, "one").info.run_id == finished.info.run_id
    assert registry.resource.run_of("one").info.run_id == finished.info.run_id
    for inputs in ("failed", "running", "another"):
        assert find_run(registry.client, experiment, MODEL, inputs) is None
    assert find_run(registry.client, "no such experiment", MODEL, "one") is None
    with pytest.raises(DlassetsError, match="Materialize trained_model first"):
        registry.resource.run_of("another")


def test_the_next_run_ends_those_whose_process_was_killed_and_says_so(registry, caplog) -> None:
    client, store = registry.client, registry.resource
    experiment = client.get_experiment_by_name(store.experiment).experiment_id
    names = {"gone": f"{socket.gethostname()} {os.getpid()} 1.5", "elsewhere": "another-host 1 1.5", "untold": ""}
    runs = {
        name: client.create_run(experiment, run_name=name, tags={TAG_PROCESS: process} if process else {}).info.run_id
        for name, process in names.items()
    }

    with store.run("mine") as mlflow:
        runs["mine"] = mlflow.active_run().info.run_id
        assert end_dead_runs(client, store.experiment) == []

    found = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
    assert found == {"gone": "KILLED", "elsewhere": "RUNNING", "untold": "RUNNING", "mine": "FINISHED"}
    assert "were killed, so they are ended: gone" in caplog.text


def test_a_run_is_registered_once_as_challenger(registry) -> None:
    assert version_of(registry.client, MODEL) is registry.resource.champion() is None
    assert versions_of(registry.client, MODEL) == []
    run = registry.run(GOOD)

    assert [enter(registry.by(), run).version for _ in range(3)] == [1, 1, 1]
    assert enter(registry.by(), registry.run(BAD)).version == 2
    assert versions_of(registry.client, MODEL) == [1, 2]
    assert version_of(registry.client, MODEL, CHALLENGER) == 2
    assert version_of(registry.client, MODEL) is None


def test_a_run_without_a_model_cannot_be_registered(registry) -> None:
    import mlflow

    registry.client.get_experiment_by_name(registry.resource.experiment)
    with mlflow.start_run() as run:
        pass

    with pytest.raises(DlassetsError, match=r"holds no model. Materialize trained_model again"):
        register(registry.client, MODEL, registry.client.get_run(run.info.run_id))


def test_a_version_is_loaded_from_its_own_store_whichever_was_opened_last(registry, tmp_path) -> None:
    version = register(registry.client, MODEL, registry.run(GOOD))

    with store_of(Settings(root=str(tmp_path / "another"))) as another:
        assert another.client.search_registered_models() == []
        assert load_version(registry.by(), version).feature_version == GOOD.feature_version


def test_a_version_is_loaded_as_the_package_that_was_logged_and_one_whose_files_are_gone_is_said(
    registry, settings
) -> None:
    version = register(registry.client, MODEL, registry.run(GOOD))

    loaded = load_version(registry.by(), version)

    assert (loaded.backbone, loaded.feature_version) == (GOOD.backbone, GOOD.feature_version)
    assert loaded.head.weight.tolist() == GOOD.head.weight.tolist()
    shutil.rmtree(f"{settings.root}/mlflow/artifacts")
    with pytest.raises(DlassetsError, match=f"The files of models:/{MODEL}/1 cannot be read: .*Restore"):
        load_version(registry.by(), version)


def test_a_package_put_in_place_of_the_one_that_was_logged_is_refused_by_all_that_load_one(registry, settings) -> None:
    run = registry.run(GOOD)
    version = register(registry.client, MODEL, run)
    (package,) = Path(settings.root, "mlflow", "artifacts").rglob("package")
    BAD.save(package)  # whole in itself

    for load in (lambda: load_version(registry.by(), version), lambda: load_run(registry.client, run)):
        with pytest.raises(DlassetsError, match=r"not the one that was registered: .*dlassets.package_sha256"):
            load()
    assert registry.client.get_model_version(MODEL, "1").tags[TAG_PACKAGE] == run.data.tags[TAG_PACKAGE]


def test_a_version_whose_registration_was_killed_becomes_challenger_with_the_next(registry) -> None:
    run = registry.run(GOOD)
    with killed_at(registry.client, "set_registered_model_alias"):
        enter(registry.by(), run)

    assert enter(registry.by(), run).version == version_of(registry.client, MODEL, CHALLENGER) == 1


def test_two_trainings_of_the_same_inputs_at_once_make_one_version(registry) -> None:
    """The one that began last finished first, and each registers what it finds once it has finished."""
    slow, fast = (registry.run(GOOD, "same", status="RUNNING") for _ in range(2))
    versions = []
    for place, run in enumerate((fast, slow)):
        registry.client.set_terminated(run.info.run_id, "FINISHED", end_time=1_000 + place)
        versions.append(register(registry.client, MODEL, registry.resource.run_of("same")))

    assert versions == versions_of(registry.client, MODEL) * 2 == [1, 1]


@pytest.fixture
def twice(registry) -> tuple[Any, Any]:
    """Two trainings of the same inputs, of which the second has ended before the first by its machine's clock."""
    first, second = (registry.run(GOOD, "same", status="RUNNING") for _ in range(2))
    registry.client.set_terminated(first.info.run_id, "FINISHED", end_time=2_000)
    return registry.client.get_run(first.info.run_id), second


def ended(registry, run: Any, at: int = 1_000) -> Any:
    registry.client.set_terminated(run.info.run_id, "FINISHED", end_time=at)
    return registry.client.get_run(run.info.run_id)


def test_by_clocks_that_differ_two_trainings_of_the_same_inputs_are_one_version(registry, twice) -> None:
    first, second = twice
    assert enter(registry.by(), first).version == 1
    second = ended(registry, second)

    found = registry.resource.run_of("same")

    assert found.info.run_id == first.info.run_id
    assert [enter(registry.by(), run).version for run in (found, second, first)] == [1, 1, 1]
    assert versions_of(registry.client, MODEL) == [1]


@pytest.mark.parametrize("killed", [False, True])
def test_a_training_that_is_registered_while_another_of_the_same_inputs_is_gives_way(registry, twice, killed) -> None:
    first, second = twice[0], ended(registry, twice[1])

    def registered_second() -> None:
        assert enter(registry.by(), first).version == 1

    with overtaken_at(registry.client, "create_model_version", registered_second):
        if killed:  # before it can withdraw what it has registered
            with killed_at(registry.client, "delete_model_version"):
                enter(registry.by(), second)
            assert versions_of(registry.client, MODEL) == [1, 2]
        assert enter(registry.by(), registry.resource.run_of("same") if killed else second).version == 1

    assert versions_of(registry.client, MODEL) == [1]
    assert registry.resource.run_of("same").info.run_id == first.info.run_id
    events = [event for event in registry.by().history().events if event.event == REGISTERED]
    assert [event.model.version for event in events] == [1]


def test_a_version_of_the_same_inputs_that_was_made_before_they_were_one_stays(registry, twice) -> None:
    first, second = twice[0], ended(registry, twice[1])
    register(registry.client, MODEL, first)
    source = f"models:/{second.outputs.model_outputs[0].model_id}"
    registry.client.create_model_version(MODEL, source, second.info.run_id, {TAG_STEP: STEP})

    assert register(registry.client, MODEL, second) == 1
    assert versions_of(registry.client, MODEL) == [1, 2]


def test_a_run_that_two_processes_register_at_once_is_one_version(registry) -> None:
    run = registry.run(GOOD)

    with overtaken_at(registry.client, "create_model_version", lambda: enter(registry.by(), run)):
        version = enter(registry.by(), run).version

    assert versions_of(registry.client, MODEL) == [version] == [1]
    assert version_of(registry.client, MODEL, CHALLENGER) == 1


@pytest.mark.parametrize("name", ["photos of v1.2-rc", "gebäude_模型"])
def test_a_name_that_settings_take_is_one_that_mlflow_finds(registry, name) -> None:
    run = registry.run(GOOD)

    assert [enter(registry.by(model_name=name), run).version for _ in range(2)] == [1, 1]
    assert (versions_of(registry.client, name), version_of(registry.client, name, CHALLENGER)) == ([1], 1)
    assert load_version(registry.by(model_name=name), 1).feature_version == GOOD.feature_version


@pytest.mark.slow
def test_of_a_model_that_a_server_has_only_a_backbone_of_its_own_stays_here(tmp_path, monkeypatch) -> None:
    from safetensors.torch import save_file

    for name in ("tmp", "caches"):
        (tmp_path / name).mkdir()
    own = BackboneRef("torchvision/squeezenet1_1", str(tmp_path / "trained.safetensors"))
    tensors = network(replace(own, weights="none")).network.state_dict()
    save_file(tensors, own.weights)
    sha256 = hashlib.sha256(Path(own.weights).read_bytes()).hexdigest()
    with mlflow_server(tmp_path) as server:
        settings = Settings.model_validate({"root": str(tmp_path / "lake"), "mlflow": {"tracking_uri": server.uri}})
        with opened(settings) as store:
            registry = Registry(store)
            versions = [
                register(registry.client, MODEL, registry.run(replace(GOOD, backbone=backbone)))
                for backbone in (GOOD.backbone, own)
            ]
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
            head_alone, loaded = (load_version(registry.by(), version) for version in versions)
            with version_files(registry.client, MODEL, versions[1]) as files:
                assert (files / PACKAGE / "head.npz").is_file()

    assert list((tmp_path / "tmp").iterdir()) == []
    kept = tmp_path / "caches" / "dlassets" / "backbones" / f"{sha256}.safetensors"
    assert [path for path in (tmp_path / "caches").rglob("*") if path.is_file()] == [kept]
    assert head_alone.backbone == GOOD.backbone
    assert loaded.backbone.weights == f"{kept}#sha256={sha256}"
    assert network(loaded.backbone).network.state_dict().keys() == tensors.keys()
