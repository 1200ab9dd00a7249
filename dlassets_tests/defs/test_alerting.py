"""Who is told of what: failed runs, checks that fail, assets that are not made in time, versions and champions."""

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import DagsterEvent

from dlassets.alerts.outbox import Entry, read_alerts
from dlassets.definitions import build_defs
from dlassets.engines.local import LocalEngine
from dlassets.errors import SettingsError
from dlassets.registry.approval import settle
from dlassets.registry.events import Event, signed, write_events
from dlassets.resources.dagster_matters import checks
from dlassets.settings import Settings
from dlassets_tests.pipelines import Pipelines, new_lake
from dlassets_tests.registry.conftest import registry

__all__ = ["registry"]

NOBODY = "json://127.0.0.1:1/alerts"
EVERY = ("waiting", "sent", "given_up")


@pytest.fixture
def told(tmp_path, instance) -> Pipelines:
    """A lake whose alerts go to an address where nobody is."""
    return new_lake(tmp_path / "lake", instance, alerts={"urls": (NOBODY,)})


class Ticks:
    """The sensor `alerts`, as the daemon evaluates it."""

    def __init__(self, pipelines: Pipelines, sensor: str = "alerts") -> None:
        self.pipelines, self.sensor = pipelines, sensor
        self.cursor: str | None = None

    def tick(self) -> Any:
        done = self.pipelines.tick(self.sensor, self.cursor)
        self.cursor = done.cursor
        for event in done.asset_events:  # which the daemon writes down
            self.pipelines.instance.report_runless_asset_event(event)
        return done

    def raised(self) -> list[Entry]:
        self.tick()
        return read_alerts(LocalEngine(), self.pipelines.lake, *EVERY)


def report(pipelines: Pipelines, passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR) -> None:
    """Have Dagster be told what came of a check, as by a run or sensor."""
    check = dg.AssetCheckEvaluation(
        dg.AssetKey("photo_stream"), "is_up", passed, severity=severity, description="It is silent."
    )
    pipelines.instance.report_runless_asset_event(check)


def test_without_an_address_nothing_is_written_and_the_sensor_is_off(empty) -> None:
    empty.run_only(dg.AssetSelection.assets("trained_model"))

    assert empty.tick("alerts").skip_message == "Nobody is to be told: alerts.urls is empty."
    assert not Path(empty.lake.table("alerts")).exists()
    sensors = {sensor.name: sensor.default_status for sensor in empty.defs.sensors}
    assert sensors["alerts"] == dg.DefaultSensorStatus.STOPPED


def test_a_run_that_fails_is_told_once_with_what_it_failed_of_and_its_page(told) -> None:
    ticks = Ticks(told)
    assert ticks.raised() == []
    result = told.run_only(dg.AssetSelection.assets("trained_model"))
    assert not result.success

    for _ in range(2):
        (alert,) = ticks.raised()
    assert (alert.kind, alert.key, alert.subject) == ("run_failed", result.run_id, "Run of selected failed")
    assert alert.body.startswith("trained_model: There are too few labelled images to learn from")
    assert alert.link == f"http://127.0.0.1:3000/runs/{result.run_id}"
    assert told.defs.resolve_sensor_def("alerts").default_status == dg.DefaultSensorStatus.RUNNING


def test_a_run_of_assets_by_hand_is_told_by_their_names(told) -> None:
    job = told.defs.resolve_implicit_global_asset_job_def()
    chosen = frozenset(map(dg.AssetKey, ("raw_images", "classes")))
    told.instance.report_run_failed(told.instance.create_run_for_job(job, asset_selection=chosen))

    assert [alert.subject for alert in Ticks(told).raised()] == ["Run of classes, raw_images failed"]


def test_what_failed_long_before_alerts_were_on_is_no_news(told, monkeypatch) -> None:
    told.instance.report_run_failed(told.instance.create_run_for_job(told.defs.resolve_job_def("ingest_pipeline")))
    monkeypatch.setattr("dlassets.defs.alerting._OVERLAP", dt.timedelta(0))

    assert Ticks(told).raised() == []


def test_a_check_is_told_when_it_comes_to_fail_and_again_once_it_had_passed(told) -> None:
    ticks = Ticks(told)
    told_so_far = []
    for passed in (True, False, False, True, False):
        report(told, passed)
        told_so_far.append(len(ticks.raised()))

    assert told_so_far == [0, 1, 1, 1, 2]
    alert = ticks.raised()[0]
    assert (alert.kind, alert.subject, alert.body) == (
        "check_failed",
        "Check is_up of photo_stream failed",
        "It is silent.",
    )
    assert alert.link == "http://127.0.0.1:3000/assets/photo_stream?view=checks&checkDetail=is_up"


def test_a_check_that_has_failed_and_passed_again_between_two_looks_is_told_each_time(told, monkeypatch) -> None:
    ticks = Ticks(told)
    ticks.tick()
    for overlap in (5, 0, 0):
        monkeypatch.setattr("dlassets.defs.alerting._OVERLAP", dt.timedelta(minutes=overlap))
        for passed in (False, True, False, True):
            report(told, passed)
        ticks.tick()

    assert len(ticks.raised()) == 6
    seen = json.loads(ticks.cursor or "{}")
    assert (seen["failing"], seen["event"]) == ([], 12)


def test_what_failed_while_nobody_looked_is_told_however_long_that_was(told) -> None:
    ticks = Ticks(told)
    ticks.tick()
    two_days_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    ticks.cursor = json.dumps({"until": two_days_ago.isoformat(), "failing": {"gone/check": 1}})
    run = told.instance.create_run_for_job(told.defs.resolve_job_def("ingest_pipeline"))
    told.instance.report_run_failed(run)
    report(told, passed=False)
    report(told, passed=True)

    assert sorted(alert.kind for alert in ticks.raised()) == ["check_failed", "run_failed"]


def test_a_check_that_only_warns_is_not_told(told) -> None:
    report(told, passed=False, severity=dg.AssetCheckSeverity.WARN)

    assert Ticks(told).raised() == []


def test_while_a_run_is_under_way_the_check_s_last_end_counts(told) -> None:
    ticks = Ticks(told)
    report(told, passed=False)
    assert len(ticks.raised()) == 1
    planned = AssetCheckEvaluationPlanned(asset_key=dg.AssetKey("photo_stream"), check_name="is_up")
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    run = told.instance.create_run_for_job(told.defs.resolve_job_def("ingest_pipeline"))
    told.instance.report_dagster_event(DagsterEvent(kind.value, run.job_name, event_specific_data=planned), run.run_id)

    assert len(ticks.raised()) == 1
    assert json.loads(ticks.cursor or "{}")["failing"] == ["photo_stream/is_up"]
    report(told, passed=False)
    assert len(ticks.raised()) == 1


def test_a_check_that_fails_in_a_run_of_which_nobody_is_told_is_told_of_the_next_and_stands_in_the_status(told) -> None:
    ticks, said = Ticks(told), []
    for kinds in ("nothing", "run_failed", "check_failed", "nothing"):
        run = told.instance.create_run_for_job(
            told.defs.resolve_job_def("ingest_pipeline"), tags={"dlassets/alerts": kinds}
        )
        found = dg.AssetCheckEvaluation(dg.AssetKey("photo_stream"), "is_up", False, description="It is silent.")
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        event = DagsterEvent(kind.value, run.job_name, event_specific_data=found)
        told.instance.report_dagster_event(event, run.run_id)
        (matter,) = checks(told.instance, told.defs.resolve_asset_graph(), Settings().ui)
        said.append((len(ticks.raised()), matter.what))

    assert [raised for raised, _ in said] == [0, 0, 1, 1]
    assert {what for _, what in said} == {"Check is_up of photo_stream failed: It is silent."}


def test_kinds_that_are_left_out_are_not_told(tmp_path, instance) -> None:
    told = new_lake(tmp_path / "lake", instance, alerts={"urls": (NOBODY,), "kinds": ("check_failed",)})
    told.instance.report_run_failed(told.instance.create_run_for_job(told.defs.resolve_job_def("ingest_pipeline")))
    report(told, passed=False)

    assert [alert.kind for alert in Ticks(told).raised()] == ["check_failed"]


def test_an_asset_that_is_not_made_in_time_fails_its_check_and_is_told(tmp_path, instance, monkeypatch) -> None:
    told = new_lake(
        tmp_path / "lake", instance, alerts={"urls": (NOBODY,)}, automation={"fresh_hours": {"raw_images": 2}}
    )
    freshness, alerts = Ticks(told, "freshness"), Ticks(told)
    assert freshness.tick().skip_message == "Not made in time: raw_images."
    (never,) = alerts.raised()
    assert told.run_only(dg.AssetSelection.assets("raw_images")).success
    assert freshness.tick().skip_message == "All were made in time."
    assert len(alerts.raised()) == 1
    assert freshness.tick().asset_events == []
    monkeypatch.setattr("dlassets.defs.freshness.now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=2.1))
    assert [event.passed for event in freshness.tick().asset_events] == [False]

    assert len(alerts.raised()) == 2
    late = alerts.raised()[1]
    assert (never.kind, never.subject) == ("freshness_missed", "raw_images is not fresh")
    assert never.body == "raw_images was never made, and is to be made every 2 hours."
    assert "raw_images was made last at" in late.body


def test_an_asset_that_there_is_not_cannot_be_made_in_time(lake) -> None:
    with pytest.raises(SettingsError, match="fresh_hours names pictures, and there is no such asset"):
        build_defs(Settings(root=lake.root, automation={"fresh_hours": {"pictures": 1}}))


def happen(pipelines: Pipelines, *names: str) -> None:
    versions = itertools.count(1)

    def event(name: str) -> Event:
        state = {"approval_wanted": "waiting"}.get(name, "champion")
        return Event("image_classifier", next(versions), name, state, f"the reason of {name}", actor="ann")

    def plan(_: object) -> list[Event]:
        return [*signed([event(name) for name in names], "ann", "")]

    write_events(LocalEngine(), pipelines.lake, "image_classifier", plan, {})


def test_a_version_that_wants_approval_and_each_new_champion_are_told_once(told, monkeypatch) -> None:
    monkeypatch.setattr("dlassets.defs.alerting._OVERLAP", dt.timedelta(0))
    happen(told, "registered", "promoted")
    ticks = Ticks(told)
    assert ticks.raised() == []
    happen(told, "validated", "approval_wanted", "promoted", "moved_outside", "put_back")

    raised = ticks.raised()
    monkeypatch.undo()
    keys = [alert.key for alert in ticks.raised()]  # the same are found again
    assert len(keys) == len({*keys}) == len({alert.key for alert in raised} | {*keys})
    assert sorted((alert.kind, alert.subject) for alert in raised) == [
        ("approval_wanted", "Version 2 of image_classifier wants approval"),
        ("champion_changed", "The alias champion was moved by hand: Version 4 of image_classifier"),
        ("champion_changed", "Version 3 of image_classifier is champion"),
        ("champion_changed", "Version 5 of image_classifier is champion again"),
    ]
    wanted = next(alert for alert in raised if alert.kind == "approval_wanted")
    assert wanted.body == "the reason of approval_wanted.\nBy ann."
    assert wanted.link == "http://127.0.0.1:5000/#/models/image_classifier/versions/2"


def test_the_alert_of_a_version_that_waits_says_how_to_answer(told, registry) -> None:
    model = registry.entered()
    settle(registry.by(approval="person"), registry.validation(model, why="as good as version 0"))

    (alert,) = Ticks(told).raised()

    assert alert.kind == "approval_wanted"
    assert alert.body.startswith("as good as version 0. Its report: http://127.0.0.1:5000/#/experiments/")
    assert "`dlassets approve 1 --reason ...` or `dlassets reject 1 --reason ...`" in alert.body


def test_rows_come_first_and_a_wrong_address_fails_no_more_than_the_sending(tmp_path, instance) -> None:
    told = new_lake(tmp_path / "lake", instance, alerts={"urls": ("nosuch://x",)})
    report(told, passed=False)
    ticks = Ticks(told)

    with pytest.raises(SettingsError, match="none that Apprise can send to"):
        ticks.tick()

    (alert,) = read_alerts(LocalEngine(), told.lake, *EVERY)
    assert (alert.status, alert.attempts) == ("waiting", 0)
    assert json.loads(ticks.cursor or "{}") == {}
