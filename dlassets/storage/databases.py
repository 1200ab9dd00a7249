"""Databases of sqlite that a lake has beside its tables, MLflow's and Dagster's: made whole, by one process of many."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from dlassets.errors import DlassetsError
from dlassets.masking import masked

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

# Beside a database of sqlite while it is written to: left by a killed process, they would be played into a new one.
_JOURNALS = ("-journal", "-wal", "-shm")
# Another process may be writing.
PATIENCE_SECONDS = 30
_NEW, _LOCK = ".new-", ".being-made.lock"

# What sqlite says, and what to do then.
_DAMAGED = "It is damaged: restore it from a copy."
_OTHERWISE = "See that its folder is yours to write and has room; if it is damaged, restore it from a copy."
_REMEDIES = {
    "database is locked": "Another process is writing to it, of MLflow or of Dagster. Run again when it has ended.",
    "attempt to write a readonly database": "Look at whose it and its folder are.",
    "unable to open database file": "Look at whose it and its folder are, and that they are there.",
    "file is not a database": _DAMAGED,
    "database disk image is malformed": _DAMAGED,
    "database or disk is full": "Make room where it lies, and run again.",
    "disk I/O error": "See that its disk is well and has room, and run again.",
}


def make_once(
    folder: Path, names: Collection[str], is_whole: Callable[[Path], bool], make: Callable[[Path], None]
) -> bool:
    """Have these files of a folder be there whole; return whether any had to be made.

    Those that `is_whole` denies are replaced by what `make` makes in an empty folder that it is given, by the same
    names: other processes wait meanwhile, and what one leaves that is killed the next one deletes. Raises OSError where
    the folder cannot be written, and what `make` raises.
    """

    def lacking() -> list[str]:
        return [name for name in names if not is_whole(folder / name)]

    if not lacking() and not any(folder.glob(f"{_NEW}*")):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK):
        for left in folder.glob(f"{_NEW}*"):
            shutil.rmtree(left)
        if not (wanted := lacking()):
            return False
        with tempfile.TemporaryDirectory(prefix=_NEW, dir=folder) as new:
            make(Path(new))
            for name in wanted:
                _put(Path(new) / name, folder / name)
    return True


def rows_of(database: Path, table: str) -> int:
    """Return how many rows a table has; none where there is no such table, or no such file.

    Raises sqlite3.Error where the file is no database, or cannot be read.
    """
    if not database.exists():
        return 0
    # Not read-only: what a killed process was writing is taken back by who opens it next.
    with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection:
        is_there = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table])
        if is_there.fetchone() is None:
            return 0
        (count,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608 - a name of this code
        return int(count)


@dataclass(frozen=True)
class Standing:
    """Which release a database's tables are of, by its number in alembic, and the newest that this code knows.

    `revision` is None where nothing has been made in it. `is_newer`: this code does not know its number.
    """

    revision: str | None
    newest: str
    is_newer: bool

    @property
    def is_older(self) -> bool:
        return self.revision is not None and not self.is_newer and self.revision != self.newest


def standing(uri: str, scripts: ScriptDirectory) -> Standing:
    """Look at which of these releases a database is of. Raises DlassetsError where it says two at once."""
    from alembic.util import CommandError
    from sqlalchemy import NullPool, create_engine, inspect, text

    with create_engine(uri, poolclass=NullPool).connect() as connection:
        is_made = inspect(connection).has_table("alembic_version")
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() if is_made else []
    if len(found) > 1:
        raise DlassetsError(f"The database {masked(uri)} says that it is of two releases at once. {_DAMAGED}")
    revision, is_newer = (found[0] if found else None), False
    try:
        scripts.get_revision(revision or "base")
    except CommandError:
        is_newer = True
    return Standing(revision, str(scripts.get_current_head()), is_newer)


@contextmanager
def explained_databases() -> Iterator[None]:
    """Say in this project's error what sqlite says of a database, through MLflow, Dagster or SQLAlchemy."""
    try:
        yield
    except DlassetsError:
        raise
    except Exception as error:
        if (said := _in_our_words(error)) is None:
            raise
        raise DlassetsError(said) from error


def remedy_of(said: object) -> str:
    """Return what to do where this is said of a database that cannot be used."""
    return next((remedy for sign, remedy in _REMEDIES.items() if sign in str(said)), _OTHERWISE)


def _in_our_words(error: BaseException | None) -> str | None:
    while error is not None:
        if sign := next((sign for sign in _REMEDIES if sign in str(error)), None):
            return (
                "A database beside the lake's tables, in <root>/mlflow or <root>/dagster, cannot be used: "
                f"{sign}. {remedy_of(sign)} `dlassets doctor` says which one it is."
            )
        error = error.__cause__ or error.__context__
    return None


def _put(made: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    for journal in _JOURNALS:
        place.with_name(place.name + journal).unlink(missing_ok=True)
    made.replace(place)
