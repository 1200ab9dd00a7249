"""The sensor that tells people: what Dagster and the registry know becomes rows of the outbox, and these are sent."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from dlassets.alerts.outbox import Alert, Entry
    from dlassets.engines.base import Engine


@dataclass
class _Seen:
    """What the sensor has seen: it begins when it is first asked, and what was before is no news."""

    since: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat())
    runs_until: str = ""
    failing: dict[str, int] = field(default_factory=dict)
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
        from dlassets.alerts.outbox import raise_alerts, send_waiting
        from dlassets.engines.local import LocalEngine

        engine = LocalEngine()
        seen = _Seen(**json.loads(context.cursor)) if context.cursor else _Seen()
        found = [*_of_dagster(context, settings, seen), *_of_models(engine, settings, seen)]
        raised = raise_alerts(engine, lake, [alert for alert in found if alert.kind in alerts.kinds])
        tried = send_waiting(engine, lake, alerts, channels_of(alerts))
        return dg.SensorResult(skip_reason=_summary(raised, tried), cursor=json.dumps(vars(seen)))

    return tell


def _of_dagster(context: dg.SensorEvaluationContext, settings: Settings, seen: _Seen) -> list["Alert"]:
    from dlassets.resources.dagster_alerts import failed_runs, failing_checks

    now = dt.datetime.now(dt.UTC)
    of_runs = failed_runs(context.instance, dt.datetime.fromisoformat(seen.runs_until or seen.since), settings.ui)
    keys = context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()
    of_checks, seen.failing = failing_checks(context.instance, keys, seen.failing, settings.ui)
    seen.runs_until = now.isoformat()
    return [*of_runs, *of_checks]


def _of_models(engine: "Engine", settings: Settings, seen: _Seen) -> list["Alert"]:
    from dlassets.alerts.model_events import alert_of, new_events

    events = new_events(engine, Lake.at(settings.root), settings, seen.event)
    seen.event = max([seen.event, *(event.number for event in events)])
    since = dt.datetime.fromisoformat(seen.since)
    return [alert for event in events if event.at >= since and (alert := alert_of(event, settings))]


def _summary(raised: int, tried: Sequence["Entry"]) -> str:
    sent = [entry for entry in tried if entry.sent_at]
    waiting = [entry for entry in tried if not entry.sent_at]
    parts = [f"{raised} alerts raised, {len(sent)} sent."]
    if waiting:
        parts.append(f"{len(waiting)} were not sent everywhere: {waiting[0].problem}")
    return " ".join(parts)
