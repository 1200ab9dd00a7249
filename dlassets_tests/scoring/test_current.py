"""`predictions_current`: what the champion says of each photo that is there, and no more written than differs."""

import datetime as dt
from typing import Any

import pytest

from dlassets.engines.base import REPLACED_AT_ONCE, Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.registry.models import ModelVersion
from dlassets.scoring.current import update_current
from dlassets.storage.lake import Lake
from dlassets_tests.tables import NOON, get, image_id, pins, put

ENGINE = LocalEngine()  # writes and reads the tables around the update, whichever engine does that
FIRST, SECOND = ModelVersion("m", 1, "first"), ModelVersion("m", 2, "second")


def photo(path: str, content: str = "") -> dict[str, Any]:
    return {"path": path, "image_id": image_id(content or path), "length": 1}


def said(path: str, model: ModelVersion = FIRST, name: str = "cat", content: str = "") -> dict[str, Any]:
    return {
        "path": path,
        "image_id": image_id(content or path),
        "predicted_name": name,
        "confidence": 0.5,
        **model.row.to_pylist()[0],
        "top_k": [{"label": 0, "name": name, "confidence": 0.5}],
    }


def update(engine: Engine, lake: Lake, model: ModelVersion = FIRST) -> Written:
    tables = pins(lake, "predictions", "raw_images", "deleted_files", "predictions_current")
    return update_current(engine, tables, model, {"asset": "predictions_current"})


def current(lake: Lake) -> dict[str, tuple[str, int, str]]:
    rows = get(ENGINE, lake, "predictions_current")
    return {row["path"]: (row["predicted_name"], row["model_version"], row["image_id"]) for row in rows}


@pytest.fixture
def scored(lake: Lake) -> Lake:
    """A lake of three photos of which the first model has spoken, and the second of none."""
    put(lake, "raw_images", *(photo(path) for path in "abc"))
    put(lake, "predictions", *(said(path) for path in "abc"), said("a", SECOND._replace(package="other"), "dog"))
    return lake


def test_it_is_what_the_champion_says_of_each_photo_and_a_new_champion_has_the_next_word(engine, scored) -> None:
    first = update(engine, scored)
    put(scored, "predictions", *(said(path, SECOND, "dog") for path in "abc"))
    second = update(engine, scored, SECOND)

    assert (first.inserted, first.updated) == (3, 0)
    assert (second.inserted, second.updated) == (0, 3)
    assert current(scored) == {path: ("dog", 2, image_id(path)) for path in "abc"}
    (top,) = {str(row["top_k"]) for row in get(ENGINE, scored, "predictions_current")}
    assert top == str([{"label": 0, "name": "dog", "confidence": 0.5}])
    assert provenance_of(pin(scored, "predictions_current")) == {"asset": "predictions_current"}


def test_nothing_new_makes_no_new_version(engine, scored) -> None:
    first = update(engine, scored)

    assert update(engine, scored) == Written(first.version, changed=False)
    assert pin(scored, "predictions_current").version == first.version


def test_a_photo_that_is_gone_leaves_and_one_that_is_back_returns(engine, scored) -> None:
    update(engine, scored)
    put(scored, "deleted_files", {"path": "a"}, {"path": "b", "returned_at": NOON})
    written = update(engine, scored)

    assert (written.inserted, written.updated, written.changed) == (0, 0, True)
    assert written.version == pin(scored, "predictions_current").version
    assert current(scored).keys() == {"b", "c"}


def test_replaced_bytes_have_no_row_until_the_champion_has_seen_them(local_engine, lake) -> None:
    put(lake, "raw_images", photo("a", "old"), photo("b"))
    put(lake, "predictions", said("a", content="new"), said("b"))
    put(lake, "predictions_current", said("a", content="old"))
    update(local_engine, lake)
    assert current(lake) == {"b": ("cat", 1, image_id("b"))}

    put(lake, "raw_images", photo("a", "new"))
    assert update(local_engine, lake).inserted == 1
    assert current(lake)["a"] == ("cat", 1, image_id("new"))


def test_the_same_model_s_later_word_takes_the_earlier_one_s_place_alone(local_engine, lake) -> None:
    put(lake, "raw_images", *(photo(path) for path in "ab"))
    put(lake, "predictions", said("a"), {**said("b", name="dog"), "scored_at": NOON + dt.timedelta(hours=1)})
    put(lake, "predictions_current", said("a"), said("b"))

    assert (update(local_engine, lake).updated, current(lake)["b"][0]) == (1, "dog")


def test_a_new_champion_that_has_said_nothing_yet_leaves_no_word_of_another(local_engine, scored) -> None:
    update(local_engine, scored)

    assert update(local_engine, scored, SECOND).changed
    assert current(scored) == {}


def test_where_very_many_leave_all_is_written_in_one_version(engine, scored) -> None:
    many = [f"{number}" for number in range(REPLACED_AT_ONCE + 1)]
    put(scored, "predictions_current", *map(said, many))

    written = update(engine, scored)

    assert (written.version, written.changed) == (2, True)
    assert current(scored).keys() == set("abc")


def test_an_update_that_was_killed_between_its_writes_is_made_whole_by_the_next(local_engine, scored) -> None:
    class KilledEngine(LocalEngine):
        def replace(self, *_: Any, **__: Any) -> Written:
            raise KeyboardInterrupt

    put(scored, "predictions_current", said("gone"))
    with pytest.raises(KeyboardInterrupt):
        update(KilledEngine(), scored)
    assert current(scored).keys() == {"gone", *"abc"}

    update(local_engine, scored)
    assert current(scored).keys() == set("abc")
