"""Whether what Dagster's daemon is to do by itself is done: when it was last heard of, sensor by sensor."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, TickStatus

_DAEMONS = {"SENSOR": "sensors", "SCHEDULER": "schedules"}
_SHOWN = 300


def silent(instance: dg.DagsterInstance, sensors: Collection[str], minutes: float, now: dt.datetime) -> Iterator[str]:
    """Yield what has not been heard of for so many minutes, and which of these sensors fail.

    A sensor that was never looked at is told by the daemon's own heartbeat.
    """
    since = now.timestamp() - minutes * 60
    statuses = instance.get_daemon_statuses([*_DAEMONS])
    for kind, what in _DAEMONS.items():
        heartbeat = statuses[kind].last_heartbeat
        if heartbeat is None:
            yield f"Dagster's daemon was never heard of, so {what} start nothing: start it, or `dlassets dev`."
        elif heartbeat.timestamp < since:
            yield (
                f"Dagster's daemon was last heard of at {_time(heartbeat.timestamp)}, so {what} start nothing: see "
                "whether it is there, and start it again."
            )
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name in sensors and state.is_running:
            yield from _of_sensor(instance, state, since)


def _of_sensor(instance: dg.DagsterInstance, state: InstigatorState, since: float) -> Iterator[str]:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2)
    ended = [tick for tick in ticks if tick.status is not TickStatus.STARTED]
    interval = getattr(state.instigator_data, "min_interval", None) or 0
    if ticks and ticks[0].timestamp < since - interval:
        yield f"The sensor {state.name} has not looked since {_time(ticks[0].timestamp)}: see Dagster's daemon's log."
    elif ended and ended[0].status is TickStatus.FAILURE:
        error = ended[0].error
        said = " ".join(error.message.split())[:_SHOWN] if error else "its tick says why"
        yield f"The sensor {state.name} fails: {said}"


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
