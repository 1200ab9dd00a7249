"""TensorBoard behind the guard, in one process: `python -m dlassets.web.tensorboard_server --port 6006`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from dlassets.extras import CLUSTER, require
from dlassets.settings import load_settings
from dlassets.storage.lake import Lake, local_path
from dlassets.storage.stores import endpoint, on_s3
from dlassets.web.guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def guarded(wsgi_app: Any, addresses: tuple[str, ...]) -> ASGIApp:
    """Return TensorBoard's application, which asks nobody who is there, for requests of its own pages alone."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to go one day, and what is to replace it is one more package
        from starlette.middleware.wsgi import WSGIMiddleware

    return Guard(WSGIMiddleware(wsgi_app), addresses)


def _log_folder(location: str) -> str:
    """Return the folder of curves, a path or URI, as TensorBoard reads it. Raises SettingsError where it reads none."""
    if on_s3(location):
        require(CLUSTER, f"TensorBoard on {location}")
        if address := endpoint(os.environ):
            os.environ.setdefault(
                "S3_ENDPOINT", address
            )  # TensorBoard's own variable; the others are the standard ones
        return location.replace("s3a://", "s3://", 1)
    folder = local_path(location)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65_535), default=6006, show_default=True)
def serve(host: str, port: int) -> None:
    """Serve the curves of the trainings in the settings' lake until SIGINT or SIGTERM."""
    import uvicorn
    from tensorboard import default, program

    settings = load_settings()
    folder = _log_folder(Lake.at(settings.root).tensorboard)

    class Server(program.TensorBoardServer):  # type: ignore[misc]
        def __init__(self, wsgi_app: Any, flags: Any) -> None:
            del flags
            self._app = guarded(wsgi_app, settings.ui.origins)

        def serve_forever(self) -> None:
            uvicorn.run(self._app, host=host, port=port, log_level="warning", server_header=False)

        def get_url(self) -> str:
            return f"http://{host}:{port}"

    board = program.TensorBoard(default.get_plugins(), server_class=Server)
    # Its faster reader is one more process.
    board.configure(logdir=folder, load_fast="false", reload_interval=5)
    board.main()


if __name__ == "__main__":
    serve()
