"""Assets that are to be made every so often: `automation.fresh_hours` names them, and a check of each says if one was.

Dagster's own sensor for such checks starts a run to evaluate one. This looks at the materializations instead: of runs,
and of `dlassets stream`.
"""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import dagster as dg

from dlassets.errors import SettingsError
from dlassets.resources.dagster_alerts import IS_FRESH
from dlassets.settings import Settings


def checks(settings: Settings, assets: Sequence[Any]) -> list[dg.AssetChecksDefinition]:
    """Return a check of each asset of `automation.fresh_hours`. Raises SettingsError for a name of none of `assets`."""
    fresh_hours = settings.automation.fresh_hours
    known = {key.to_user_string() for asset in assets for key in getattr(asset, "keys", None) or [asset.key]}
    if unknown := sorted({*fresh_hours} - known):
        raise SettingsError(
            f"automation.fresh_hours names {', '.join(unknown)}, and there is no such asset. There are "
            f"{', '.join(sorted(known))}."
        )
    return [_check(asset, hours) for asset, hours in fresh_hours.items()]


def freshness_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that notices when an asset was not made in time, and when it has been."""
    automation = settings.automation
    status = dg.DefaultSensorStatus.RUNNING if automation.fresh_hours else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name="freshness",
        minimum_interval_seconds=automation.sensor_seconds,
        default_status=status,
        description="Has is_fresh fail for an asset that was not made within automation.fresh_hours, until it is.",
    )
    def notice(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before: dict[str, bool] = json.loads(context.cursor or "{}")
        found = {asset: evaluated(context.instance, asset, hours) for asset, hours in automation.fresh_hours.items()}
        changed = [check for asset, check in found.items() if before.get(asset) is not check.passed]
        late = [asset for asset, check in found.items() if not check.passed]
        return dg.SensorResult(
            asset_events=changed,
            cursor=json.dumps({asset: check.passed for asset, check in found.items()}),
            skip_reason=f"Not made in time: {', '.join(late)}." if late else "All were made in time.",
        )

    return notice


def _check(asset: str, hours: float) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey.from_user_string(asset), name=IS_FRESH, description=f"It was made within {hours:g} hours."
    )
    def is_fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        found = evaluated(context.instance, asset, hours)
        return dg.AssetCheckResult(passed=found.passed, description=found.description)

    return is_fresh


def evaluated(instance: dg.DagsterInstance, asset: str, hours: float) -> dg.AssetCheckEvaluation:
    """Return whether an asset was made within so many hours, by what the instance knows now."""
    key = dg.AssetKey.from_user_string(asset)
    record = next(iter(instance.fetch_materializations(key, limit=1).records), None)
    at = None if record is None else dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
    passed = at is not None and now() - at <= dt.timedelta(hours=hours)
    made = f"was made last at {at:%Y-%m-%d %H:%M:%S} UTC" if at else "was never made"
    description = f"{asset} {made}, and is to be made every {hours:g} hours."
    return dg.AssetCheckEvaluation(key, IS_FRESH, passed, severity=dg.AssetCheckSeverity.ERROR, description=description)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
