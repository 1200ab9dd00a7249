"""Serve the pages of the settings' lake: `python -m dlassets.web.pages --port 4000`."""

from __future__ import annotations

from contextlib import suppress

import click

from dlassets.errors import DlassetsError
from dlassets.monitoring.views.models import models_of
from dlassets.settings import load_settings
from dlassets.web.pages.app import create_app


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65_535), default=4000, show_default=True)
def serve(host: str, port: int) -> None:
    """Serve the pages of the settings' lake until SIGINT or SIGTERM."""
    import uvicorn

    settings = load_settings()
    # The first look imports MLflow, which takes seconds, and fails where two requests do it at once.
    with suppress(DlassetsError):  # each page that asks says what is wrong
        models_of(settings)
    uvicorn.run(create_app(settings), host=host, port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    serve()
