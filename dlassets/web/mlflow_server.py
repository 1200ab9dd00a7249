"""MLflow's server behind the guard, as MLflow takes one: `mlflow server --app-name dlassets`.

`python -m dlassets.web.mlflow_server` is the command `mlflow`, with no secret of the settings in what it says.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlassets.settings import load_settings
from dlassets.web.guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def create_app() -> ASGIApp:
    """Return MLflow's own application, guarded. A function, since `mlflow server` itself imports what names it."""
    addresses = load_settings().ui.of_mlflow
    # MLflow asks less of the two (any page of this machine may write, and 10.evil.example is a host it takes for one of
    # a private network), and would not know the addresses that the settings name.
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = "*"
    origins = [urlsplit(address) for address in addresses]
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(f"{each.scheme}://{each.netloc}" for each in origins)

    from mlflow.server.fastapi_app import app

    return Guard(app, addresses)


if __name__ == "__main__":
    from mlflow.cli import cli

    load_settings()
    cli()
