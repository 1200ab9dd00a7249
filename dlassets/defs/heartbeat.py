"""The dead-man's switch: what is to be done by itself is seen to be done, and a service elsewhere hears of it.

While all is well the service is called, again and again; when it no longer is, or this machine is gone, it alarms.
"""

import datetime as dt
import urllib.error
import urllib.request
from collections.abc import Sequence

import dagster as dg

from dlassets.defs.common import OWNERS
from dlassets.defs.operations.assets import OPERATIONS
from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.resources.silence import silent
from dlassets.settings import Settings

AUTOMATION = dg.AssetSpec(
    "automation",
    description="What Dagster's daemon does by itself: sensors, schedules and alerts. Its check says if any is silent.",
    group_name=OPERATIONS,
    owners=OWNERS,
    kinds={"dagster"},
    code_version="1",
)
IS_HEARD, HEARTBEAT = "is_heard", "heartbeat"
_SECONDS = 10


def check(settings: Settings, sensors: Sequence[str]) -> dg.AssetChecksDefinition:
    """Return the check of whether the daemon and these sensors were heard of."""
    minutes = settings.automation.heartbeat_minutes

    @dg.asset_check(
        asset=AUTOMATION.key,
        name=IS_HEARD,
        description=f"The daemon and each sensor that is on were heard of within {minutes:g} minutes, and none fails.",
    )
    def is_heard(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        said = [*silent(context.instance, sensors, minutes, dt.datetime.now(dt.UTC))]
        return dg.AssetCheckResult(passed=not said, description=" ".join(said) or "All were heard of.")

    return is_heard


def heartbeat_sensor(settings: Settings, sensors: Sequence[str]) -> dg.SensorDefinition:
    """Return the sensor that sees whether these others are silent, and calls automation.heartbeat_url where none is."""
    automation = settings.automation

    @dg.sensor(
        name=HEARTBEAT,
        minimum_interval_seconds=max(automation.sensor_seconds, 30),
        default_status=dg.DefaultSensorStatus.RUNNING if settings.goes_on_by_itself else dg.DefaultSensorStatus.STOPPED,
        description="Has is_heard of automation fail while a sensor is silent or fails; calls a service while none is.",
    )
    def beat(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        said = " ".join(silent(context.instance, sensors, automation.heartbeat_minutes, dt.datetime.now(dt.UTC)))
        if not said and automation.heartbeat_url is not None:
            _call(automation.heartbeat_url)
        state = "silent" if said else "heard"
        severity = dg.AssetCheckSeverity.ERROR
        found = dg.AssetCheckEvaluation(
            AUTOMATION.key, IS_HEARD, not said, severity=severity, description=said or "All were heard of."
        )
        is_news = context.cursor != state
        return dg.SensorResult(
            asset_events=[found] if is_news else [], skip_reason=said or "All were heard of.", cursor=state
        )

    return beat


def _call(url: str) -> None:
    """Tell the service that all is well. Raises DlassetsError where it does not take it."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the setting takes http and https alone
            answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise DlassetsError(
            f"The service of automation.heartbeat_url did not take a heartbeat ({masked(str(error))}), and will alarm: "
            "see whether it is there, and whether the URL is still the one that it gave."
        ) from None
