"""What starts a pipeline by itself: new files, new answers, the clock."""

import datetime as dt
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from dlassets.definitions import build_defs
from dlassets.engines.local import LocalEngine
from dlassets.errors import SettingsError
from dlassets.intake import waiting
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import ingest
from dlassets.resources.code_location import give_location
from dlassets.settings import Settings
from dlassets_tests.pipelines import Pipelines, arrive, materialized, new_lake, values
from dlassets_tests.tables import get

ANSWERS = "request_id,label\nabc,3\n"


@pytest.mark.parametrize(("zone", "job"), [("labeled", "ingest_pipeline"), ("unlabeled", "scoring_pipeline")])
def test_new_files_start_a_run_once(empty, photos, zone, job) -> None:
    name = f"new_files_in_{zone}"
    assert "No new file in" in empty.tick(name).skip_message
    arrive(photos, empty)

    (first,) = empty.tick(name).run_requests
    (second,) = empty.tick(name).run_requests
    assert first.run_key == second.run_key
    assert first.run_key.startswith(f"{zone}:")
    assert empty.defs.resolve_sensor_def(name).job_name == job

    shutil.copyfile(next(photos.glob("*/*")), empty.zone(zone) / "one more.jpg")
    (third,) = empty.tick(name).run_requests
    assert third.run_key != first.run_key
    assert int(third.tags["dlassets/waiting_files"]) == int(first.tags["dlassets/waiting_files"]) + 1

    empty.run("ingest_pipeline")
    assert empty.tick(name).run_requests == []


@pytest.fixture
def slow_listings(monkeypatch) -> None:
    monkeypatch.setattr(waiting, "SLOW_SECONDS", 0.0)


def test_a_zone_that_takes_time_is_listed_once_by_its_sensor_and_the_run_that_this_starts(
    empty, photos, listed, slow_listings
) -> None:
    arrive(photos, empty)
    (request,) = empty.tick("new_files_in_labeled").run_requests

    result = empty.run("ingest_pipeline", request.tags)

    assert result.success
    assert listed == ["labeled"]
    assert values(materialized(result)["raw_images"])["by_landing_zone"] == {"labeled": 56}
    assert len(list(Path(empty.lake.checkpoint("ingest-labeled")).iterdir())) == 0
    assert empty.tick("new_files_in_labeled").run_requests == []


def test_a_run_by_hand_lists_every_zone_whatever_a_sensor_has_found(empty, photos, listed) -> None:
    arrive(photos, empty)
    empty.tick("new_files_in_labeled")
    shutil.copyfile(next(photos.glob("*/*")), empty.zone("labeled") / "001.late.jpg")

    result = empty.run("ingest_pipeline")

    assert listed == ["labeled", "labeled", "unlabeled"]
    assert values(materialized(result)["raw_images"])["by_landing_zone"] == {"labeled": 56, "unlabeled": 24}
    assert values(materialized(result)["quarantined_files"])["rows_inserted"] == 1


def test_a_listing_is_handed_over_once_however_often_a_sensor_looks(empty, photos, slow_listings) -> None:
    name = "new_files_in_labeled"
    arrive(photos, empty)
    first = empty.tick(name)
    (handed,) = Path(empty.lake.checkpoint("ingest-labeled")).iterdir()
    handed.unlink()  # a run has begun with it, and its photos wait until that commits

    assert empty.tick(name, first.cursor).run_requests[0].run_key == first.run_requests[0].run_key
    assert not handed.exists()

    for number in range(3):
        shutil.copyfile(next(photos.glob("*/*")), empty.zone("labeled") / f"{number}.jpg")
        empty.tick(name, first.cursor)
    assert [*handed.parent.iterdir()] == [handed]


@pytest.fixture
def answers(empty: Pipelines) -> Path:
    """The folder that people answer in, with one answer in a list and one by a photo in a class folder."""
    folder = Path(empty.lake.answers)
    (folder / "003.hat").mkdir(parents=True)
    (folder / "mine.csv").write_text(ANSWERS)
    (folder / "003.hat" / "abd.jpg").write_bytes(b"photo")
    return folder


def test_without_an_answer_no_run_starts(empty: Pipelines) -> None:
    assert empty.tick("new_answers").run_requests == []


def test_new_answers_start_a_run_once(empty: Pipelines, answers: Path) -> None:
    first = empty.tick("new_answers")
    assert first.run_requests[0].run_key.startswith("answers:")
    assert empty.defs.resolve_sensor_def("new_answers").job_name == "labeling_pipeline"
    assert empty.tick("new_answers", first.cursor).run_requests == []


def more_in_the_list(answers: Path) -> None:
    (answers / "mine.csv").write_text(ANSWERS + "abe,3\n")


def changed_to_as_many_bytes_and_the_same_time(answers: Path) -> None:
    list_ = answers / "mine.csv"
    status = list_.stat()
    list_.write_text(ANSWERS.replace("3", "4"))
    os.utime(list_, ns=(status.st_atime_ns, status.st_mtime_ns))


def moved_on(answers: Path) -> None:
    (answers / "004.coat").mkdir()
    (answers / "003.hat" / "abd.jpg").rename(answers / "004.coat" / "abd.jpg")


def moved_away_and_back(answers: Path) -> None:
    photo = answers / "003.hat" / "abd.jpg"
    photo.rename(answers / "abd.jpg").rename(photo)


@pytest.mark.parametrize(
    "change", [more_in_the_list, changed_to_as_many_bytes_and_the_same_time, moved_on, moved_away_and_back]
)
def test_whatever_changes_an_answer_starts_another_run(empty: Pipelines, answers: Path, change) -> None:
    first = empty.tick("new_answers")
    change(answers)

    (again,) = empty.tick("new_answers", first.cursor).run_requests

    assert again.run_key != first.run_requests[0].run_key


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """The files of a folder that this process opens in here."""
    opened: list[str] = []
    watching = True

    def see(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(f"{folder}/"):
            opened.append(str(arguments[0]))

    sys.addaudithook(see)
    try:
        yield opened
    finally:
        watching = False


def test_a_tick_without_a_new_answer_opens_no_file(empty: Pipelines, answers: Path) -> None:
    shutil.rmtree(answers / "003.hat")
    with opened_below(answers) as opened:
        first = empty.tick("new_answers")
        assert opened == [str(answers / "mine.csv")]
        assert empty.tick("new_answers", first.cursor).run_requests == []
        assert opened == [str(answers / "mine.csv")]


def test_a_list_that_nobody_has_filled_in_yet_starts_no_run(empty: Pipelines, answers: Path) -> None:
    shutil.rmtree(answers / "003.hat")
    (answers / "mine.csv").write_text("request_id,label\nabc,\n")

    tick = empty.tick("new_answers")

    assert tick.run_requests == []
    with opened_below(answers) as opened:
        assert empty.tick("new_answers", tick.cursor).run_requests == []
    assert opened == []


@pytest.mark.parametrize("running", [False, True])
def test_sensors_and_schedules_follow_the_settings(lake, running) -> None:
    automation = dict.fromkeys(("sensors", "schedules", "streaming"), running) | {
        "sensor_seconds": 45,
        "scheduled": {
            "scoring_pipeline": "*/10 * * * *",
            "training_pipeline": {"repeat": "weekly", "day": "monday", "at": "01:00"},
            "maintenance_pipeline": {"repeat": "daily", "at": "05:00"},
        },
    }
    defs = build_defs(Settings.model_validate({"root": lake.root, "automation": automation}))

    schedules = {found.name: found for found in defs.schedules}
    assert {name: (found.job_name, found.cron_schedule) for name, found in schedules.items()} == {
        "daily_scoring": ("scoring_pipeline", "*/10 * * * *"),
        "weekly_training": ("training_pipeline", "0 1 * * 1"),
        "nightly_maintenance": ("maintenance_pipeline", "0 5 * * *"),
    }
    expected = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
    assert {found.default_status for found in schedules.values()} == {expected}
    names = {"new_files_in_labeled", "new_files_in_unlabeled", "new_answers", "registry_changes", "new_champion"}
    names |= {"dead_runs", "alerts", "freshness", "stream_silence", "heartbeat"}
    assert {found.name for found in defs.sensors} == names
    for found in defs.sensors:
        assert found.minimum_interval_seconds == 45
        needs_more = {"alerts", "freshness"}  # an address, and assets to be made in time
        is_on = (running and found.name not in needs_more) or found.name == "dead_runs"  # which starts nothing
        assert (found.default_status == dg.DefaultSensorStatus.RUNNING) is is_on


def test_a_cron_line_that_is_none_is_a_setting_that_cannot_be(lake) -> None:
    scheduled = {"scheduled": {"scoring_pipeline": "every day"}}
    settings = Settings.model_validate({"root": lake.root, "automation": scheduled})

    with pytest.raises(SettingsError, match=r"automation\.scheduled\.scoring_pipeline: .* every day \(UTC\), never"):
        build_defs(settings)


def test_a_zone_with_events_is_not_listed_by_its_sensor(empty, tmp_path, photos, monkeypatch) -> None:
    landing = {"unlabeled": {"uri": "unlabeled", "labelled": False, "discovery": "events"}}
    pipelines = new_lake(tmp_path / "events", empty.instance, landing=landing)
    lake = pipelines.lake
    zone = pipelines.settings.landing["unlabeled"]
    manifest = Manifest.of(lake, "unlabeled", zone)
    first = pipelines.tick("new_files_in_unlabeled").run_requests
    assert [request.tags["dlassets/waiting_files"] for request in first] == ["all are to be listed"]
    assert pipelines.tick("new_files_in_unlabeled").run_requests[0].run_key == first[0].run_key
    ingest(LocalEngine(), lake, pipelines.settings, {})

    monkeypatch.setattr("dlassets.intake.listing.list_local", None)
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    shutil.copyfile(next(photos.glob("*/*.jpg")), pipelines.zone("unlabeled") / "a.jpg")
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    keys = []
    for name in ("a.jpg", "b.jpg"):
        manifest.record([(name, "created")])
        (request,) = pipelines.tick("new_files_in_unlabeled").run_requests
        keys.append((request.run_key, request.tags["dlassets/waiting_files"]))
    assert [files for _, files in keys] == ["1", "2"]
    assert keys[0][0] != keys[1][0]
    ingest(LocalEngine(), lake, pipelines.settings, {})
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    assert [row["path"] for row in get(LocalEngine(), lake, "raw_images", "path")] == ["unlabeled/a.jpg"]


@contextmanager
def later(monkeypatch: pytest.MonkeyPatch, **passed: float) -> Iterator[None]:
    """Have sensors look at a clock that is so much ahead."""

    def now(zone: dt.tzinfo) -> dt.datetime:
        return dt.datetime.now(zone) + dt.timedelta(**passed)

    clock = SimpleNamespace(now=now, fromtimestamp=dt.datetime.fromtimestamp)
    with monkeypatch.context() as patched:
        patched.setattr(
            "dlassets.resources.asked_runs.dt", SimpleNamespace(datetime=clock, timedelta=dt.timedelta, UTC=dt.UTC)
        )
        yield


def failed_run(pipelines: Pipelines, request: dg.RunRequest, job: str) -> dg.DagsterRun:
    """What the daemon leaves of a run that a sensor asked for and that failed."""
    run = pipelines.instance.create_run_for_job(pipelines.defs.resolve_job_def(job), tags=dict(request.tags))
    pipelines.instance.report_run_failed(run)
    return run


PAUSES = [1, 4, 16, 64, 256]  # minutes


@pytest.mark.parametrize(
    ("sensor", "job", "asset"),
    [
        ("new_files_in_unlabeled", "scoring_pipeline", "raw_images"),
        ("new_answers", "labeling_pipeline", "human_labels"),
    ],
)
def test_a_run_that_failed_is_asked_for_again_later_and_later_and_then_given_up(
    empty, photos, answers, monkeypatch, sensor, job, asset
) -> None:
    arrive(photos, empty)
    tick = empty.tick(sensor)
    keys = []
    for pause in PAUSES:
        (request,) = tick.run_requests
        keys.append(request.run_key)
        run = failed_run(empty, request, job)
        with later(monkeypatch, minutes=pause - 0.5):
            tick = empty.tick(sensor, tick.cursor)
            assert tick.run_requests == []
            assert f"Run {run.run_id} ended as FAILURE" in tick.skip_message
            assert "asked for again at" in tick.skip_message
            assert tick.asset_events == []
        with later(monkeypatch, minutes=pause + 0.5):
            tick = empty.tick(sensor, tick.cursor)
    keys.append(tick.run_requests[0].run_key)
    assert len(set(keys)) == 6
    failed_run(empty, tick.run_requests[0], job)

    with later(monkeypatch, days=30):
        given_up = empty.tick(sensor, tick.cursor)
        again = empty.tick(sensor, given_up.cursor)

    assert given_up.run_requests == again.run_requests == again.asset_events == []
    (check,) = given_up.asset_events
    assert (check.asset_key, check.check_name) == (dg.AssetKey(asset), "asked_for_is_done")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert f"run {job} by hand" in check.description
    assert again.skip_message == check.description


def test_a_run_that_failed_after_its_photos_were_taken_in_is_asked_for_again(empty, photos, monkeypatch) -> None:
    name = "new_files_in_unlabeled"
    arrive(photos, empty)
    first = empty.tick(name)
    failed_run(empty, first.run_requests[0], "scoring_pipeline")
    assert empty.run("ingest_pipeline").success
    with later(monkeypatch, minutes=2):
        (again,) = empty.tick(name, first.cursor).run_requests

    assert again.run_key == f"{first.run_requests[0].run_key}:2"
    assert empty.run("ingest_pipeline", again.tags).success  # there is no model to score with
    with later(monkeypatch, days=30):
        assert "No new file in" in empty.tick(name, first.cursor).skip_message


def test_while_a_run_is_under_way_no_other_is_asked_for(empty, answers) -> None:
    first = empty.tick("new_answers")
    (request,) = first.run_requests
    job = empty.defs.resolve_job_def("labeling_pipeline")
    run = empty.instance.create_run_for_job(job, tags=dict(request.tags))

    assert empty.tick("new_answers", first.cursor).skip_message == (
        f"Run {run.run_id}, which was asked for this, has not ended."
    )


def test_files_that_come_after_a_sensor_has_given_up_are_asked_for(empty, photos, monkeypatch) -> None:
    name = "new_files_in_labeled"
    pipelines = Pipelines(Settings(root=empty.lake.root, automation={"attempts": 1}), empty.instance)
    arrive(photos, pipelines)
    failed_run(pipelines, pipelines.tick(name).run_requests[0], "ingest_pipeline")
    given_up = pipelines.tick(name)
    assert given_up.run_requests == []
    shutil.copyfile(next(photos.glob("*/*")), pipelines.zone("labeled") / "001.balloon" / "one more.jpg")

    (request,) = pipelines.tick(name, given_up.cursor).run_requests

    result = pipelines.run("ingest_pipeline", request.tags)
    assert result.success
    checks = {(e.asset_key.to_user_string(), e.check_name): e.passed for e in result.get_asset_check_evaluations()}
    assert checks["raw_images", "asked_for_is_done"]


def now_is(pipelines: Pipelines, run: dg.DagsterRun, event: dg.DagsterEventType) -> None:
    pipelines.instance.report_dagster_event(dg.DagsterEvent(event.value, run.job_name), run.run_id)


def queued_by_tick(pipelines: Pipelines, name: str) -> dg.DagsterRun:
    """The run of ingest_pipeline that the sensor asks for now, queued."""
    (request,) = pipelines.tick(name).run_requests
    job = pipelines.defs.resolve_job_def("ingest_pipeline")
    run = pipelines.instance.create_run_for_job(job, tags=dict(request.tags))
    give_location(pipelines.instance, run.run_id)  # Dagster queues none without
    now_is(pipelines, run, dg.DagsterEventType.RUN_ENQUEUED)
    return run


def one_more(photos: Path, pipelines: Pipelines) -> None:
    shutil.copyfile(next(photos.glob("*/*.jpg")), pipelines.zone("labeled") / "001.balloon" / "one more.jpg")


def test_files_that_come_before_a_run_has_begun_are_that_ones(empty, photos, slow_listings) -> None:
    from pyarrow import parquet

    name = "new_files_in_labeled"
    arrive(photos, empty)
    run = queued_by_tick(empty, name)
    one_more(photos, empty)

    ticks = [empty.tick(name)]
    for event in (dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START):
        now_is(empty, run, event)
        ticks.append(empty.tick(name))

    assert [tick.run_requests for tick in ticks] == [[], [], []]
    assert ticks[0].skip_message == f"Run {run.run_id}, which has yet to begin, does this too."
    assert ticks[2].skip_message == f"Run {run.run_id}, which was asked for this, has not ended."
    (handed,) = Path(empty.lake.checkpoint("ingest-labeled")).iterdir()
    assert parquet.read_metadata(handed).num_rows == 57


def test_what_a_run_was_to_do_too_is_asked_for_again_where_it_failed(empty, photos, monkeypatch) -> None:
    name = "new_files_in_labeled"
    arrive(photos, empty)
    run = queued_by_tick(empty, name)
    one_more(photos, empty)
    empty.tick(name)
    empty.instance.report_run_failed(run)

    keys = []
    for minutes in (2, 6):
        with later(monkeypatch, minutes=minutes):
            (request,) = empty.tick(name).run_requests
        keys.append(request.run_key.rpartition(":"))
        failed_run(empty, request, "ingest_pipeline")

    (first, _, second_time), (same, _, third_time) = keys
    assert first == same != run.tags["dlassets/asked_for"]
    assert (second_time, third_time) == ("2", "3")


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_sensor_that_is_to_look_every_second_does_so_within_a_tick_where_no_other_waits_for_it(
    empty, photos, listed, monkeypatch, side_by_side
) -> None:
    pipelines = Pipelines(Settings(root=empty.lake.root, automation={"sensor_seconds": 1}), empty.instance)
    monkeypatch.setattr(dg.DagsterInstance, "get_sensor_settings", lambda _: {"use_threads": side_by_side})
    monkeypatch.setattr("dlassets.defs.automation.time.sleep", lambda _: one_more(photos, pipelines))
    (pipelines.zone("labeled") / "001.balloon").mkdir()

    requests = pipelines.tick("new_files_in_labeled").run_requests

    assert [request.tags["dlassets/waiting_files"] for request in requests] == ["1"] * side_by_side
    assert listed == ["labeled"] * (1 + side_by_side)
