"""A real MLflow server that goes away while a version is registered, validated and decided about, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.registry.approval import approve, reject, rollback, settle
from dlassets.registry.entry import enter
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.models import ModelVersion
from dlassets.settings import RegistrySettings, Settings
from dlassets_tests.mlflow_servers import MlflowServer, Wire, mlflow_server, wire_to
from dlassets_tests.pipelines import arrive, failures, let_guesses_pass, new_lake
from dlassets_tests.programs import invoke
from dlassets_tests.registry.conftest import MODEL, Registry, opened
from dlassets_tests.registry.test_approval import PERSON, alias

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def wire(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with wire_to(server) as wire:
        yield wire


@pytest.fixture
def served(wire: Wire, tmp_path: Any) -> Iterator[Registry]:
    """A model that no other test has, on the other end of the wire."""
    settings = Settings(root=str(tmp_path / "lake"), mlflow={"tracking_uri": wire.uri})
    with opened(settings) as store:
        registry = Registry(store)
        for version in registry.client.search_model_versions(f"name = '{MODEL}'"):
            registry.client.delete_model_version(MODEL, version.version)
        yield registry


@dataclass(frozen=True)
class Deed:
    """Something that is done with a version, of which this happens, and which leaves it with such an alias.

    MLflow goes away after each so many requests: what takes long to begin is not tried at every one.
    """

    begin: Callable[[Registry], Any]
    do: Callable[[Registry, Any], Any]
    happens: tuple[str, ...]
    leaves: str | None
    every: int = 1


def waiting(registry: Registry) -> ModelVersion:
    model = registry.entered()
    settle(registry.by(**PERSON), registry.validation(model))
    return model


def approved(registry: Registry) -> ModelVersion:
    for _ in range(1 if registry.by().history().champion else 2):  # one to go back to
        approve(registry.by("bob", **PERSON), (model := waiting(registry)).version, "fine")
    return model


WAITED = ("registered", "validated", "approval_wanted")
DEEDS = {
    "register": Deed(Registry.trained, lambda registry, run: enter(registry.by(), run), ("registered",), CHALLENGER),
    "settle": Deed(
        lambda registry: registry.validation(registry.entered()),
        lambda registry, validation: settle(registry.by(), validation).model,
        ("registered", "validated", "promoted"),
        CHAMPION,
        every=3,
    ),
    "approve": Deed(
        waiting,
        lambda registry, model: approve(registry.by("bob", **PERSON), model.version, "fine").model,
        (*WAITED, "approved", "promoted"),
        CHAMPION,
        every=3,
    ),
    "reject": Deed(
        waiting,
        lambda registry, model: reject(registry.by("bob", **PERSON), model.version, "bad").model,
        (*WAITED, "rejected"),
        None,
        every=2,
    ),
    "roll back": Deed(
        approved,
        lambda registry, _: rollback(registry.by("bob", **PERSON), None, "bad").bad,
        (*WAITED, "approved", "promoted", "rolled_back"),
        None,
        every=5,
    ),
}


@pytest.mark.parametrize("name", DEEDS)
def test_wherever_mlflow_goes_away_it_is_said_and_doing_it_again_does_the_rest_once(served, wire, name) -> None:
    deed, requests, has_lost = DEEDS[name], 0, True
    while has_lost:
        begun = deed.begin(served)
        # Of two places one after the other, what is asked is not done at the one, and is done at the other.
        with wire.cut_after(requests, loses_answers_alone=requests // deed.every % 2 == 1):
            failure = _failure(deed.do, served, begun)
            has_lost = wire.has_lost
        assert bool(failure) == has_lost, requests
        if has_lost:
            assert "MLflow failed while" in failure, requests
            assert "Once it can be reached, do the same again: what was done stands." in failure

        model = deed.do(served, begun)

        history = served.by().history()
        assert [event.event for event in history.of(model)][: len(deed.happens)] == [*deed.happens], requests
        assert {alias_: alias(served, alias_) == model.version for alias_ in (CHAMPION, CHALLENGER)} == {
            alias_: alias_ == deed.leaves for alias_ in (CHAMPION, CHALLENGER)
        }, requests
        assert alias(served) == (history.champion and history.champion.version)
        run_id = served.client.get_model_version(MODEL, str(model.version)).run_id
        assert len(served.client.search_model_versions(f"run_id = '{run_id}'")) == 1, requests
        requests += deed.every
    assert requests > 5


def test_what_runs_sensors_and_commands_do_with_mlflow_away_is_done_once_it_is_back(
    server, wire, photos, tmp_path, instance, monkeypatch
) -> None:
    let_guesses_pass(monkeypatch)
    approval = RegistrySettings(approval="person", self_approval=True, actor="ann", model_name="of_runs")
    pipelines = new_lake(tmp_path / "lake", instance, mlflow={"tracking_uri": wire.uri}, registry=approval)
    settings, lake = pipelines.settings, pipelines.lake
    environment = {"DLASSETS_ROOT": lake.root, "DLASSETS_MLFLOW__TRACKING_URI": wire.uri}
    environment |= {"DLASSETS_REGISTRY__MODEL_NAME": "of_runs", "DLASSETS_REGISTRY__APPROVAL": "person"}
    decide = ("--as", "bob", "--reason", "as it should be")
    versions = dg.AssetSelection.assets("registered_version", "validated_version")
    arrive(photos, pipelines)
    with opened(settings) as store:
        learned = dg.AssetSelection.assets("trained_model").upstream()
        assert pipelines.run_only(learned - dg.AssetSelection.assets("tuned_hyperparameters")).success
        server.kill()
        assert "MLflow's store at" in failures(pipelines.run_only(versions))["registered_version"]
        with pytest.raises(DlassetsError, match=r"MLflow's store at .* cannot be reached"):
            pipelines.tick("registry_changes")
        server.start()
        for requests in (8, 24, 48):
            with wire.cut_after(requests):
                said = failures(pipelines.run_only(versions))
                assert wire.has_lost == bool(said), requests
                assert all(
                    "MLflow" in each and each.startswith(("DlassetsError", "PassingError")) for each in said.values()
                ), said
        result = pipelines.run_only(versions)
        assert result.success, failures(result)
        assert pipelines.tick("registry_changes").skip_message == "Every version has a validation."

        with wire.cut_after(5):
            refused = invoke("approve", "1", *decide, **environment)
        server.kill()
        away = [invoke(*words, **environment) for words in (("approve", "1", *decide), ("rollback", *decide))]
        server.start()
        done = invoke("approve", "1", *decide, **environment)
        events = ModelRegistry(settings, LocalEngine(), store, "ann").history().events
        found = store.client.search_model_versions("name = 'of_runs'")

    for each in (refused, *away):
        assert (each.exit_code, each.output.count("error: ")) == (1, 1)
        assert "Traceback" not in each.output
        assert "MLflow" in each.output
    assert (done.exit_code, done.output) == (0, "Version 1 (champion): as it should be.\n")
    assert [event.event for event in events] == ["registered", "validated", "approval_wanted", "approved", "promoted"]
    assert [version.version for version in found] == ["1"]


def test_what_was_registered_again_since_answers_were_lost_is_one_version_and_what_somebody_registers_stays(
    served, wire, monkeypatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    run, requests = served.trained(), 0
    while len(versions := _versions(served, run)) < 2:
        with wire.cut_after(requests, loses_answers_alone=True), pytest.raises(DlassetsError, match="registered"):
            enter(served.by(), run)
        requests += 1
    assert len(versions) == 3

    assert str(enter(served.by(), run).version) == versions[0]
    assert _versions(served, run) == versions[:1]
    by_hand = served.client.create_model_version(MODEL, f"runs:/{run.info.run_id}/model", run.info.run_id)
    assert str(enter(served.by(), run).version) == versions[0]
    assert _versions(served, run) == [versions[0], str(by_hand.version)]


def _versions(registry: Registry, run: Any) -> list[str]:
    found = registry.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    return sorted((version.version for version in found), key=int)


def _failure(do: Callable[[Registry, Any], Any], registry: Registry, begun: Any) -> str:
    """Return what it fails of; nothing where it does not."""
    try:
        do(registry, begun)
    except DlassetsError as error:
        return str(error)
    return ""
