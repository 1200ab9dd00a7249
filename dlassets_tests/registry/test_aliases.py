"""MLflow's alias champion beside `model_events`: moves by hand, stores lost or restored, lakes from before."""

import json
import shutil
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.pipeline.session import Session
from dlassets.registry.aliases import TAG_LAST_EVENT, notice_outside_moves
from dlassets.registry.approval import approve, rollback, settle
from dlassets.registry.entry import enter
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, TAG_PACKAGE, TAG_PROMOTIONS, TAG_VERDICT, register
from dlassets.registry.model_registry import load_version
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import digest_of
from dlassets.registry.store import MlflowStore
from dlassets.registry.unvalidated import look
from dlassets_tests.killing import killed_at
from dlassets_tests.registry.conftest import MODEL, Registry
from dlassets_tests.registry.test_approval import PERSON, RARER, SET_ALIAS, SET_TAG, alias, happened, promoted, story
from dlassets_tests.stores import give_store

BACK = {"outside_moves": "put_back"}


def scores_with(registry: Registry, **rules: str) -> ModelVersion | None:
    return Session(registry.by(**rules).settings).champion()


def by_hand(registry: Registry, version: int) -> None:
    registry.client.set_registered_model_alias(MODEL, CHAMPION, str(version))


def let_go_of(registry: Registry) -> None:
    """Close the store's file, which is about to be another."""
    registry.client._tracking_client.store.engine.dispose()
    registry.client._get_registry_client().store.engine.dispose()


def two(registry: Registry) -> None:
    """Version 1 is champion, and 2 failed."""
    promoted(registry)
    settle(registry.by(), registry.validation(registry.entered(2.0), passed=False, why="worse"))


def test_with_nothing_moved_nothing_is_noticed_or_written(registry) -> None:
    assert notice_outside_moves(registry.by()) == []
    two(registry)
    before = story(registry)

    assert [notice_outside_moves(registry.by(**rules)) for rules in ({}, BACK, PERSON)] == [[]] * 3
    assert story(registry) == before


def test_an_alias_that_is_moved_by_hand_is_noticed_once_and_followed(registry) -> None:
    two(registry)
    by_hand(registry, 2)

    told = [notice_outside_moves(registry.by()) for _ in range(2)]

    assert told == [["image_classifier/2: the alias champion was set by hand in MLflow."], []]
    assert story(registry)[-2:] == [(1, "replaced", "champion", "archived"), (2, "moved_outside", "failed", "champion")]
    assert registry.by().history().events[-1].actor == "unknown"
    assert (alias(registry), scores_with(registry).version) == (2, 2)


@pytest.mark.parametrize(
    ("rules", "killed"),
    [(PERSON, None), (BACK, SET_ALIAS), *(RARER(*each) for each in ((BACK, None), (BACK, SET_TAG)))],
)
def test_an_alias_that_is_moved_by_hand_is_put_back_where_the_settings_say_so(registry, rules, killed) -> None:
    two(registry)
    by_hand(registry, 2)
    assert scores_with(registry, **rules).version == 1  # before anybody has noticed
    if killed:
        with killed_at(registry.client, killed):
            notice_outside_moves(registry.by(**rules))

    told = [notice_outside_moves(registry.by(**rules)) for _ in range(2)]

    moved = "2: the alias champion was set by hand in MLflow, which is no approval."
    back = "1: version 1 is champion as before."
    assert told == [[] if killed else [f"image_classifier/{moved}", f"image_classifier/{back}"], []]
    assert alias(registry) == 1
    assert story(registry)[-2:] == [(2, "moved_outside", "failed", "failed"), (1, "put_back", "champion", "champion")]
    assert happened(registry).count("1 put_back") == 1


@pytest.mark.parametrize(("rules", "champion"), [({}, None), RARER(BACK, 1)])
def test_an_alias_that_is_taken_off_by_hand_is_followed_or_put_back(registry, rules, champion) -> None:
    two(registry)
    registry.client.delete_registered_model_alias(MODEL, CHAMPION)

    (first, *_) = notice_outside_moves(registry.by(**rules))

    assert first == "image_classifier/1: the alias champion was taken off it by hand in MLflow."
    assert alias(registry) == champion
    assert notice_outside_moves(registry.by(**rules)) == []


@pytest.mark.parametrize("rules", [{}, PERSON])
@pytest.mark.parametrize("to", [2, RARER(4), None])
def test_a_challenger_that_is_named_by_hand_is_noticed_once_and_followed_or_put_back(registry, rules, to) -> None:
    two(registry)
    newest = registry.entered(3.0)
    registry.client.create_model_version(MODEL, registry.client.get_model_version(MODEL, "1").source, None)
    assert alias(registry, CHALLENGER) == newest.version == 3
    if to is None:
        registry.client.delete_registered_model_alias(MODEL, CHALLENGER)
    else:
        registry.client.set_registered_model_alias(MODEL, CHALLENGER, str(to))

    told = [notice_outside_moves(registry.by(**rules)) for _ in range(2)]

    done = "taken off it" if to is None else "set"
    said = f"image_classifier/{to or 3}: the alias challenger was {done} by hand in MLflow"
    event = "challenger_put_back" if rules else "challenger_taken_off" if to is None else "challenger_set"
    if rules:
        said = f"image_classifier/3: {said}, version 3 has it as before"
    assert told == [[f"{said}."], []]
    assert alias(registry, CHALLENGER) == (3 if rules else to)
    last = registry.by().history().events[-1]
    assert (last.event, last.model_version, last.actor) == (
        event,
        3 if rules else to or 3,
        "ann" if rules else "unknown",
    )
    assert (last.to_state, alias(registry)) == ("failed" if to == 2 and not rules else "challenger", 1)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{}, BACK])
def test_the_champion_is_no_challenger_and_an_archived_version_may_be_one(registry, rules) -> None:
    promoted(registry), promoted(registry, 2.0)
    for version in (2, 1):
        registry.client.set_registered_model_alias(MODEL, CHALLENGER, str(version))
        assert len(notice_outside_moves(registry.by(**rules))) == (version == 1)
        assert alias(registry, CHALLENGER) == (1 if version == 1 and not rules else None)
    assert alias(registry) == 2
    newest = registry.entered(3.0)
    assert alias(registry, CHALLENGER) == newest.version
    assert notice_outside_moves(registry.by(**rules)) == []


@pytest.mark.slow
def test_a_challenger_that_is_put_back_after_a_kill_is_told_of_once(registry) -> None:
    two(registry)
    registry.client.delete_registered_model_alias(MODEL, CHALLENGER)
    with killed_at(registry.client, SET_ALIAS):
        notice_outside_moves(registry.by(**BACK))

    assert notice_outside_moves(registry.by(**BACK)) == []
    assert (alias(registry, CHALLENGER), happened(registry).count("2 challenger_put_back")) == (2, 1)


def test_versions_that_somebody_deletes_in_mlflow_are_told_of_and_the_next_one_goes_on(registry) -> None:
    two(registry)
    for version in (2, 1):
        registry.client.delete_model_version(MODEL, str(version))
    told = [look(registry.by(), lambda _: False).sentences for _ in range(2)]

    lost = "any more, so that it cannot be"
    assert told == [
        [
            f"image_classifier/1: MLflow's store does not have version 1 {lost} champion.",
            f"image_classifier/2: MLflow's store does not have version 2 {lost} challenger.",
        ],
        [],
    ]
    with pytest.raises(DlassetsError, match="MLflow's store does not have version 1 of image_classifier any more"):
        load_version(registry.by(), 1)
    assert promoted(registry, 3.0).version == alias(registry) == 3


def test_a_champion_whose_digest_was_taken_off_in_mlflow_is_the_same_one(registry) -> None:
    model = promoted(registry)
    registry.client.delete_model_version_tag(MODEL, "1", TAG_PACKAGE)

    session = Session(registry.by().settings)
    assert session.champion() == model
    assert notice_outside_moves(registry.by()) == []
    assert session.package(model).head.weight[1, 0] == 1.0


@pytest.mark.slow
def test_a_first_champion_by_hand_is_none_where_moves_are_put_back(registry) -> None:
    registry.entered()
    by_hand(registry, 1)
    assert scores_with(registry, **BACK) is None

    assert len(notice_outside_moves(registry.by(**BACK))) == 2
    assert (alias(registry), happened(registry)) == (None, ["1 registered", "1 moved_outside", "1 put_back"])
    assert notice_outside_moves(registry.by(**BACK)) == []


@pytest.mark.slow
def test_a_version_that_somebody_registered_by_hand_never_scores_where_moves_are_put_back(registry) -> None:
    promoted(registry)
    made = registry.client.create_model_version(MODEL, registry.client.get_model_version(MODEL, "1").source, None)
    by_hand(registry, int(made.version))

    assert scores_with(registry, **BACK).version == 1
    notice_outside_moves(registry.by(**BACK))
    assert (alias(registry), story(registry, 2)) == (1, [(2, "moved_outside", None, "challenger")])


@pytest.mark.slow
def test_a_move_of_another_lake_with_the_same_store_is_one_from_outside(registry, tmp_path) -> None:
    two(registry)
    registry.client.set_registered_model_tag(MODEL, TAG_LAST_EVENT, "an event of another lake")
    by_hand(registry, 2)

    assert len(notice_outside_moves(registry.by())) == 1
    assert alias(registry) == 2


def test_a_store_that_is_restored_from_an_older_copy_is_brought_up_to_what_was_decided(registry, tmp_path) -> None:
    promoted(registry)
    model = registry.entered(2.0)
    store = Path(registry.resource.settings.root, "mlflow", "mlflow.db")
    shutil.copyfile(store, tmp_path / "copy.db")
    settle(registry.by(), registry.validation(model))
    let_go_of(registry)
    shutil.copyfile(tmp_path / "copy.db", store)
    assert alias(registry) == 1

    assert notice_outside_moves(registry.by(**BACK)) == []
    assert alias(registry) == 2


@pytest.mark.parametrize("rules", [{}, RARER(BACK)])
def test_a_store_that_was_lost_leaves_no_champion_and_a_new_one_begins_again(registry, rules) -> None:
    promoted(registry)
    root = registry.resource.settings.root
    let_go_of(registry)
    shutil.rmtree(f"{root}/mlflow")
    give_store(registry.resource.settings)
    anew = Registry(MlflowStore(registry.resource.settings))

    told = notice_outside_moves(anew.by(**rules))
    assert told == [
        "image_classifier/1: MLflow's store does not have version 1 any more, so that it cannot be champion."
    ]
    model = anew.entered(2.0)  # which is given the number 1 again
    assert settle(anew.by(**rules), anew.validation(model)).state == CHAMPION
    assert (alias(anew), scores_with(anew, **rules)) == (1, model)
    assert happened(anew) == [
        "1 registered", "1 validated", "1 promoted", "1 moved_outside", "1 registered", "1 validated", "1 promoted"
    ]  # fmt: skip
    assert load_version(anew.by(), 1).head.weight[1, 0] == 2.0


def test_a_model_from_before_has_its_history_taken_over_once(registry) -> None:
    first = registry.entered()
    registry.entered(2.0), registry.entered(3.0)
    shutil.rmtree(f"{registry.resource.settings.root}/tables/model_events")
    promotions = [
        {"version": 1, "over": None, "at": "2026-01-01T00:00:00+00:00", "why": "there was no champion", "run_id": "r1"},
        {"version": 2, "over": 1, "at": "2126-01-02T00:00:00+00:00", "why": "better", "run_id": "r2"},
    ]
    registry.client.set_registered_model_tag(MODEL, TAG_PROMOTIONS, json.dumps(promotions))
    registry.client.set_model_version_tag(MODEL, "3", TAG_VERDICT, "worse")
    by_hand(registry, 2)
    looked_at = story(registry)

    assert [notice_outside_moves(registry.by(**PERSON)) for _ in range(2)] == [[], []]

    assert story(registry) == looked_at
    assert set(happened(registry)) == {
        "1 registered", "2 registered", "3 registered", "3 validated", "1 promoted", "1 replaced", "2 promoted"
    }  # fmt: skip
    history = registry.by().history()
    assert (history.champion.version, history.state(first), alias(registry)) == (2, "archived", 2)
    (better,) = (event for event in history.events if event.reason == "better")
    assert (better.at.isoformat(), better.run_id) == ("2126-01-02T00:00:00+00:00", "r2")
    assert {(e.actor, e.training_set_version) for e in history.events if e.event == "registered"} == {("unknown", 7)}
    assert rollback(registry.by(), None, "bad").restored == first


@pytest.mark.parametrize("champion", [None, RARER(2)])
def test_an_alias_that_was_moved_by_hand_before_there_were_events_stands(registry, champion) -> None:
    registry.entered(), registry.entered(2.0)
    shutil.rmtree(f"{registry.resource.settings.root}/tables/model_events")
    promoted = [{"version": 1, "over": None, "at": "2126-01-01T00:00:00+00:00", "why": "first", "run_id": ""}]
    registry.client.set_registered_model_tag(MODEL, TAG_PROMOTIONS, json.dumps(promoted))
    if champion:
        by_hand(registry, champion)

    notice_outside_moves(registry.by(**BACK))

    assert (alias(registry), happened(registry)[-1].split()[1]) == (champion, "moved_outside")


def test_files_tags_and_digest_that_were_changed_together_are_refused_by_what_stands_in_the_lake(registry) -> None:
    promoted(registry)
    package = registry.package_of(1)
    (package / "helper.py").write_text("raise SystemExit")
    description = json.loads((package / "package.json").read_text())
    from dlassets.registry.package import _digest

    description["sha256"] = _digest(package, {k: v for k, v in description.items() if k != "sha256"})
    (package / "package.json").write_text(json.dumps(description))
    registry.client.set_model_version_tag(MODEL, "1", TAG_PACKAGE, digest_of(package))
    run_id = registry.client.get_model_version(MODEL, "1").run_id
    registry.client.set_tag(run_id, TAG_PACKAGE, digest_of(package))

    session = Session(registry.by().settings)
    with pytest.raises(
        DlassetsError, match=r"not the one that was registered: .* digest than model_events say.*Restore"
    ):
        session.package(session.required_champion())


@pytest.mark.slow
def test_with_mlflow_away_nothing_is_decided_and_what_is_decided_is_done_once_it_is_back(registry, monkeypatch) -> None:
    from mlflow.exceptions import MlflowException

    model = registry.entered()
    validation = registry.validation(model)

    def away(*_: object, **__: object) -> None:
        raise MlflowException("Connection refused")

    for function in (SET_ALIAS, SET_TAG, "get_registered_model", "search_model_versions"):
        with monkeypatch.context() as patch:
            patch.setattr(registry.client, function, away)
            with pytest.raises(DlassetsError, match=r"MLflow failed while .*: Connection refused"):
                settle(registry.by(), validation)
    settle(registry.by(), validation)
    second = registry.entered(2.0)
    settle(registry.by(**PERSON), registry.validation(second))
    for function in ("get_model_version", SET_ALIAS):
        with monkeypatch.context() as patch:
            patch.setattr(registry.client, function, away)
            with pytest.raises(DlassetsError, match="Connection refused"):
                approve(registry.by("bob", **PERSON), 2, "fine")
    approve(registry.by("bob", **PERSON), 2, "fine")
    with monkeypatch.context() as patch:
        patch.setattr(registry.client, SET_ALIAS, away)
        with pytest.raises(DlassetsError, match="follow model_events, which has what was decided"):
            rollback(registry.by("bob"), None, "bad")
    rollback(registry.by("bob"), None, "bad")

    assert alias(registry) == 1
    assert [line for line in happened(registry) if "registered" not in line and "validated" not in line] == [
        "1 promoted", "2 approval_wanted", "2 approved", "1 replaced", "2 promoted", "2 rolled_back", "1 promoted"
    ]  # fmt: skip


def test_a_registration_that_was_cut_short_is_found_by_the_next(registry) -> None:
    run = registry.client.get_run(registry.client.get_model_version(MODEL, str(registry.entered().version)).run_id)
    shutil.rmtree(f"{registry.resource.settings.root}/tables/model_events")
    assert register(registry.client, MODEL, run) == 1

    assert [enter(registry.by("bob"), run).version for _ in range(2)] == [1, 1]
    assert [(e.event, e.actor) for e in registry.by().history().events] == [("registered", "bob")]
