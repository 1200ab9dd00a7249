"""Pipelines as data: what is written of them, what is refused, when they come, and what Dagster has of them."""

import datetime as dt
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import yaml
from click.testing import Result

from dlassets.definitions import all_assets, build_defs
from dlassets.defs.jobs import checked, pipelines_of, run_config_of
from dlassets.defs.schedules import cron_of, refuse_never, times
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError, SettingsError
from dlassets.pipeline.jobs import Job, JobError, as_text, delete_job, keep_job, read_text
from dlassets.resources.dagster_alerts import failed_runs
from dlassets.settings import Schedule, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import failures
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get

MINE: dict[str, Any] = {
    "name": "look",
    "description": "Look at photos.",
    "tasks": [{"name": "image_profiles"}, {"name": "ingested_files"}],
    "parameters": {"ingest.files_per_batch": 10},
    "schedule": {"repeat": "biweekly", "starting": "2026-11-30", "at": "02:30", "time_zone": "Europe/Berlin"},
    "alerts": ["check_failed"],
}
BERLIN = ZoneInfo("Europe/Berlin")


def text(*jobs: dict) -> str:
    return json.dumps({"version": 1, "jobs": jobs})


def made(settings: Settings, **changes: object) -> Job:
    """Return the pipeline above, with changes, as it would be kept."""
    (job,) = read_text(text(MINE | changes), "file")
    return checked(job, pipelines_of(settings, all_assets(settings)), settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "mine.yaml"
    place.write_text(yaml.safe_dump({"version": 1, "jobs": [MINE]}))
    return place


# ---- files


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_every_pipeline_is_written_and_read_back_as_it_is(settings: Settings, suffix: str) -> None:
    there_are = [*pipelines_of(settings, all_assets(settings)).all.values()]

    written = as_text(there_are, suffix)

    assert [*read_text(written, "file")] == there_are
    assert written.startswith("{") is (suffix == ".json")
    assert as_text([*read_text(written, "file")], suffix) == written


def test_what_is_written_of_a_pipeline_has_its_tasks_in_order_with_what_they_need(settings: Settings) -> None:
    written = json.loads(as_text([pipelines_of(settings, all_assets(settings)).all["scoring_pipeline"]]))["jobs"][0]

    tasks = {task["name"]: task["needs"] for task in written["tasks"]}
    assert tasks["predictions"] == ["image_features", "image_profiles", "ingested_files", "labeled_images"]
    before: set[str] = set()
    for name, needs in tasks.items():
        assert {*needs} <= before
        before.add(name)
    assert written["schedule"] == {"repeat": "daily", "at": "02:00", "time_zone": "UTC", "paused": True}
    assert written["alerts"] == ["run_failed", "check_failed"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": [{"name": "prediction"}]}, "there is no step 'prediction'. Did you mean predictions?"),
        ({"tasks": [{"name": "classes"}, {"name": "classes"}]}, "has the task classes twice"),
        (
            {"tasks": [{"name": "classes", "needs": ["predictions"]}, {"name": "predictions", "needs": ["classes"]}]},
            "goes round in a circle: classes → predictions → classes",
        ),
        ({"tasks": [{"name": "classes", "needs": ["human_labels"]}]}, "classes needs nothing of this pipeline"),
        ({"tasks": [{"name": "classes", "compute": "gpu"}]}, "runs on default, and the file says gpu"),
        ({"tasks": []}, "jobs.0.tasks: Tuple should have at least 1 item"),
        ({"parameters": {"training.epoch": 5}}, "Did you mean training.epochs"),
        ({"parameters": {"training.epochs": "many"}}, "training.epochs: Input should be a valid integer"),
        (
            {"parameters": {"predictions.scop": "all"}},
            "no parameter 'predictions.scop'. Did you mean predictions.scope?",
        ),
        ({"parameters": {"predictions.scope": "all"}}, "of the step predictions, which is none of its tasks"),
        ({"parameters": {"root": "/elsewhere"}}, "there is no parameter 'root'"),
        ({"parameters": {"mlflow.experiment": "x"}}, "there is no parameter 'mlflow.experiment'"),
        ({"parameters": {"labeling.label_studio.token": "Qz7fToken1"}}, "label_studio.token holds a secret"),
        ({"parameters": {"labeling.service": "http://me:Qz7fToken1@host/"}}, "labeling.service holds a secret"),
        ({"description": "See http://me:Qz7fToken1@host/"}, "its description holds a secret"),
        ({"name": "../../etc/passwd"}, "'../../etc/passwd' is no name of a pipeline"),
        ({"name": "a/b"}, "'a/b' is no name of a pipeline"),
        ({"name": "predictions"}, "predictions is the name of a step"),
        ({"schedule": {"cron": "0 0 30 2 *"}}, "0 0 30 2 * (UTC), never comes"),
        ({"schedule": {"cron": "every day"}}, "every day (UTC), never comes"),
        ({"schedule": MINE["schedule"] | {"starting": "2999-01-01"}}, "every other tuesday at 02:30"),
        ({"schedule": {"cron": "@daily", "time_zone": "../etc"}}, "'../etc' is no time zone"),
        ({"schedule": {"cron": "@daily", "time_zone": "Europe/Berln"}}, "did you mean Europe/Berlin?"),
        ({"schedule": {"repeat": "daily", "at": "24:00"}}, "schedule.at"),
        ({"schedule": {"repeat": "daily", "at": "02:00", "cron": "@daily"}}, "by one of `repeat`"),
        ({"schedule": {"repeat": "weekly", "at": "02:00"}}, "weekly takes at and day, and has at"),
        ({"schedule": {"repeat": "weekly", "at": "02:00", "day": "someday"}}, "'someday' is no weekday"),
        (
            {"schedule": {"repeat": "monthly", "at": "02:00", "day": 31}},
            "31 is not in every month: use 1 to 28, or last",
        ),
        ({"alerts": ["champion_changed"]}, "jobs.0.alerts.0"),
        ({"partitions": {"since": "2026-11-01", "parameters": {}}}, "leave `schedule` or `partitions` out"),
        ({"task": "x"}, "jobs.0.task: Extra inputs are not permitted"),
    ],
)
def test_a_pipeline_that_cannot_be_is_one_error(settings: Settings, changes: dict, says: str) -> None:
    with pytest.raises(DlassetsError) as raised:
        made(settings, **changes)

    assert says in str(raised.value)
    assert "Qz7f" not in str(raised.value)


@pytest.mark.parametrize(("given", "says"), [("{", "neither JSON nor YAML"), ('{"version": 2, "jobs": []}', "version")])
def test_a_file_that_is_none_of_pipelines_says_so(given: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        read_text(given, "file")


# ---- commands


def test_applied_twice_a_pipeline_is_kept_once_and_deleted_it_is_gone(lake: Lake, file: Path) -> None:
    commands = [("apply", "--config", file), ("apply", "--config", file), ("delete", "look"), ("delete", "look")]

    said = [invoke("jobs", *command, DLASSETS_ROOT=lake.root) for command in commands]

    assert [each.output.splitlines()[0] for each in said] == [
        "look: new",
        "look: as it was",
        "look: deleted",
        "error: This lake has no pipeline look of its own. Its own are: none.",
    ]
    assert [each.exit_code for each in said] == [0, 0, 0, 1]


def test_of_files_with_one_that_cannot_be_none_is_applied(lake: Lake, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(text(MINE | {"name": "scoring_pipeline"}))

    ran = invoke("jobs", "apply", "--config", file, "--config", other, DLASSETS_ROOT=lake.root)

    assert (ran.exit_code, "scoring_pipeline is a pipeline of dlassets" in ran.stderr) == (1, True)
    assert not Path(lake.jobs).exists()


def test_in_a_bucket_pipelines_are_kept_and_deleted_as_in_a_folder(bucket: str) -> None:
    settings = Settings(root=f"s3://{bucket}/lake")
    lake = Lake.at(settings.root)

    assert [keep_job(lake, made(settings)), keep_job(lake, made(settings))] == [True, False]
    assert [*pipelines_of(settings, all_assets(settings)).kept.jobs] == ["look"]
    delete_job(lake, "look")
    assert [*pipelines_of(settings, all_assets(settings)).kept.jobs] == []


@pytest.mark.slow
def test_a_pipeline_that_was_never_applied_runs_out_of_its_file(
    lake: Lake, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # as it was, after the command
    settings = Settings(root=lake.root)
    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)
    photo = next(photos.glob("*/*"))
    (Path(lake.zone("unlabeled")) / photo.name).write_bytes(photo.read_bytes())
    file = tmp_path / "quick.json"
    file.write_text(text({"name": "quick", "tasks": [{"name": "ingested_files"}], "parameters": {}}))

    def run(*options: str) -> Result:
        return invoke("jobs", "run", "--config", file, *options, DLASSETS_ROOT=settings.root)

    good, bad = run("--set", "ingest.max_file_bytes=10"), run("--set", "ingest.max_file_byte=10")
    Path(lake.zone("unlabeled"), photo.name).unlink()
    Path(lake.zone("unlabeled")).rmdir()
    failed = run()

    assert (good.exit_code, "✓ ingested_files" in good.output) == (0, True)
    assert get(LocalEngine(), lake, "quarantined_files", "reason") == [{"reason": "too_large"}]
    assert (bad.exit_code, "Did you mean ingest.max_file_bytes" in bad.stderr) == (2, True)
    assert (failed.exit_code, failed.stderr.startswith("error: ingested_files: ")) == (1, True)
    listed = invoke("jobs", "list", DLASSETS_ROOT=settings.root).output
    assert "quick" not in listed
    assert invoke("jobs", "run", "quick", DLASSETS_ROOT=settings.root).exit_code == 1


# ---- Dagster


def test_a_kept_pipeline_is_a_job_with_its_parameters_schedule_and_tags(lake: Lake, settings: Settings) -> None:
    keep_job(lake, made(settings))

    defs = build_defs(settings)

    job, schedule = defs.resolve_job_def("look"), defs.resolve_schedule_def("look_schedule")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        *("raw_images", "deleted_files", "listed_labels", "quarantined_files", "image_profiles")
    }
    assert (job.tags["dlassets/pipeline"], job.tags["dlassets/alerts"]) == ("look", "check_failed")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 2 * * 1", "Europe/Berlin")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_pipelines_that_cannot_be_leave_the_others_alone_and_say_why(
    lake: Lake, settings: Settings, caplog: pytest.LogCaptureFixture, instance: dg.DagsterInstance
) -> None:
    keep_job(lake, made(settings))
    for name, content in (("cut", "{"), ("gone", text(MINE | {"name": "gone", "tasks": [{"name": "no_such"}]}))):
        Path(lake.job(name)).write_text(content)
    Path(lake.job("renamed")).write_bytes(Path(lake.job("look")).read_bytes())
    Path(lake.job("A b")).write_text("{")

    defs = build_defs(settings)

    assert defs.resolve_job_def("look")
    assert "there is no step 'no_such'" in str(defs.resolve_job_def("gone").description)
    assert "of the pipeline look" in str(defs.resolve_job_def("renamed").description)
    assert [record.args[0] for record in caplog.records if record.name == "dlassets.defs.jobs"] == [
        *("A b", "cut", "gone", "renamed")
    ]
    ran = defs.resolve_job_def("cut").execute_in_process(instance=instance, raise_on_error=False)
    assert "neither JSON nor YAML" in failures(ran)["why_cut_cannot_be"]


def test_parameters_are_what_the_run_goes_by(empty, photos) -> None:
    settings = empty.settings
    job = made(settings, tasks=[{"name": "ingested_files"}], parameters={"ingest.max_file_bytes": 10}, schedule=None)
    for photo in islice(photos.glob("*/*"), 2):
        (empty.zone("unlabeled") / photo.name).write_bytes(photo.read_bytes())
    defs = build_defs(settings, more_jobs=[job])

    ran = defs.resolve_job_def("look").execute_in_process(
        instance=empty.instance, run_config=run_config_of(job, pipelines_of(settings, all_assets(settings)).steps)
    )

    made_of = {event.asset_key.to_user_string(): event.metadata for event in _materialized(ran)}
    assert made_of["quarantined_files"]["rows_inserted"].value == 2
    assert made_of["raw_images"]["rows_inserted"].value == 0


def _materialized(ran: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [event.materialization for event in ran.get_asset_materialization_events()]


def test_a_setting_that_is_not_a_run_s_is_refused_in_the_launchpad_too(empty) -> None:
    config = {"resources": {"session": {"config": {"settings": {"registry.model_name": "other"}}}}}

    ran = empty.defs.resolve_job_def("validation_pipeline").execute_in_process(
        instance=empty.instance, raise_on_error=False, run_config=config
    )

    assert not ran.success


def test_of_the_failed_runs_of_a_pipeline_people_are_told_where_it_says_so(instance: dg.DagsterInstance) -> None:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    for tags in ({}, {"dlassets/alerts": "run_failed check_failed"}, {"dlassets/alerts": "check_failed"}):
        run = dg.DagsterRun("job", status=dg.DagsterRunStatus.FAILURE, tags=tags)
        instance.run_storage.add_run(run)

    told = failed_runs(instance, since, Settings().ui)

    assert len(told) == 2


# ---- schedules


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that a schedule finds again by where it is kept."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def at(day: str, zone: ZoneInfo = BERLIN) -> dt.datetime:
    return dt.datetime.fromisoformat(day).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        # An hour is left out: the time that is not there is the next that is.
        ({"repeat": "daily"}, "2026-03-28", ["03-28T02:30+01:00", "03-29T03:00+02:00", "03-30T02:30+02:00"]),
        # An hour comes twice: it is started once.
        ({"repeat": "daily"}, "2026-10-24", ["10-24T02:30+02:00", "10-25T02:30+01:00", "10-26T02:30+01:00"]),
        ({"repeat": "weekly", "day": "sunday"}, "2026-03-28", ["03-29T03:00+02:00", "04-05T02:30+02:00"]),
        ({"repeat": "biweekly", "starting": "2026-03-15"}, "2026-03-01", ["03-15T02:30+01:00", "03-29T03:00+02:00"]),
        ({"repeat": "biweekly", "starting": "2026-10-11"}, "2026-10-12", ["10-25T02:30+01:00", "11-08T02:30+01:00"]),
        ({"repeat": "monthly", "day": "last"}, "2026-02-01", ["02-28T02:30+01:00", "03-31T02:30+02:00"]),
        ({"repeat": "monthly", "day": 1}, "2026-02-02", ["03-01T02:30+01:00", "04-01T02:30+02:00"]),
    ],
)
def test_a_schedule_comes_by_the_clock_of_its_time_zone(schedule: dict, since: str, expected: list[str]) -> None:
    chosen = Schedule(at="02:30", time_zone="Europe/Berlin", **schedule)

    found = islice(times(chosen, at(since)), len(expected))

    assert [time.isoformat("T", "minutes")[5:] for time in found] == expected


def test_a_time_without_quotes_is_the_one_that_was_written() -> None:
    given = yaml.safe_load("{repeat: daily, at: 14:30}")

    assert given["at"] == 870
    assert Schedule(**given).at == "14:30"


def test_a_leap_day_comes_and_the_thirtieth_of_february_does_not() -> None:
    now = at("2026-03-01")
    refuse_never("x", Schedule(cron="0 0 29 2 *"), now)
    with pytest.raises(SettingsError, match="never comes"):
        refuse_never("x", Schedule(cron="0 0 30 2 *"), now)


def ticked(settings: Settings, instance: dg.DagsterInstance, when: dt.datetime) -> Any:
    defs = build_defs(settings)
    schedule = defs.resolve_schedule_def("look_schedule")
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=when, repository_def=defs.get_repository_def()
    ) as context:
        return schedule.evaluate_tick(context)


def test_every_other_week_a_tick_is_skipped(lake: Lake, settings: Settings, kept: dg.DagsterInstance) -> None:
    keep_job(lake, made(settings))

    of = {day: ticked(settings, kept, at(f"{day}T02:30")) for day in ("2026-11-30", "2026-12-07", "2026-12-14")}

    assert [len(tick.run_requests or []) for tick in of.values()] == [1, 0, 1]
    assert "every other week" in str(of["2026-12-07"].skip_message)
    assert "2026-12-14 02:30:00+01:00" in str(of["2026-12-07"].skip_message)
    (request,) = of["2026-11-30"].run_requests
    assert request.run_config["resources"]["session"]["config"]["settings"] == {"ingest.files_per_batch": 10}


def test_while_a_run_of_its_pipeline_goes_on_a_tick_is_skipped(
    lake: Lake, settings: Settings, kept: dg.DagsterInstance
) -> None:
    keep_job(lake, made(settings, schedule={"cron": "* * * * *"}))
    run = dg.DagsterRun("look", status=dg.DagsterRunStatus.STARTED, tags={"dlassets/pipeline": "look"})
    kept.run_storage.add_run(run)

    assert ticked(settings, kept, at("2026-11-30T02:30")).skip_message == f"Run {run.run_id} of look is going on."

    kept.report_run_canceled(run)
    assert len(ticked(settings, kept, at("2026-11-30T02:31")).run_requests) == 1


def test_a_schedule_of_the_settings_may_be_a_line_of_cron_another_or_none(lake: Lake) -> None:
    scheduled = {"ingest_pipeline": "*/5 * * * *", "scoring_pipeline": None}

    defs = build_defs(Settings.model_validate({"root": lake.root, "automation": {"scheduled": scheduled}}))

    assert {each.name: each.cron_schedule for each in defs.schedules} == {"ingest_pipeline_schedule": "*/5 * * * *"}
    assert cron_of(Schedule(repeat="weekly", at="04:00", day="sunday")) == "0 4 * * 0"


def test_a_schedule_of_what_is_no_pipeline_of_dlassets_is_refused(lake: Lake) -> None:
    with pytest.raises(SettingsError, match=r"automation\.scheduled names look"):
        build_defs(Settings.model_validate({"root": lake.root, "automation": {"scheduled": {"look": "@daily"}}}))
