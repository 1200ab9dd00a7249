"""MLflow's store and Dagster's databases as earlier releases of these left them, made by their own migrations."""

from pathlib import Path

import dagster as dg
from alembic import command
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.sql import get_alembic_config, run_alembic_downgrade
from sqlalchemy import NullPool, create_engine, text

from dlassets.resources.instance import DATABASES

# A release of MLflow in which runs had datasets, and no logged models; one of Dagster before backfills had tags.
MLFLOW, DAGSTER = "0584bdc529eb", "ec80dd91891a"


def earlier_mlflow(uri: str) -> None:
    """Make a store of an earlier release, with an experiment `kept` that has a run."""
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = create_engine(uri, poolclass=NullPool)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, MLFLOW)
    with engine.begin() as connection:
        values = "(7, 'kept', 'file:///kept', 'active', 1, 1)"
        names = "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time"
        connection.execute(text(f"INSERT INTO experiments ({names}) VALUES {values}"))
        names = "run_uuid, name, user_id, source_type, status, start_time, lifecycle_stage, artifact_uri, experiment_id"
        values = f"('{'a' * 32}', 'kept', 'someone', 'LOCAL', 'FINISHED', 1, 'active', 'file:///kept/a', 7)"
        connection.execute(text(f"INSERT INTO runs ({names}) VALUES {values}"))


def earlier_dagster(home: Path, uris: list[str] | None = None) -> None:
    """Put the databases of an instance that has been used back to an earlier release, each run's own too."""
    config = get_alembic_config(sqlite_run_storage.__file__)
    for uri in uris or [f"sqlite:///{home / name}" for name in DATABASES]:
        # PostgreSQL takes an index away beside what goes on in no transaction.
        with create_engine(uri, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            run_alembic_downgrade(config, connection, DAGSTER, "index")


def used_dagster(home: Path) -> str:
    """Have an instance hold a run with its events, and return its id."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return noted.execute_in_process(instance=instance).run_id


@dg.op
def noting() -> None:
    """Do nothing, which is noted."""


@dg.job
def noted() -> None:
    noting()
