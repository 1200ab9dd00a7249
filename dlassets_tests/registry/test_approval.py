"""Who becomes champion, in a real registry and a real table: by the gate, by a person, and back again."""

import functools

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.monitoring.matters import in_registry
from dlassets.registry import approval
from dlassets.registry.aliases import notice_outside_moves
from dlassets.registry.approval import approve, reject, rollback, settle
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, version_of
from dlassets.registry.models import ModelVersion
from dlassets.registry.validation.validation import TAG_VALIDATION
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.registry.conftest import MODEL, Registry

PERSON = {"approval": "person"}
SET_ALIAS, SET_TAG = "set_registered_model_alias", "set_registered_model_tag"
RARER = functools.partial(pytest.param, marks=pytest.mark.slow)


def story(registry: Registry, version: int | None = None) -> list[tuple[int, str, str | None, str]]:
    events = registry.by().history().events
    return [(e.model_version, e.event, e.from_state, e.to_state) for e in events if version in {None, e.model_version}]


def happened(registry: Registry) -> list[str]:
    return [f"{version} {event}" for version, event, _, _ in story(registry)]


def alias(registry: Registry, name: str = CHAMPION) -> int | None:
    return version_of(registry.client, MODEL, name)


def promoted(registry: Registry, knows: float = 1.0) -> ModelVersion:
    model = registry.entered(knows)
    settle(registry.by(), registry.validation(model))
    return model


def waiting(registry: Registry, knows: float = 1.0, by: str = "ann") -> ModelVersion:
    model = registry.entered(knows, by)
    settle(registry.by(by, **PERSON), registry.validation(model))
    return model


def test_what_passes_is_promoted_and_what_fails_is_not_and_each_event_is_written_down_once(registry) -> None:
    for knows, passed in ((1.0, True), (2.0, True), (-1.0, False)):
        model = registry.entered(knows)
        validation = registry.validation(model, passed=passed, why=f"knows {knows}")
        decisions = [settle(registry.by(), validation) for _ in range(2)]
        assert [decision.state for decision in decisions] == [CHAMPION if passed else "failed"] * 2

    assert story(registry) == [
        (1, "registered", None, "challenger"),
        (1, "validated", "challenger", "validated"),
        (1, "promoted", "validated", "champion"),
        (2, "registered", None, "challenger"),
        (2, "validated", "challenger", "validated"),
        (1, "replaced", "champion", "archived"),
        (2, "promoted", "validated", "champion"),
        (3, "registered", None, "challenger"),
        (3, "validated", "challenger", "failed"),
    ]
    events = registry.by().history().events
    assert [event.number for event in events] == list(range(1, 10))
    assert len({event.event_id for event in events}) == 9
    assert {(e.actor, e.training_set_version) for e in events if e.event == "registered"} == {("ann", 7)}
    assert {event.package for event in events if event.model_version == 2} == {events[3].package} != {None}
    assert (events[6].reason, events[5].reason) == ("knows 2.0", "version 2 took its place")
    assert (alias(registry), alias(registry, CHALLENGER)) == (2, 3)
    assert "Champion since" in registry.client.get_model_version(MODEL, "2").description
    assert "Not promoted: knows -1.0." in registry.client.get_model_version(MODEL, "3").description


@pytest.mark.parametrize("killed", [SET_ALIAS, RARER(SET_TAG), RARER("update_registered_model")])
def test_a_promotion_that_was_killed_halfway_is_done_by_the_next_and_written_down_once(registry, killed) -> None:
    promoted(registry)
    model = registry.entered(2.0)
    validation = registry.validation(model)
    with killed_at(registry.client, killed):
        settle(registry.by(), validation)

    assert settle(registry.by("bob"), validation).state == CHAMPION

    assert (alias(registry), alias(registry, CHALLENGER)) == (2, None)
    assert happened(registry)[3:] == ["2 registered", "2 validated", "1 replaced", "2 promoted"]


def test_of_two_that_promote_at_once_one_is_first_and_the_other_is_told_of_the_new_champion(registry) -> None:
    promoted(registry)
    one, other = registry.entered(2.0), registry.entered(3.0)
    validations = [registry.validation(model) for model in (one, other)]

    def another_is_first() -> None:
        settle(registry.by(), validations[1])

    bob = registry.by("bob")
    with (
        overtaken_at(LocalEngine, "append", another_is_first),
        pytest.raises(DlassetsError, match=r"with version 1, and now there is version 3\. Materialize it again"),
    ):
        settle(bob, validations[0])

    assert alias(registry) == 3
    assert [line for line in happened(registry) if "promoted" in line] == ["1 promoted", "3 promoted"]


def test_with_approval_by_a_person_a_version_waits_and_is_asked_about_once(registry) -> None:
    promoted(registry)
    model = registry.entered(2.0)
    validation = registry.validation(model)

    decisions = [settle(registry.by(**PERSON), validation) for _ in range(2)]

    assert (decisions[1].state, alias(registry), alias(registry, CHALLENGER)) == ("waiting", 1, 2)
    assert happened(registry)[3:] == ["2 registered", "2 validated", "2 approval_wanted"]
    for part in (
        "as good. Its report: http",
        f"artifacts/validation/{MODEL}-2/report.md",
        "`dlassets approve 2 --reas",
    ):
        assert part in decisions[0].reason
    assert registry.client.get_model_version(MODEL, "2").description.startswith("Waits for approval: as good.")
    (matter,) = in_registry(registry.resource.settings)
    assert (matter.what, matter.is_wrong) == (f"version 2 of {MODEL} waits for approval", False)
    assert "`dlassets approve 2`" in matter.todo


def test_an_approval_promotes_and_is_its_reason(registry) -> None:
    promoted(registry)
    waiting(registry, 2.0)

    decision = approve(registry.by("bob", **PERSON), 2, "looked at the report")

    assert (decision.state, decision.reason, alias(registry)) == (CHAMPION, "looked at the report", 2)
    assert happened(registry)[6:] == ["2 approved", "1 replaced", "2 promoted"]
    assert {event.actor for event in registry.by().history().events[6:]} == {"bob"}
    assert "by bob: looked at the report." in registry.client.get_model_version(MODEL, "2").description


@pytest.mark.parametrize("killed", [SET_ALIAS, RARER(SET_TAG)])
def test_an_approval_that_was_killed_halfway_is_done_when_it_is_repeated(registry, killed) -> None:
    promoted(registry)
    waiting(registry, 2.0)
    with killed_at(registry.client, killed):
        approve(registry.by("bob", **PERSON), 2, "fine")

    assert approve(registry.by("bob", **PERSON), 2, "fine").state == CHAMPION

    assert (alias(registry), happened(registry).count("2 approved"), happened(registry).count("2 promoted")) == (
        2,
        1,
        1,
    )


def test_of_two_approvers_at_once_the_second_is_told_of_the_first(registry) -> None:
    promoted(registry)
    waiting(registry, 2.0)

    def bob_is_first() -> None:
        approve(registry.by("bob", **PERSON), 2, "fine")

    eve = registry.by("eve", **PERSON)
    with (
        overtaken_at(LocalEngine, "append", bob_is_first),
        pytest.raises(DlassetsError, match=r"Version 2 is champion already: bob decided so at .* UTC \(fine\)"),
    ):
        approve(eve, 2, "good")

    assert (happened(registry).count("2 approved"), happened(registry).count("2 promoted")) == (1, 1)


def test_who_trained_a_version_may_not_approve_it_unless_the_settings_say_so(registry) -> None:
    waiting(registry, by="ann")

    with pytest.raises(
        DlassetsError, match=r"Version 1 was trained by ann, who may not approve it\. Have somebody else"
    ):
        approve(registry.by("ann", **PERSON), 1, "mine")
    assert alias(registry) is None

    assert approve(registry.by("ann", **PERSON, self_approval=True), 1, "mine").state == CHAMPION


def test_a_package_that_was_changed_after_it_was_asked_about_is_not_approved(registry) -> None:
    from dlassets.registry.package import digest_of

    waiting(registry)
    package = registry.package_of(1)
    other = registry.package_of(registry.entered(-1.0).version)
    for file in package.iterdir():  # whole in itself, and the tags say so too
        file.write_bytes((other / file.name).read_bytes())
    registry.client.set_model_version_tag(MODEL, "1", "dlassets.package_sha256", digest_of(package))
    run_id = registry.client.get_model_version(MODEL, "1").run_id
    registry.client.set_tag(run_id, "dlassets.package_sha256", digest_of(package))

    with pytest.raises(
        DlassetsError, match=r"models:/image_classifier/1 is not the one that was registered: .*model_eve"
    ):
        approve(registry.by("bob", **PERSON), 1, "fine")
    assert alias(registry) is None


def _another_validation(registry: Registry, model: ModelVersion) -> None:
    registry.validation(model, why="much better")


def _another_tag(registry: Registry, model: ModelVersion) -> None:
    registry.client.set_model_version_tag(MODEL, str(model.version), TAG_VALIDATION, "0" * 64)


def _no_file(registry: Registry, model: ModelVersion) -> None:
    run_id = registry.client.get_model_version(MODEL, str(model.version)).run_id
    (
        registry.package_of(model.version).parents[4] / run_id / "artifacts/validation" / f"{MODEL}-1/validation.json"
    ).unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_another_validation, "is not the one that stands in model_events"),
        RARER(_another_tag, "is not the one that stands in model_events"),
        RARER(_no_file, "cannot be read"),
    ],
)
def test_a_validation_that_is_another_or_gone_is_no_ground_for_an_approval(registry, harm, message) -> None:
    harm(registry, waiting(registry))

    with pytest.raises(DlassetsError, match=f"The validation of version 1 .*{message}.*validated again"):
        approve(registry.by("bob", **PERSON), 1, "fine")
    assert (alias(registry), happened(registry)[-1]) == (None, "1 approval_wanted")


def test_what_was_never_validated_or_failed_is_not_approved(registry) -> None:
    model = registry.entered()
    with pytest.raises(DlassetsError, match=r"Version 1 has not been validated"):
        approve(registry.by("bob", **PERSON), 1, "fine")
    settle(registry.by(), registry.validation(model, passed=False, why="worse"))
    with pytest.raises(DlassetsError, match=r"Version 1 failed its validation: worse\."):
        approve(registry.by("bob", **PERSON), 1, "fine")
    with pytest.raises(DlassetsError, match=r"image_classifier has no version 9\. It has 1\."):
        approve(registry.by("bob", **PERSON), 9, "fine")


@pytest.mark.slow
def test_a_version_that_was_compared_with_another_champion_is_validated_again_before_it_is_approved(registry) -> None:
    promoted(registry)
    waiting(registry, 2.0)
    newer = waiting(registry, 3.0)
    approve(registry.by("bob", **PERSON), 2, "fine")

    with pytest.raises(DlassetsError, match=r"compared with version 1, and now there is version 2\. Have it validated"):
        approve(registry.by("bob", **PERSON), 3, "fine")

    settle(registry.by(**PERSON), registry.validation(newer))
    assert approve(registry.by("bob", **PERSON), 3, "fine").state == CHAMPION


@pytest.mark.slow
def test_an_older_version_that_waits_is_archived_when_a_newer_one_is_promoted(registry) -> None:
    promoted(registry)
    waiting(registry, 2.0)
    waiting(registry, 3.0)
    approve(registry.by("bob", **PERSON), 3, "fine")

    assert story(registry, 2)[-1] == (2, "archived", "waiting", "archived")


def test_what_a_person_rejected_is_not_promoted_by_a_later_validation_but_by_a_person(registry) -> None:
    promoted(registry)
    model = waiting(registry, 2.0)
    assert reject(registry.by("bob"), 2, "blurred photos").state == "rejected"
    assert alias(registry, CHALLENGER) is None

    again = registry.validation(model, why="better still")
    assert [settle(registry.by(), again).state for _ in range(2)] == ["rejected"] * 2
    assert alias(registry) == 1
    with pytest.raises(DlassetsError, match=r"Version 2 was rejected already: bob decided so .*blurred photos"):
        reject(registry.by("eve"), 2, "I too")
    with pytest.raises(DlassetsError, match=r"Version 1 is champion\. Take it back: dlassets rollback"):
        reject(registry.by("eve"), 1, "no")
    assert approve(registry.by("eve"), 2, "it is good after all").state == CHAMPION
    assert happened(registry)[6:] == ["2 rejected", "2 validated", "2 approved", "1 replaced", "2 promoted"]


def test_a_rollback_makes_the_one_before_champion_and_the_next_step_leaves_it_so(registry) -> None:
    promoted(registry)
    model = promoted(registry, 2.0)

    done = rollback(registry.by("bob"), None, "it takes hats for mugs")

    assert (done.bad.version, done.restored.version, alias(registry)) == (2, 1, 1)
    assert story(registry)[-2:] == [
        (2, "rolled_back", "champion", "rolled_back"),
        (1, "promoted", "archived", "champion"),
    ]
    assert settle(registry.by(), registry.validation(model, why="as it was")).state == "rolled_back"
    assert alias(registry) == 1
    description = registry.client.get_model_version(MODEL, "2").description
    assert description.startswith("Rolled back at ")
    assert "by bob: it takes hats for mugs." in description


@pytest.mark.parametrize("killed", [SET_ALIAS, RARER(SET_TAG)])
def test_a_rollback_that_was_killed_halfway_is_done_when_it_is_repeated_and_no_further_one(registry, killed) -> None:
    for knows in (1.0, 2.0, 3.0):
        promoted(registry, knows)
    with killed_at(registry.client, killed):
        rollback(registry.by("bob"), None, "bad")

    done = rollback(registry.by("bob"), None, "bad")

    assert (done.bad.version, done.restored.version, alias(registry)) == (3, 2, 2)
    assert happened(registry)[-2:] == ["3 rolled_back", "2 promoted"]


def test_a_rollback_that_the_same_person_says_again_is_the_one_that_was_done(registry) -> None:
    for knows in (1.0, 2.0, 3.0):
        promoted(registry, knows)
    with killed_at(approval, "describe"):
        rollback(registry.by("bob"), None, "bad")
    notice_outside_moves(registry.by("sensor"))
    registry.entered(4.0)

    again = rollback(registry.by("bob"), None, "bad")

    assert (again.bad.version, again.restored.version, alias(registry)) == (3, 2, 2)
    assert again.done_at == registry.by().history().reigns[-1].at
    assert registry.client.get_model_version(MODEL, "3").description.startswith("Rolled back at ")
    assert rollback(registry.by("ann"), None, "bad").restored.version == 1


@pytest.mark.slow
def test_a_rollback_goes_further_back_or_to_a_version_that_is_named_where_that_may_be(registry) -> None:
    for knows in (1.0, 2.0, 3.0):
        promoted(registry, knows)
    failed = registry.entered(-1.0)
    settle(registry.by(), registry.validation(failed, passed=False, why="worse"))

    with pytest.raises(
        DlassetsError, match=r"Version 4 was never champion, and is not promoted now \(worse\)\. .*approve"
    ):
        rollback(registry.by(), 4, "try")
    with pytest.raises(DlassetsError, match=r"Version 3 is champion already"):
        rollback(registry.by(), 3, "try")
    rollback(registry.by(), None, "bad")
    rollback(registry.by(), None, "bad too")
    assert alias(registry) == 1
    with pytest.raises(DlassetsError, match=r"No version was champion before version 1 that was not taken back"):
        rollback(registry.by(), None, "bad as well")
    assert rollback(registry.by(), 3, "it was not so bad").restored.version == alias(registry) == 3


@pytest.mark.slow
def test_a_rollback_to_files_that_are_gone_changes_nothing(registry) -> None:
    import shutil

    promoted(registry)
    promoted(registry, 2.0)
    shutil.rmtree(registry.package_of(1))

    with pytest.raises(DlassetsError, match=r"models:/image_classifier/1|package holds no readable"):
        rollback(registry.by(), None, "bad")

    assert (alias(registry), happened(registry)[-1]) == (2, "2 promoted")
