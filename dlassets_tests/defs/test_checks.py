"""What the checks of the split say, as Dagster shows it."""

from typing import Any

import dagster as dg
import pytest

from dlassets.defs.checks import groups_never_straddle
from dlassets.defs.checks import test_photos_are_new as photos_are_new
from dlassets.pipeline.session import Session
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import image_id, labelled, put


@pytest.fixture
def on_two_sides(lake: Lake) -> None:
    rows = [labelled("a", 1), labelled("b", 1, split="test")]
    put(lake, "labeled_images", *rows)
    put(lake, "image_profiles", *({"image_id": image_id(name), "perceptual_hash": 7} for name in "ab"))
    put(lake, "training_set", *({**row, "feature_version": "v", "features": [1.0, 2.0]} for row in rows))


def result(check: dg.AssetChecksDefinition, settings: Settings) -> Any:
    return check(session=Session(settings))


@pytest.mark.usefixtures("on_two_sides")
def test_photos_that_look_alike_on_two_sides_are_warnings_with_numbers(settings: Settings) -> None:
    apart, learned = (result(check, settings) for check in (groups_never_straddle, photos_are_new))

    assert not apart.passed
    assert apart.description.startswith("2 photos of 1 groups are on two sides, such as labeled/a.jpg (train) and")
    assert not learned.passed
    assert learned.description.startswith(
        "1 of 1 test photos look like one that is learned from, such as labeled/b.jpg"
    )
    assert {apart.severity.value, learned.severity.value} == {"WARN"}


def test_of_an_empty_lake_there_is_nothing_to_say(settings: Settings) -> None:
    assert all(result(check, settings).passed for check in (groups_never_straddle, photos_are_new))
