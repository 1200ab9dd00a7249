"""`dlassets history`, `restore` and `forget`: what a table was, what a model was trained from, and the way back."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dlassets.cli.backups import restore_lake
from dlassets.cli.group import settings_and_lake, show
from dlassets.errors import DlassetsError
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlassets.engines.base import Snapshot
    from dlassets.lakehouse.history import Version
    from dlassets.settings import Settings

_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_MODEL = click.option(
    "--model", metavar="N|champion", help="What this registered version of the model was trained from."
)


class _Moment(click.ParamType[dt.datetime]):
    """A time in ISO 8601; UTC where it names no zone, as `history` shows it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> dt.datetime:
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            message = f"{value!r} is no time such as 2026-11-22, 2026-11-22T14:30 or 2026-11-22T14:30:00+01:00."
            self.fail(message, param, context)
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


@click.command()
@click.argument("table", required=False)
@_MODEL
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many versions.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, for programs.")
def history(table: str | None, model: str | None, limit: int, *, as_json: bool) -> None:
    """Show the versions of TABLE, newest first, and what each was made of. Times are UTC.

    With --model: which version of each table (or of TABLE) a registered model version was trained from.
    """
    from dlassets.lakehouse.history import history as versions_of
    from dlassets.lakehouse.history import table_of

    settings, lake = settings_and_lake()
    if model is not None:
        _history_of_model(settings, lake, model, table, as_json=as_json)
        return
    if table is None:
        raise click.UsageError("Name a table, or a model version with --model.")
    versions = list(versions_of(table_of(lake, table), limit))
    if as_json:
        click.echo(json.dumps([asdict(each) | {"at": each.at.isoformat()} for each in versions], indent=2))
    else:
        show(("version", "time", "operation", "rows", "written", "from"), [_row(version) for version in versions])


@click.command()
@click.argument("table", required=False)
@click.option(
    "--from",
    "source",
    metavar="PLACE",
    help="Not a table, but the whole lake, from the newest backup there, or the one of this manifest.",
)
@click.option("--version", type=click.IntRange(min=0), metavar="N", help="This version of the table.")
@click.option("--at", type=_Moment(), metavar="TIME", help="The version that the table had then (ISO 8601, UTC).")
@_MODEL
@click.option("--to", metavar="FOLDER", help="Write it there, as a table of its own, and leave the live one alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(
    table: str | None,
    source: str | None,
    version: int | None,
    at: dt.datetime | None,
    model: str | None,
    to: str | None,
    *,
    yes: bool,
) -> None:
    """Give TABLE back the rows it had: as its newest version, or as a table of its own with --to.

    Nothing is deleted: the version that is the newest now can be restored in its turn. The next ingest takes the
    photos in again that a restored raw_images lacks.

    With --from the whole lake is restored, as `dlassets backup` has copied it, into a root that is empty.
    """
    from dlassets.lakehouse.history import restore as restore_here
    from dlassets.lakehouse.history import restore_to, table_of, whole_version

    if source is not None:
        if any(choice is not None for choice in (table, version, at, model, to)):
            raise click.UsageError("--from restores the whole lake: name neither a table nor a version.")
        restore_lake(source)
        return
    if table is None:
        raise click.UsageError("Name a table, or a backup with --from.")
    if sum(choice is not None for choice in (version, at, model)) != 1:
        raise click.UsageError("Say which version: one of --version, --at and --model.")
    settings, lake = settings_and_lake()
    now = table_of(lake, table)
    target = whole_version(now, _chosen(settings, lake, now, version, at, model), settings.maintenance.retention_hours)
    if to is not None:
        done = restore_to(target, Lake.at(to).root)
        already = "" if done.changed else " already: nothing was written"
        click.echo(f"{done.uri} has the {done.rows:,} rows of version {target.version} of {table}{already}.")
        return
    if not yes:
        question = f"Restore {table} from version {now.version} to the rows of version {target.version}?"
        click.confirm(question, abort=True)
    done = restore_here(now, target)
    if done.changed:
        click.echo(f"{table} has the {done.rows:,} rows of version {target.version} again, as version {done.version}.")
    else:
        click.echo(f"{table} has the rows of version {target.version} already: nothing was written.")


@click.command()
@click.argument("model", metavar="NAME/VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(model: str, *, yes: bool) -> None:
    """Let go of what a registered model learned from that no MLflow store has any more.

    Maintenance deletes nothing while the lake knows of a model that the store does not: it may be the wrong store.
    """
    from dlassets.pipeline.session import Session
    from dlassets.registry.lineage import forget as forget_model

    settings, lake = settings_and_lake()
    session = Session(settings)
    if not yes:
        click.confirm(f"Need what {model} learned from not be kept any more?", abort=True)
    forget_model(session.engine, lake, session.mlflow.client, model, {"command": "forget"})
    click.echo(f"Maintenance need not keep what {model} learned from.")


def _trained_from(settings: Settings, lake: Lake, model: str) -> tuple[int, dict[str, int]]:
    from dlassets.pipeline.session import Session
    from dlassets.registry.lineage import model_version, trained_from

    session = Session(settings)
    client, name = session.mlflow.client, session.model_name
    version = model_version(client, name, model, session.champion())
    return version, trained_from(lake, client, name, version)


def _chosen(
    settings: Settings, lake: Lake, now: Snapshot, version: int | None, at: dt.datetime | None, model: str | None
) -> int:
    from dlassets.lakehouse.history import version_at

    if version is not None:
        return version
    if at is not None:
        return version_at(now, at)
    number, versions = _trained_from(settings, lake, str(model))
    if now.name not in versions:
        raise DlassetsError(
            f"Version {number} of the model was not trained from {now.name}, but from {', '.join(versions)}."
        )
    return versions[now.name]


def _history_of_model(settings: Settings, lake: Lake, model: str, table: str | None, *, as_json: bool) -> None:
    from dlassets.lakehouse.history import missing_files, table_of
    from dlassets.lakehouse.snapshots import at_version, commits, row_count, time_of

    number, versions = _trained_from(settings, lake, model)
    if table is not None:
        table_of(lake, table)
        versions = {name: version for name, version in versions.items() if name == table}
    found: list[dict[str, Any]] = []
    for name, version in versions.items():
        then = at_version(table_of(lake, name), version)
        found.append(
            {
                "model_version": number,
                "table": name,
                "version": version,
                "time": time_of(next(commits(then))).isoformat() if then else None,
                "rows": row_count(then) if then else None,
                "readable": then is not None and not missing_files(then),
            }
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = []
    for row in found:
        time = "" if row["time"] is None else f"{dt.datetime.fromisoformat(row['time']):{_TIME_FORMAT}}"
        readable = "yes" if row["readable"] else "no, vacuumed"
        rows.append((row["table"], str(row["version"]), time, _number(row["rows"]), readable))
    show(("table", "version", "time", "rows", "readable"), rows)


def _row(version: Version) -> tuple[str, ...]:
    when, made_from = f"{version.at:{_TIME_FORMAT}}", _made_from(version.provenance)
    written = "" if version.bytes_written is None else _size(version.bytes_written)
    return str(version.version), when, version.operation, _number(version.rows), written, made_from


def _made_from(provenance: Mapping[str, Any]) -> str:
    """Return in a few words what a commit recorded: tables with the versions it read, model, asset, code, run."""
    from dlassets.lakehouse.history import RESTORED_FROM

    parts = [f"restored from {provenance[RESTORED_FROM]}"] if RESTORED_FROM in provenance else []
    parts += [f"{name}@{version}" for name, version in provenance.get("inputs", {}).items()]
    parts += [str(provenance[name]) for name in ("model", "code_version") if name in provenance]
    if run := provenance.get("run_id"):
        parts.append(f"run {run[:8]}")
    return ", ".join(parts)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - a step of units
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
