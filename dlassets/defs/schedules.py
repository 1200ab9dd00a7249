"""When pipelines start by themselves: schedules of Dagster, each skipped while a run of its pipeline is going on."""

import datetime as dt
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._utils.schedules import is_valid_cron_string, schedule_execution_time_iterator

from dlassets.defs.common import PIPELINE_TAG
from dlassets.errors import SettingsError
from dlassets.settings import WEEKDAYS, Schedule

# A schedule that names no time within so long comes never: the 29th of February does, and the 30th does not.
_SOON = dt.timedelta(days=3660)
_FORTNIGHT = 14
_GOES_ON = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]


def cron_of(schedule: Schedule) -> str:
    """Return a schedule as a line of cron; of one that is biweekly each second time of it is meant."""
    if schedule.cron is not None:
        return schedule.cron
    hours, minutes = str(schedule.at).split(":")
    day, weekday = "*", "*"
    if schedule.repeat == "monthly":
        day = "L" if schedule.day == "last" else str(schedule.day)
    elif schedule.repeat == "weekly":
        weekday = _weekday(WEEKDAYS.index(str(schedule.day)))
    elif schedule.starting is not None:
        weekday = _weekday(schedule.starting.weekday())
    return f"{int(minutes)} {int(hours)} {day} * {weekday}"


def _weekday(number: int) -> str:
    """Return cron's number of a weekday, which begins with Sunday."""
    return str((number + 1) % len(WEEKDAYS))


def in_words(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return f"{schedule.cron} ({schedule.time_zone})"
    days = {
        "daily": "daily",
        "weekly": f"every {schedule.day}",
        "biweekly": f"every other {WEEKDAYS[schedule.starting.weekday()]}" if schedule.starting else "",
        "monthly": f"on day {schedule.day} of the month",
    }
    return f"{days[str(schedule.repeat)]} at {schedule.at} ({schedule.time_zone})"


def times(schedule: Schedule, since: dt.datetime) -> Iterator[dt.datetime]:
    """Yield when a schedule comes, from a time on: in its time zone, by Dagster's reckoning."""
    for time in schedule_execution_time_iterator(since.timestamp(), cron_of(schedule), schedule.time_zone):
        if time - since > _SOON:
            return
        if _is_one_of_its_weeks(schedule, time):
            yield time


def _is_one_of_its_weeks(schedule: Schedule, time: dt.datetime) -> bool:
    """Whether a time is in one of the weeks that a schedule comes in, which cron cannot tell from the others."""
    if schedule.starting is None:
        return True
    days = (time.astimezone(ZoneInfo(schedule.time_zone)).date() - schedule.starting).days
    return days >= 0 and days % _FORTNIGHT == 0


def refuse_never(pipeline: str, schedule: Schedule, now: dt.datetime | None = None) -> None:
    """Raise SettingsError for a schedule that is none, or that never comes."""
    cron = cron_of(schedule)
    comes = is_valid_cron_string(cron) and next(times(schedule, now or dt.datetime.now(dt.UTC)), None)
    if not comes:
        raise SettingsError(
            f"The schedule of {pipeline}, {in_words(schedule)}, never comes: there is no such time within ten years. "
            "Say it by `repeat` and `at`, or by five fields of cron (minute, hour, day, month, weekday)."
        )


def going_on(instance: dg.DagsterInstance, pipeline: str) -> str | None:
    """Return the id of a run of a pipeline that is going on, or waits in the queue."""
    runs = dg.RunsFilter(tags={PIPELINE_TAG: pipeline}, statuses=_GOES_ON)
    return next((record.dagster_run.run_id for record in instance.get_run_records(runs, limit=1)), None)


def is_on(instance: dg.DagsterInstance, name: str, schedule: Schedule) -> bool:
    """Whether Dagster's daemon starts a schedule: as somebody has switched it, else unless it is paused."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    status = next((state.status for state in states if state.instigator_name == name), None)
    if status in (None, InstigatorStatus.DECLARED_IN_CODE):
        return not schedule.paused
    return status is InstigatorStatus.RUNNING


def schedule_of(
    pipeline: str, schedule: Schedule, name: str, description: str, run_config: dict[str, object]
) -> dg.ScheduleDefinition:
    """Return a pipeline's schedule. Raises SettingsError for one that never comes."""
    refuse_never(pipeline, schedule)
    default = dg.DefaultScheduleStatus.STOPPED if schedule.paused else dg.DefaultScheduleStatus.RUNNING

    @dg.schedule(
        cron_schedule=cron_of(schedule),
        job_name=pipeline,
        name=name,
        execution_timezone=schedule.time_zone,
        default_status=default,
        description=f"{description} {in_words(schedule).capitalize()}; not while a run of it is going on.".strip(),
    )
    def start(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        time = context.scheduled_execution_time
        if not _is_one_of_its_weeks(schedule, time):
            following = next(times(schedule, time), None)
            return dg.SkipReason(f"It comes every other week, and this is none of those: next at {following}.")
        if run_id := going_on(context.instance, pipeline):
            return dg.SkipReason(f"Run {run_id} of {pipeline} is going on.")
        return dg.RunRequest(run_config=run_config)

    return start
