"""`dlassets webhooks`: have MLflow's server say when a version comes or an alias moves, so that nobody waits for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import settings_and_lake
from dlassets.errors import DlassetsError, SettingsError

if TYPE_CHECKING:
    from mlflow.entities.webhook import WebhookTestResult

_NAME = "dlassets"
_EVENTS = ("model_version.created", "model_version_alias.created", "model_version_alias.deleted")


@click.group()
def webhooks() -> None:
    """Have MLflow's server say when a version comes or an alias moves: what the sensor registry_changes sees later."""


@webhooks.command()
@click.argument("address")
def add(address: str) -> None:
    """Have MLflow's server send its webhooks to ADDRESS, where `dlassets serve` takes them, and send one.

    ADDRESS is that of the service with /webhooks/mlflow, as MLflow's server reaches it. Repeated, it renews the secret,
    which is serving.webhook_secret. Exit code 1 where the one that was sent did not arrive.
    """
    from mlflow.exceptions import MlflowException

    from dlassets.registry.store import existing_client

    settings, _ = settings_and_lake(is_there=False)
    secret, server = settings.serving.webhook_secret, settings.mlflow.tracking_uri or ""
    if secret is None:
        raise SettingsError(
            "Set DLASSETS_SERVING__WEBHOOK_SECRET to a secret that nobody can guess: all are signed by it."
        )
    if not server.startswith(("http://", "https://")):
        raise SettingsError(
            "Webhooks come from an MLflow server alone, and DLASSETS_MLFLOW__TRACKING_URI names none. The sensor "
            "registry_changes finds what is new in the store all the same."
        )
    client = existing_client(settings)
    assert client is not None  # a server is no file that may lack
    try:
        known = next((webhook for webhook in client.list_webhooks() if webhook.url == address), None)
        if known is None:
            known = client.create_webhook(_NAME, address, [*_EVENTS], secret=secret)
        else:
            client.update_webhook(known.webhook_id, events=[*_EVENTS], secret=secret, status="ACTIVE")
        tried = client.test_webhook(known.webhook_id)
    except MlflowException as error:
        raise DlassetsError(f"MLflow's server does not take it: {error}") from error
    if not tried.success:
        click.echo(f"MLflow sends webhooks to {address}, and the first one was not taken: {_why(tried)}")
        sys.exit(1)
    click.echo(f"MLflow sends webhooks to {address}, and the first one was taken.")


def _why(tried: WebhookTestResult) -> str:
    answer = f"{tried.response_status} {tried.response_body or ''}".strip()
    return tried.error_message or answer
