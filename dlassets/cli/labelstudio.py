"""`dlassets labelstudio`: a Label Studio of the lake's own, on this machine alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from filelock import FileLock, Timeout

from dlassets.deployment.label_studio import ENVIRONMENT, behind, command, give_database, installed, variables
from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.own import OwnServer, file_of, folder_of, new_server, own_server, write_server
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake
from dlassets.web.ports import HOST, free_ports

if TYPE_CHECKING:
    from dlassets.cli.servers import Server

_DATA = "data"
# What it is told by its own variables; those of whoever starts it are for another.
_OTHERS = ("LABEL_STUDIO_", "DJANGO_", "POSTGRE_", "SENTRY_", "DLASSETS_")


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=8080, show_default=True)
@click.option(
    "--environment",
    type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
    help=f"Where Label Studio is installed; else {ENVIRONMENT}, as `make labelstudio` makes it.",
)
def labelstudio(port: int, environment: Path | None) -> None:
    """Start the lake's own Label Studio, on this machine alone; Ctrl-C stops it.

    With the setting labeling.service: labelstudio people are asked there.
    """
    sys.exit(serve(load_settings(), port, environment or installed()))


def serve(settings: Settings, port: int, environment: Path, timeout: float = 300) -> int:
    """Run the lake's Label Studio until SIGINT, SIGTERM or SIGHUP; return the exit code.

    Its log-in is made when it is first started, and stands in a file that its owner alone may read. Raises
    DlassetsError where it runs already, and SettingsError where the lake is no folder.
    """
    from dlassets.cli.servers import ServerError, await_servers, stop_requests

    lake = Lake.at(settings.root)
    folder = folder_of(lake)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), stop_requests() as stop:
        server = own_server(lake)
        if server is None:
            server = new_server()
            if sys.stdout.isatty():  # and not into somebody's log
                click.echo(f"The password of {server.email} is {server.password}")
        (port,) = free_ports(port)
        server = replace(server, url=f"http://{HOST}:{port}")
        write_server(lake, server)
        click.echo(f"Starting Label Studio; its log is {folder / 'server.log'}.")
        told = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
        hints = settings.labeling.label_studio.hint_url is not None
        told |= {**variables(server, folder / _DATA, hints=hints), **_address(settings)}
        with _label_studio(folder, port, environment, told) as process:
            try:
                await_servers([process], stop, timeout)
                if not stop.is_set():
                    _announce(server, lake)
                while not stop.wait(1):
                    process.check()
            except ServerError as error:
                click.echo(str(error), err=True)
                return 1
            click.echo("Stopping.")
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise DlassetsError(f"The Label Studio of {folder} runs already: see {folder / 'server.json'}.") from error


@contextmanager
def _label_studio(folder: Path, port: int, environment: Path, variables: Mapping[str, str]) -> Iterator[Server]:
    from dlassets.cli.servers import running

    give_database(environment, folder / _DATA)
    with running(
        "Label Studio", command(environment, port), port, "/health", folder / "server.log", variables
    ) as process:
        yield process


def _address(settings: Settings) -> Mapping[str, str]:
    """Return the variables by which people reach it, where that is by the proxy."""
    from dlassets.web.gate.caddy import PATHS
    from dlassets.web.gate.policy import LABEL_STUDIO

    url = settings.access.url
    return behind(url + PATHS[LABEL_STUDIO]) if url else {}


def _announce(server: OwnServer, lake: Lake) -> None:
    click.echo(f"Label Studio  {server.url}")
    click.echo(f"Log in as {server.email}; the password is in {file_of(lake)}.")
    click.echo("People are asked here with the setting labeling.service (DLASSETS_LABELING__SERVICE=labelstudio).")
    click.echo("Press Ctrl-C to stop.")
