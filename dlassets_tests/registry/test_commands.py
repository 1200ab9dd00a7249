"""`dlassets models`, `approve`, `reject` and `rollback`, as a person calls them."""

from click.testing import Result

from dlassets_tests.programs import invoke
from dlassets_tests.registry.conftest import MODEL, Registry
from dlassets_tests.registry.test_approval import alias, happened, promoted, waiting
from dlassets_tests.tables import NOON, put


def command(registry: Registry, *arguments: object, **environment: str) -> Result:
    return invoke(*arguments, DLASSETS_ROOT=registry.resource.settings.root, **environment)


def lines(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.output.splitlines()]


def test_models_show_who_is_live_and_why_and_one_all_that_happened_to_it(registry) -> None:
    promoted(registry)
    waiting(registry, 2.0)
    said = lines(command(registry, "approve", 2, "--reason", "looked at it", "--as", "bob"))
    assert said == ["Version 2 (champion): looked at it."]
    waiting(registry, 3.0)

    table, story = lines(command(registry, "models")), lines(command(registry, "models", 2))

    assert table[0] == "version stands accuracy approved by live since why"
    assert table[1].startswith("3 waits for approval as good. Its report:")
    live = registry.by().history().reigns[-1].at
    assert f"2 champion bob {live:%Y-%m-%d %H:%M:%S} looked at it" in table
    assert table[-1] == "1 archived version 2 took its place"
    assert [line.split()[2] for line in story if line.startswith("20")] == [
        "registered", "validated", "approval_wanted", "approved", "promoted"
    ]  # fmt: skip
    assert story[-1].endswith("promoted approved → champion bob looked at it")


def test_a_decision_wants_a_reason_and_what_is_refused_ends_with_1_and_says_what_to_do(registry) -> None:
    waiting(registry, by="ann")
    as_person = {"DLASSETS_REGISTRY__APPROVAL": "person", "DLASSETS_REGISTRY__ACTOR": "ann"}

    without = command(registry, "approve", 1)
    own = command(registry, "approve", 1, "--reason", "mine", **as_person)
    unknown = command(registry, "models", 7)
    nothing = command(registry, "rollback", "--reason", "bad")
    rejected = command(registry, "reject", 1, "--reason", "blurred", **as_person)

    assert [each.exit_code for each in (without, own, unknown, nothing, rejected)] == [2, 1, 1, 1, 0]
    assert "Missing option '--reason'" in without.output
    assert "Version 1 was trained by ann, who may not approve it" in own.output
    assert "has no version 7" in unknown.output
    assert "No version is champion, so that there is nothing to roll back" in nothing.output
    assert rejected.output == "Version 1 (rejected): blurred.\n"
    assert (alias(registry), happened(registry)[-1]) == (None, "1 rejected")


def test_a_rollback_says_what_the_bad_version_has_predicted_and_what_of_it_is_in_use(registry) -> None:
    promoted(registry)
    bad = promoted(registry, 2.0)
    made = {"model_name": MODEL, "model_version": 2, "package": bad.package, "scored_at": NOON}
    rows = [made | {"path": f"unlabeled/{name}.jpg", "image_id": name} for name in "abc"]
    put(registry.by().lake, "predictions", *rows, rows[0] | {"model_version": 1, "package": "another"})
    put(registry.by().lake, "predictions_current", *rows[:2])

    said = lines(command(registry, "rollback", "--reason", "it takes hats for mugs"))

    in_use = "of which 2 are in use (table predictions_current)"
    assert said == [
        "Version 1 is champion again; version 2 was rolled back.",
        f"Version 2 has made 3 predictions since {NOON:%Y-%m-%d %H:%M:%S} UTC (table predictions), {in_use}.",
        "Have version 1 score these photos: dagster job execute -m dlassets.definitions -j scoring_pipeline",
    ]
