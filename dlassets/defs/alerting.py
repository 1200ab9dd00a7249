"""The sensor that tells people: what Dagster and the registry know becomes rows of the outbox, and these are sent."""

import datetime as dt
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from dlassets.alerts.outbox import Entry


# What happened is written down a moment after its time: it is looked so far back. Nothing is told twice for that.
_OVERLAP = dt.timedelta(minutes=5)


@dataclass
class _Seen:
    """What the sensor has seen: all until then, and which checks failed. What was before its first look is no news.

    `event` is the id of an evaluation of a check, up to which the event log need not be looked at again.
    """

    until: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat())
    failing: Collection[str] = ()
    event: int = 0


def alerts_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that raises and sends alerts. It is on where the settings name an address."""
    alerts = settings.alerts
    lake = Lake.at(settings.root)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=settings.automation.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if alerts.are_on else dg.DefaultSensorStatus.STOPPED,
        description="Writes what people are to be told into the table alerts, and sends what waits there.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not alerts.are_on:
            return dg.SensorResult(skip_reason="Nobody is to be told: alerts.urls is empty.")
        from dlassets.alerts.channels import channels_of
        from dlassets.alerts.model_events import of_models
        from dlassets.alerts.outbox import raise_alerts, send_waiting
        from dlassets.engines.local import LocalEngine
        from dlassets.resources.dagster_alerts import evaluations, failed_runs, failing_checks

        engine, now = LocalEngine(), dt.datetime.now(dt.UTC)
        seen = _Seen(**json.loads(context.cursor)) if context.cursor else _Seen()
        since = dt.datetime.fromisoformat(seen.until) - _OVERLAP
        evaluated = evaluations(context.instance, since, seen.event)
        checks = _check_keys(context)
        of_checks, failing = failing_checks(context.instance, checks, evaluated, seen.failing, settings.ui)
        of_runs = failed_runs(context.instance, since, settings.ui)
        found = [*of_runs, *of_checks, *of_models(engine, lake, settings, since)]
        raised = raise_alerts(engine, lake, [alert for alert in found if alert.kind in alerts.kinds])
        tried = send_waiting(engine, lake, alerts, channels_of(alerts))
        old = (record.storage_id for record in evaluated if record.timestamp < (now - _OVERLAP).timestamp())
        cursor = json.dumps(vars(_Seen(now.isoformat(), failing, max(old, default=seen.event))))
        return dg.SensorResult(skip_reason=_summary(raised, tried), cursor=cursor)

    return tell


def _check_keys(context: dg.SensorEvaluationContext) -> Collection[dg.AssetCheckKey]:
    return context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()


def _summary(raised: int, tried: Sequence["Entry"]) -> str:
    sent = [entry for entry in tried if entry.sent_at]
    waiting = [entry for entry in tried if not entry.sent_at]
    parts = [f"{raised} alerts raised, {len(sent)} sent."]
    if waiting:
        parts.append(f"{len(waiting)} were not sent everywhere: {waiting[0].problem}")
    return " ".join(parts)
