"""The table of a model's events: written once each and in order, whoever writes beside, and what they come to."""

import datetime as dt
import getpass
from collections.abc import Sequence

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import evolve
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.events import (
    APPROVED,
    ARCHIVED,
    PROMOTED,
    REGISTERED,
    REPLACED,
    Event,
    History,
    acting,
    event_of,
    events_of,
    signed,
    write_events,
)
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION
from dlassets.registry.models import ModelVersion
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at, overtaken_at

ONE, TWO = ModelVersion("m", 1, "a" * 64), ModelVersion("m", 2, "b" * 64)
ENGINE = LocalEngine()


def add(lake: Lake, *events: Event, name: str = "m", actor: str = "ann") -> list[Event]:
    """Add those events that are not there yet."""

    def plan(history: History) -> Sequence[Event]:
        there = {(event.model, event.event) for event in history.events}
        return list(signed([event for event in events if (event.model, event.event) not in there], actor, "a-run"))

    return write_events(ENGINE, lake, name, plan, {})[1]


def stored(lake: Lake, name: str = "m") -> list[Event]:
    return events_of(ENGINE, evolve(lake, MODEL_EVENTS), name)


def test_events_are_numbered_signed_and_read_as_they_were_written(lake) -> None:
    before = dt.datetime.now(dt.UTC)
    added = add(lake, event_of(ONE, REGISTERED, CHALLENGER, 'it\'s "new"', training_set_version=3))
    added += add(lake, event_of(ONE, PROMOTED, CHAMPION, "first", validation="c" * 64))

    assert stored(lake) == added
    assert [(e.number, e.from_state, e.to_state) for e in added] == [(1, None, CHALLENGER), (2, CHALLENGER, CHAMPION)]
    assert {(e.actor, e.run_id, e.package) for e in added} == {("ann", "a-run", "a" * 64)}
    assert before <= added[0].at <= added[1].at <= dt.datetime.now(dt.UTC)
    assert stored(lake, "another") == []


@pytest.mark.parametrize("first", [REGISTERED, PROMOTED])
def test_of_two_writers_at_once_the_second_plans_on_what_the_first_wrote(lake, first) -> None:
    """The same event is written once, and another comes after it."""
    add(lake, event_of(TWO, REGISTERED, CHALLENGER, "x"))

    def another() -> None:
        add(lake, event_of(ONE, first, CHALLENGER, "x"), actor="bob")

    with overtaken_at(LocalEngine, "append", another):
        add(lake, event_of(ONE, REGISTERED, CHALLENGER, "x"))

    assert [e.number for e in stored(lake)] == [1, 2] if first == REGISTERED else [1, 2, 3]
    assert stored(lake)[1].actor == "bob"


def test_what_was_killed_before_it_was_written_is_written_once(lake) -> None:
    event = event_of(ONE, REGISTERED, CHALLENGER, "x")
    with killed_at(LocalEngine, "append"):
        add(lake, event)
    assert stored(lake) == []

    assert [len(add(lake, event)) for _ in range(2)] == [1, 0]


def test_numbers_go_on_where_a_table_was_restored_and_no_event_has_the_name_of_another(lake) -> None:
    from deltalake import DeltaTable

    add(lake, event_of(ONE, REGISTERED, CHALLENGER, "x"))
    (gone,) = add(lake, event_of(ONE, PROMOTED, CHAMPION, "x"))
    DeltaTable(lake.table("model_events")).restore(1)

    (again,) = add(lake, event_of(ONE, PROMOTED, CHAMPION, "x"))

    assert [event.number for event in stored(lake)] == [1, 3]
    assert again.event_id != gone.event_id


def test_the_champion_and_its_reigns_follow_from_the_events() -> None:
    history = History(
        History(()).grown(
            [
                event_of(ONE, REGISTERED, CHALLENGER, "x"),
                event_of(TWO, REGISTERED, CHALLENGER, "x"),
                event_of(ONE, PROMOTED, CHAMPION, "first"),
                event_of(ONE, REPLACED, ARCHIVED, "version 2 took its place"),
                event_of(TWO, APPROVED, APPROVED, "fine"),
                event_of(TWO, PROMOTED, CHAMPION, "better"),
            ],
            1,
        )
    )

    assert [history.champion_at(number) for number in range(7)] == [None, None, None, ONE, None, None, TWO]
    assert (history.state(ONE), history.state(TWO), history.state(ModelVersion("m", 3))) == (ARCHIVED, CHAMPION, None)
    assert [(reign.model, history.end_of(reign) and history.end_of(reign).event) for reign in history.reigns] == [
        (ONE, REPLACED),
        (TWO, None),
    ]
    assert history.last_move.number == 6


def test_who_acts_is_told_by_the_setting_the_run_or_the_process() -> None:
    assert acting("ann", {"user": "bob"}) == "ann"
    assert acting(None, {"user": "bob", "dagster/schedule_name": "weekly_training"}) == "bob"
    assert acting(None, {"dagster/schedule_name": "weekly_training"}) == "schedule weekly_training"
    assert acting(None, {"dagster/sensor_name": "new_files"}) == "sensor new_files"
    assert acting(None, {}) == getpass.getuser()


def test_no_secret_is_written_down(lake) -> None:
    reason = "seen at https://ann:Qz7fPass@host/report"
    (event,) = add(lake, event_of(ONE, REGISTERED, CHALLENGER, reason), actor="https://ann:Qz7fPass@host")

    assert "Qz7fPass" not in repr(event) + repr(stored(lake))
