"""MLflow's server behind the guard, as MLflow takes one: `mlflow server --app-name dlassets`.

`python -m dlassets.web.mlflow_server` is the command `mlflow`, with no secret of the settings in what it says.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse

from dlassets.settings import load_settings
from dlassets.web.guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# What MLflow's pages keep in the browser, and no setting of its server says: as they are until somebody chooses.
_CHOICES = {
    "mlflow.workflowType_v1": "machine_learning",  # and not "genai", whose menu has no models in it
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # or it opens, over a quarter of the page
    "mlflow.settings.telemetry.enabled_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
    "_mlflow_model_registry_promo_modal_dismissed_v1": True,
}
# Any query will do for MLflow to answer; a browser keeps the part behind #, which no server is told, to itself.
_DOOR = """<!doctype html><meta charset="utf-8"><title>MLflow</title>
<script>
try {
  for (const [key, value] of Object.entries(CHOICES))
    if (localStorage.getItem(key) === null) localStorage.setItem(key, JSON.stringify(value));
} catch { /* a browser that keeps nothing for anybody */ }
location.replace("?models" + (location.hash || "#/models"));
</script>
<noscript>MLflow's pages need JavaScript.</noscript>
""".replace("CHOICES", json.dumps(_CHOICES))


class Door:
    """ASGI middleware: a browser that opens MLflow's pages is let in by way of a page that makes the first choices.

    They are about models, where nothing else is named, in the mode for these, with no assistant open beside them; what
    somebody has chosen since stays. Programs, which ask for no page, meet MLflow itself.
    """

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        self._app, self._path = app, f"{prefix.rstrip('/')}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _is_opened(scope, self._path):
            await HTMLResponse(_DOOR, headers={"Cache-Control": "no-store"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_opened(scope: Scope, path: str) -> bool:
    if scope["type"] != "http" or (scope["method"], scope["path"], scope["query_string"]) != ("GET", path, b""):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")


def create_app() -> ASGIApp:
    """Return MLflow's own application, guarded. A function, since `mlflow server` itself imports what names it.

    With the variable MLFLOW_AUTH_CONFIG_PATH, MLflow's own accounts are asked for as well.
    """
    addresses = load_settings().ui.of_mlflow
    # MLflow asks less of the two (any page of this machine may write, and 10.evil.example is a host it takes for one of
    # a private network), and would not know the addresses that the settings name.
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = "*"
    origins = [urlsplit(address) for address in addresses]
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(f"{each.scheme}://{each.netloc}" for each in origins)

    from mlflow.environment_variables import MLFLOW_AUTH_CONFIG_PATH
    from mlflow.server.handlers import STATIC_PREFIX_ENV_VAR

    prefix = os.environ.get(STATIC_PREFIX_ENV_VAR, "")
    return Guard(Door(_with_log_in() if MLFLOW_AUTH_CONFIG_PATH.get() else _without_log_in(), prefix), addresses)


def _without_log_in() -> ASGIApp:
    from mlflow.server.fastapi_app import app

    return app  # type: ignore[no-any-return]


def _with_log_in() -> ASGIApp:
    from mlflow.server import auth

    return auth.create_app()  # type: ignore[no-any-return]


if __name__ == "__main__":
    from mlflow.cli import cli

    load_settings()
    cli()
