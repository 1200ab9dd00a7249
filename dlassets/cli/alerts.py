"""`dlassets alerts`: try the addresses that alerts go to, see what people were told, and send what waits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import settings_and_lake, show
from dlassets.errors import SettingsError
from dlassets.masking import masked

if TYPE_CHECKING:
    from dlassets.alerts.channels import Channel
    from dlassets.alerts.outbox import Entry
    from dlassets.settings import AlertSettings

_SHOWN = 50


@click.group()
def alerts() -> None:
    """Try the addresses that alerts go to, see what people were told, and send what waits.

    The sensor `alerts` raises and sends them while Dagster's daemon runs (dlassets dev); alerts.urls says where to.
    """


@alerts.command()
def test() -> None:
    """Send a message to each address, and say what came of it; exit code 1 where one did not take it."""
    from dlassets.alerts.channels import Message, send_everywhere

    settings, lake = settings_and_lake(is_there=False)
    channels = _channels(settings.alerts)
    message = Message("dlassets: a test", f"Alerts of this lake come here: {masked(lake.root)}", is_alarm=False)
    problems = send_everywhere(channels, [message] * len(channels))
    for channel, problem in zip(channels, problems, strict=True):
        click.echo(f"{channel.name}: {problem or 'has taken it'}")
    if any(problems):
        sys.exit(1)


@alerts.command("list")
@click.option("--all", "everything", is_flag=True, help=f"Those that were sent, too; the newest {_SHOWN} of all.")
def list_(everything: bool) -> None:
    """Show what waits to be sent and what was given up, with what was wrong."""
    from dlassets.alerts.outbox import read_alerts
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.tables import ALERT_GIVEN_UP, ALERT_SENT, ALERT_WAITING

    _, lake = settings_and_lake()
    entries = read_alerts(LocalEngine(), lake, ALERT_WAITING, ALERT_GIVEN_UP, *([ALERT_SENT] if everything else []))
    if not entries:
        click.echo("Nobody was told anything yet." if everything else "No alert waits, and none was given up.")
        return
    shown = entries[-_SHOWN:]
    rows = [(f"{each.raised_at:%Y-%m-%d %H:%M:%S}", each.status, each.kind, each.subject) for each in shown]
    show(("raised", "status", "kind", "alert"), rows)
    _echo_problems(shown)


@alerts.command()
def send() -> None:
    """Send what waits now, and what was given up; exit code 1 where an address did not take it."""
    from dlassets.alerts.outbox import send_waiting
    from dlassets.engines.local import LocalEngine

    settings, lake = settings_and_lake()
    tried = send_waiting(LocalEngine(), lake, settings.alerts, _channels(settings.alerts), at_once=True)
    _echo_problems(tried)
    click.echo(f"{sum(entry.sent_at is not None for entry in tried)} of {len(tried)} alerts were sent.")
    if any(entry.sent_at is None for entry in tried):
        sys.exit(1)


def _echo_problems(entries: Sequence[Entry]) -> None:
    for problem in dict.fromkeys(entry.problem for entry in entries if entry.problem):
        click.echo(problem)


def _channels(settings: AlertSettings) -> list[Channel]:
    """Return the addresses. Raises SettingsError where there are none."""
    from dlassets.alerts.channels import channels_of

    if not settings.are_on:
        raise SettingsError(
            "Nobody is to be told: set DLASSETS_ALERTS__URLS to where alerts go, such as "
            "mailto://smtp.example.com:25?from=lake@example.com&to=me@example.com or json://127.0.0.1:9000/alerts."
        )
    return channels_of(settings)
