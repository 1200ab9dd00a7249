"""`dlassets serve`: the champion over HTTP."""

from __future__ import annotations

import os
import sys

import click

from dlassets.settings import load_settings

# Read when numpy is imported. Products of small matrices are no faster with more threads, of which there are enough.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--host", help="The address to listen on, in place of serving.host; another than this machine's own takes a token."
)
@click.option("--port", type=click.IntRange(0, 65_535), help="The port, in place of serving.port; 0: any free one.")
def serve(host: str | None, port: int | None) -> None:
    """Answer what the champion says of photos, over HTTP; Ctrl-C stops it.

    POST /predict takes a photo as it is, files in a form and base64 in JSON, /invocations what MLflow's server takes,
    /v2 the V2 inference protocol; / is a page to try a photo on. A new champion takes over without a request failing.
    """
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    load_settings(serving=given)  # what cannot be is said before another process begins
    options = [f"--{name}={value}" for name, value in given.items()]
    sys.stdout.flush()
    command = [sys.executable, "-m", "dlassets.web.serving", *options]
    os.execve(sys.executable, command, _ONE_THREAD | os.environ)  # noqa: S606 - no shell, as everywhere
