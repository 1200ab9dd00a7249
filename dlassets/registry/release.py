"""Which release of MLflow a store of its is of, and how one of an earlier release comes to this one's."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.storage.databases import PATIENCE_SECONDS, Standing, make_once, standing

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_DATABASES = ("sqlite:", "postgresql")


def standing_of(uri: str) -> Standing | None:
    """Look at which release a store's database is of; None where it is a server's, which sees to its own."""
    return standing(uri, _scripts()) if uri.startswith(_DATABASES) else None


def refuse_other_release(uri: str) -> None:
    """Raise DlassetsError for a store of another release of MLflow than this one.

    MLflow itself upgrades some such stores as soon as it opens them, with no copy made, and refuses others.
    """
    if (there := standing_of(uri)) is None:
        return
    if there.is_newer:
        raise newer(f"MLflow's store {masked(uri)}", there)
    if there.is_older:
        raise DlassetsError(
            f"MLflow's store {masked(uri)} is of an earlier release ({there.revision}, and here {there.newest}): "
            "`dlassets upgrade --rehearse` says what would change, `dlassets upgrade PLACE` does it, with a backup."
        )


def newer(what: str, there: Standing) -> DlassetsError:
    """Return the error for a database that a newer release has written to."""
    return DlassetsError(
        f"{what} was written by a newer release (it is of {there.revision}, and the newest that is known here is "
        f"{there.newest}). Nothing was changed. Install the release of dlassets that upgraded it, or restore a backup "
        "from before into an empty root: `dlassets restore --from PLACE/backups/NAME.json`."
    )


def upgrade_store(uri: str) -> None:
    """Bring a store's database to this release's tables: of PostgreSQL in one transaction, of sqlite in a copy.

    That takes its place when it is done, so that one that is killed leaves the store as it was. Nothing else may be
    writing to it. Raises DlassetsError where it stays locked.
    """
    if not uri.startswith("sqlite:"):
        _migrate(uri)
        return
    from sqlalchemy.engine import make_url

    file = Path(str(make_url(uri).database))

    def make(folder: Path) -> None:
        with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(folder / file.name)) as new:
            live.backup(new)
        _migrate(f"sqlite:///{folder / file.name}")

    def is_current(there: Path) -> bool:
        return not standing(f"sqlite:///{there}", _scripts()).is_older

    with closing(sqlite3.connect(file, timeout=PATIENCE_SECONDS, isolation_level=None)) as held:
        held.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        held.execute("BEGIN IMMEDIATE")  # who still writes waits, and is refused
        make_once(file.parent, [file.name], is_current, make)


def _migrate(uri: str) -> None:
    from mlflow.store.db.utils import _upgrade_db
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        _upgrade_db(engine)
    finally:
        engine.dispose()


@functools.cache
def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config(""))
