"""Start the gate, which the proxy asks: `python -m dlassets.web.gate --port 4180`."""

from __future__ import annotations

import asyncio
import sys

import click

from dlassets.errors import DlassetsError
from dlassets.settings import load_settings
from dlassets.web.gate.app import Gate, create_app


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65_535), default=4180, show_default=True)
def serve(host: str, port: int) -> None:
    """Log people in, and answer the proxy, until SIGINT or SIGTERM. /health answers once it does."""
    import uvicorn

    try:
        settings = load_settings()
        asyncio.run(Gate(settings).check())
        app = create_app(settings)
    except DlassetsError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    # Addresses of requests are not logged: a provider's answers stand in them.
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False, ws="none")


if __name__ == "__main__":
    serve()
