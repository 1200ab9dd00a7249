"""The command itself, and how every part of it speaks: errors without tracebacks, bars in a terminal."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlassets import __version__
from dlassets.errors import DlassetsError, SettingsError
from dlassets.pipeline.report import Report
from dlassets.registry.outages import explained_mlflow
from dlassets.settings import Settings, load_settings
from dlassets.storage.databases import explained_databases
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from dlassets.learning.training.job import Event


_SIGTERM_SECONDS = 10.0
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM
_ENDED_BY_SIGINT = 128 + signal.SIGINT


class _Commands(click.Group):
    """Turns an error that the user can put right, or Ctrl-C, into a message and an exit code, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with explained_mlflow("this command ran"), explained_databases():
                return super().invoke(context)
        except DlassetsError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            sys.exit(2 if isinstance(error, SettingsError) else 1)
        except (KeyboardInterrupt, click.Abort) as error:
            # An answer that is no ends as an Abort of click's as well, and so does Ctrl-C where it asks.
            if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            click.echo("Ended by Ctrl-C. Run it again, and it goes on from here.", err=True)
            sys.exit(_ENDED_BY_SIGINT)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Image deep learning on a lakehouse, as one Dagster asset graph.

    Settings come from a profile (DLASSETS_PROFILE) and DLASSETS_* variables; DLASSETS_ROOT says where the lake lies.
    """


def settings_and_lake(*, is_there: bool = True) -> tuple[Settings, Lake]:
    """Return the settings and the lake that they name, for a command on what is in one.

    Raises DlassetsError where there is none, unless `is_there` is False: to make one of a slip of the hand in
    DLASSETS_ROOT helps nobody.
    """
    from dlassets.lakehouse.snapshots import refuse_no_lake

    settings = load_settings()
    lake = Lake.at(settings.root)
    if is_there:
        refuse_no_lake(lake)
    return settings, lake


class PathHere(click.Path):
    """A path as a shell would read it: some leave `~` as it stands after `=`."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        return super().convert(Path(value).expanduser(), param, context)


def console() -> Console:
    from rich.console import Console

    # A log file or CI is no terminal, and has no width: lines must not be broken at 80.
    return Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))


def in_one_line(text: str) -> str:
    """Return a text that came from outside as one line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def show(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: numbers to the right, and no line broken but of why, and of what a version was made from."""
    from rich.table import Table

    shown = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for column in shown.columns:
        column.justify = "right" if column.header in {"version", "rows", "written", "label"} else "left"
        column.no_wrap = column.header not in {"from", "why"}
    for row in rows:
        shown.add_row(*row)
    console().print(shown)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End this process of a SIGTERM with exit code 143, whatever is made of it by what runs within.

    Dagster puts handlers of its own in place while it runs a job in this process, and drops a signal that comes between
    two steps, or after the last. What handles it properly has ten seconds to end in good order.
    """
    received, sent = socket.socketpair()
    sent.setblocking(False)
    came, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while numbers := received.recv(64):
            if signal.SIGTERM in numbers:
                came.set()
                if not ended.wait(_SIGTERM_SECONDS):
                    os._exit(_ENDED_BY_SIGTERM)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        sent.close()
        watcher.join()
        received.close()
        if came.is_set():
            click.echo("Ended by SIGTERM. Run it again, and it goes on from here.", err=True)
            sys.exit(_ENDED_BY_SIGTERM)


@contextmanager
def bars() -> Iterator[Report]:
    """Give a report that draws a bar for each thing that is counted."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    percentage = TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), percentage, TimeElapsedColumn())
    with Progress(*columns, console=console(), transient=True) as shown:
        yield _Bars(shown)


class _Bars(Report):
    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._tasks: dict[str, Any] = {}

    def count(self, what: str, done: int, total: int | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._shown.add_task(what)
        self._shown.update(self._tasks[what], completed=done, total=total)

    def event(self, event: Event) -> None:
        self.count(f"{event.kind}s", event.number, event.of)

    def warning(self, message: str) -> None:
        self._shown.console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)
