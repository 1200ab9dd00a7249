"""`dlassets models`, `approve`, `reject` and `rollback`: which versions there are, who decides, and the way back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dlassets.cli.group import bars, console, settings_and_lake, show

if TYPE_CHECKING:
    from dlassets.monitoring.views.models import Version
    from dlassets.pipeline.session import Session
    from dlassets.registry.models import ModelVersion

_SCORING = "dagster job execute -m dlassets.definitions -j scoring_pipeline"


def _decision(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every decision takes: why, and who decides."""
    reason = click.option("--reason", metavar="TEXT", required=True, help="Why. It is written down in model_events.")
    by = click.option("--as", "actor", metavar="NAME", help="Who decides; unset: registry.actor, else your user here.")
    return reason(by(command))


@click.command()
@click.argument("version", type=click.IntRange(min=1), metavar="[VERSION]", required=False)
def models(version: int | None) -> None:
    """Show the versions of the registered model: where each stands, how good it is, who is champion, and why.

    With VERSION, all that happened to that one, oldest first. Times are UTC.
    """
    from dlassets.errors import DlassetsError
    from dlassets.monitoring.views.models import models_of

    settings, _ = settings_and_lake()
    found = models_of(settings)
    if not found.versions:
        raise DlassetsError(f"No version of {found.name} is registered yet. Run training_pipeline first.")
    if version is None:
        show(("version", "stands", "accuracy", "approved by", "live since", "why"), [_row(v) for v in found.versions])
        if rest := found.total - len(found.versions):
            console().print(f"and {rest} older versions")
        return
    chosen = found.version(version)
    if chosen is None:
        numbers = ", ".join(str(each.number) for each in found.versions)
        raise DlassetsError(f"{found.name} has no version {version}, or it is too old to be shown. See {numbers}.")
    rows = [(_time(e.at), e.event, f"{e.from_state or ''} → {e.to_state}", e.actor, e.reason) for e in chosen.events]
    show(("time", "event", "from → to", "by", "why"), rows)


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@_decision
def approve(version: int, reason: str, actor: str | None) -> None:
    """Make VERSION champion, which passed its validation and waits for a person's word.

    It is refused where its package or its validation is not the one that was asked about, and to who trained it.
    """
    from dlassets.registry.approval import approve as approve_version

    click.echo(f"{approve_version(_session(actor).registry, version, reason).sentence}.")


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@_decision
def reject(version: int, reason: str, actor: str | None) -> None:
    """Have VERSION never be champion, whatever a later validation says, unless somebody approves it."""
    from dlassets.registry.approval import reject as reject_version

    click.echo(f"{reject_version(_session(actor).registry, version, reason).sentence}.")


@click.command()
@click.option("--to", type=click.IntRange(min=1), metavar="N", help="Else the one that was champion before.")
@click.option("--rescore", is_flag=True, help="Have it score at once what the bad version has scored.")
@_decision
def rollback(to: int | None, reason: str, actor: str | None, *, rescore: bool) -> None:
    """Make the version before champion again, and say what the bad one has predicted."""
    from dlassets.registry.approval import rollback as roll_back

    session = _session(actor)
    done = roll_back(session.registry, to, reason)
    click.echo(f"Version {done.restored.version} is champion again; version {done.bad.version} was rolled back.")
    if done.done_at is not None:
        click.echo(f"That was done at {_time(done.done_at)} UTC. To go back further, give another reason.")
    if not _tell_of_predictions(session, done.bad):
        return
    if rescore:
        _rescore(session)
    else:
        click.echo(f"Have version {done.restored.version} score these photos: {_SCORING}")


def _session(actor: str | None) -> Session:
    """Return a session in which this person acts."""
    from dlassets.pipeline.session import Session

    settings, _ = settings_and_lake()
    if actor:
        settings = settings.model_copy(update={"registry": settings.registry.model_copy(update={"actor": actor})})
    return Session(settings)


def _tell_of_predictions(session: Session, model: ModelVersion) -> bool:
    """Say what a version has predicted; return whether anything of it is in use."""
    from dlassets.lakehouse.tables import PREDICTIONS, PREDICTIONS_CURRENT
    from dlassets.scoring.made import predicted

    tables = {table.name: session.pin(table) for table in (PREDICTIONS, PREDICTIONS_CURRENT)}
    made, current = predicted(session.engine, tables, model)
    if not made.rows:
        click.echo(f"Version {model.version} has made no predictions.")
        return False
    since = "" if made.since is None else f" since {_time(made.since)} UTC"
    click.echo(
        f"Version {model.version} has made {made.rows:,} predictions{since} (table {made.table}), of which "
        f"{current.rows:,} are in use (table {current.table})."
    )
    return current.rows > 0


def _rescore(session: Session) -> None:
    """Run the steps that score and that say which predictions are in use."""
    from dlassets.lakehouse.tables import PREDICTIONS, PREDICTIONS_CURRENT
    from dlassets.pipeline import steps

    with bars() as report:
        scored = steps.predictions.run(session, report).written[PREDICTIONS.name]
        steps.predictions_current.run(session, report)
    now = f"{PREDICTIONS_CURRENT.name} has what version {session.required_champion().version} says of every photo"
    click.echo(f"{scored.inserted + scored.updated:,} photos were scored anew: {now}.")


def _row(version: Version) -> tuple[str, ...]:
    from dlassets.registry.events import APPROVED, DECIDED

    rows = "" if version.test_rows is None else f" of {version.test_rows}"
    accuracy = "" if version.accuracy is None else f"{version.accuracy.value:.1%}{rows}"
    approved = None if version.last is None or version.last.to_state in DECIDED else version.last_of(APPROVED)
    is_live = version.is_champion and version.reign is not None and version.reign.ended is None
    reason = version.reign.begun.reason if is_live and version.reign else version.last.reason if version.last else ""
    since = _time(version.reign.begun.at) if is_live and version.reign else ""
    return str(version.number), version.standing, accuracy, approved.actor if approved else "", since, reason


def _time(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
