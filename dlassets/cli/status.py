"""`dlassets status`: what is stale, running, failed, silent or waiting for people, and what to do next."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import in_one_line, settings_and_lake
from dlassets.errors import DlassetsError
from dlassets.storage.databases import explained_databases

if TYPE_CHECKING:
    from dlassets.monitoring.matters import Matter, MatterKind
    from dlassets.settings import Settings
    from dlassets.storage.lake import Lake

_TITLES = {
    "away": "cannot be asked",
    "silent": "silent",
    "failed": "failed",
    "stale": "stale",
    "running": "running",
    "waiting": "waiting for people",
}
_COLOURS = {"running": None, "waiting": "yellow"}

Look = Callable[["Settings", "Lake"], Iterator["Matter"]]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON object of lists, for programs.")
def status(*, as_json: bool) -> None:
    """Say what is stale, running, failed, silent and waiting for people, each with what to do next.

    Exit code 1 where anything is stale, failed or silent, or cannot be asked. It looks, and changes nothing.
    """
    from dlassets.monitoring.matters import MATTER_KINDS

    settings, lake = settings_and_lake()
    matters = [matter for name, look in _LOOKS.items() for matter in _asked(name, look, settings, lake)]
    by_kind = {kind: [matter for matter in matters if matter.kind == kind] for kind in MATTER_KINDS}
    if as_json:
        found = {kind: [{"what": each.what, "todo": each.todo} for each in those] for kind, those in by_kind.items()}
        click.echo(json.dumps(found, indent=2))
    else:
        _show(by_kind)
    if any(matter.is_wrong for matter in matters):
        sys.exit(1)


def _show(by_kind: Mapping[MatterKind, list[Matter]]) -> None:
    for kind, matters in by_kind.items():
        if not matters and kind == "away":
            continue
        click.echo(f"{_TITLES[kind]}: {len(matters) or 'nothing'}")
        for matter in matters:
            click.secho(f"  {in_one_line(matter.what)}", fg=_COLOURS.get(kind, "red"))
            click.echo(f"    {in_one_line(matter.todo)}")


def _asked(name: str, look: Look, settings: Settings, lake: Lake) -> Iterator[Matter]:
    """Yield what a look finds, and where it cannot look, that: the others go on."""
    from sqlalchemy.exc import SQLAlchemyError

    from dlassets.monitoring.matters import Matter

    try:
        with explained_databases():
            yield from look(settings, lake)
    except (DlassetsError, SQLAlchemyError, OSError) as error:
        yield Matter("away", f"{name}: {str(error).strip().splitlines()[0]}", "`dlassets doctor` looks closer")


def _tables(settings: Settings, _: Lake) -> Iterator[Matter]:
    from dlassets.monitoring.matters import in_tables
    from dlassets.monitoring.views.reading import Reading

    return in_tables(Reading(settings))


def _registry(settings: Settings, _: Lake) -> Iterator[Matter]:
    from dlassets.monitoring.matters import in_registry

    return in_registry(settings)


def _alerts(_: Settings, lake: Lake) -> Iterator[Matter]:
    from dlassets.alerts.outbox import read_alerts
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.tables import ALERT_GIVEN_UP
    from dlassets.monitoring.matters import Matter

    if given_up := len(read_alerts(LocalEngine(), lake, ALERT_GIVEN_UP)):
        yield Matter(
            "failed", f"{given_up} alerts were given up", "see `dlassets alerts list`; then `dlassets alerts send`"
        )


def _dagster(settings: Settings, lake: Lake) -> Iterator[Matter]:
    from dlassets.definitions import defs
    from dlassets.defs import freshness
    from dlassets.monitoring.matters import Matter
    from dlassets.resources import dagster_matters
    from dlassets.resources.silence import silent

    with dagster_matters.existing_instance(lake) as instance:
        if instance is None:
            if settings.goes_on_by_itself:
                yield Matter("silent", "Dagster has done nothing here yet", "start its daemon: `dlassets dev`")
            return
        if settings.goes_on_by_itself:
            names = {sensor.name for sensor in defs.get_repository_def().sensor_defs}
            for said in silent(instance, names, settings.automation.heartbeat_minutes, dt.datetime.now(dt.UTC)):
                yield Matter("silent", said, "until then nothing starts by itself, and nobody is told of anything")
        graph = defs.resolve_asset_graph()
        yield from dagster_matters.runs(instance, settings.ui)
        yield from dagster_matters.checks(instance, graph, settings.ui)
        yield from dagster_matters.stale(instance, graph)
        for asset, hours in settings.automation.fresh_hours.items():
            found = freshness.evaluated(instance, asset, hours)
            if not found.passed:
                yield Matter("stale", str(found.description), "see why it was not made: its schedule, sensor or run")


_LOOKS: dict[str, Look] = {
    "tables": _tables,
    "MLflow": _registry,
    "alerts": _alerts,
    "Dagster": _dagster,
}
