"""`dlassets label`: a page on which people label photos."""

from __future__ import annotations

import secrets
import sys

import click

from dlassets.cli.group import settings_and_lake
from dlassets.settings import LOOPBACK, load_settings

PORT = 4001


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all of them.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="The port; 0: any free one."
)
def label(host: str, port: int) -> None:
    """Open a page on which people label photos, by keys or on a phone; Ctrl-C stops it.

    It needs no model served; `dlassets serve` has the same page at /label. Others than this machine need a token: that
    of DLASSETS_SERVING__TOKEN, or a new one, which is in the address that is printed.
    """
    settings, _ = settings_and_lake()
    given = {"host": host, "port": port}
    is_new = host not in LOOPBACK and settings.serving.token is None
    if is_new:
        given["token"] = secrets.token_urlsafe(24)
    from dlassets.web.serving.label.alone import serve_page

    # One that is set is known to whoever set it, and a file that the output goes to is read by others.
    serve_page(load_settings(serving=given), shows_token=is_new or sys.stdout.isatty())
