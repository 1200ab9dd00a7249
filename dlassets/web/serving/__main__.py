"""Serve the champion of the settings' lake: `python -m dlassets.web.serving`, which `dlassets serve` becomes."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from dlassets.errors import DlassetsError
from dlassets.scoring.served import RequestLog
from dlassets.settings import load_settings
from dlassets.web.serving.app import create_app
from dlassets.web.serving.server import run


@click.command()
@click.option("--host", help="The address to listen on, in place of serving.host.")
@click.option("--port", type=click.IntRange(0, 65_535), help="The port, in place of serving.port; 0: any free one.")
def serve(host: str | None, port: int | None) -> None:
    """Serve the champion of the settings' lake until SIGINT or SIGTERM."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        settings = load_settings(serving=given)
        with RequestLog(settings) if settings.serving.log_requests else nullcontext() as log:
            run(create_app(settings, [log] if log else []), settings)
    except DlassetsError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)


if __name__ == "__main__":
    serve()
