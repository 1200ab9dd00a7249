"""MLflow's store of one lake: opened, asked for runs and the champion; where it lies, and its artifacts beside it."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.engines.process_identity import ProcessIdentity
from dlassets.errors import DlassetsError, PassingError, SettingsError
from dlassets.extras import CLUSTER, require
from dlassets.learning.backbones import BackboneRef, backbone_of, published
from dlassets.learning.weights import MODEL
from dlassets.registry.lifecycle import TAG_PROCESS, end_dead_runs, find_run, model_of
from dlassets.registry.models import ModelVersion
from dlassets.registry.moving import move_in
from dlassets.registry.release import refuse_other_release
from dlassets.settings import Settings
from dlassets.storage.databases import make_once, remedy_of, rows_of
from dlassets.storage.lake import Lake, local_path
from dlassets.storage.stores import is_object_storage, on_s3

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# The lake's own store, a file of sqlite in its folder `mlflow`.
_FILE = "mlflow.db"

_log = logging.getLogger(__name__)


class MlflowStore:
    """The tracking store and registry of one lake, opened when first used: importing MLflow alone costs seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lake = Lake.at(settings.root)

    @cached_property
    def client(self) -> MlflowClient:
        """A client of the store, with the experiment made. Raises PassingError where the store cannot be reached."""
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.tracking._tracking_service import utils
        from sqlalchemy.exc import SQLAlchemyError

        fail_soon()
        quiet_mlflow()
        uri, artifacts = opened_store(self.settings, self._lake)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # Where a run's files lie MLflow keeps by its id alone, and a copy of a lake has the same runs elsewhere.
        utils._artifact_repos_cache.clear()  # noqa: SLF001 - it has no other way
        client = mlflow.MlflowClient(uri, uri)
        try:
            _have_experiment(client, self.experiment, artifacts)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _unreached(uri, error) from error
        return client

    @property
    def is_own(self) -> bool:
        """Whether it lies in the lake, and so has runs of no other."""
        return not self.settings.mlflow.tracking_uri

    @property
    def experiment(self) -> str:
        return self.settings.mlflow.experiment

    @contextmanager
    def run(self, name: str | None = None, experiment_id: str | None = None) -> Iterator[Any]:
        """Open a run and give MLflow's own interface to it; it is ended here, as finished or as failed.

        It is one of the settings' experiment, or of the one that is named.
        """
        import mlflow

        own = self.client.get_experiment_by_name(self.experiment)
        tags = self.tags_of_process()
        with mlflow.start_run(experiment_id=experiment_id or own.experiment_id, run_name=name, tags=tags):
            yield mlflow

    def tags_of_process(self) -> dict[str, str]:
        """Return the tags of a run that this process is about to begin, having ended those whose process is gone."""
        if ended := end_dead_runs(self.client, self.experiment):
            _log.warning("The processes of these MLflow runs were killed, so they are ended: %s", ", ".join(ended))
        return {TAG_PROCESS: str(ProcessIdentity.this())}

    def find_run(self, *digests: str) -> Run | None:
        """Return the finished run that learned from exactly the inputs of these digests, if there is one."""
        name = self.settings.registry.model_name
        found = (find_run(self.client, self.experiment, name, inputs_sha256) for inputs_sha256 in digests)
        return next((run for run in found if run is not None), None)

    def run_of(self, *digests: str) -> Run:
        """Return the run that learned from these inputs. Raises DlassetsError where there is none."""
        if (run := self.find_run(*digests)) is None:
            raise DlassetsError(
                "No model was trained on the training set as it stands now. Materialize trained_model first, with the "
                "same settings."
            )
        return run

    def champion(self) -> ModelVersion | None:
        """Return the version of the registered model that is in use, if any is.

        Raises DlassetsError where MLflow cannot say.
        """
        from mlflow.exceptions import MlflowException

        name = self.settings.registry.model_name
        try:
            return model_of(self.client, name)
        except MlflowException as error:
            raise DlassetsError(f"MLflow cannot say which version of {name} is champion: {error}") from error

    def run_url(self, run: Run) -> str:
        """Return the address of a run in MLflow's UI."""
        return f"{self.settings.ui.mlflow}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def existing_client(settings: Settings) -> MlflowClient | None:
    """Return a client of the settings' store as it stands, None where that is a file which has not been made.

    For those who only look: nothing is made or moved, and the store of this process stays what it is. Raises
    DlassetsError where the store cannot be used.
    """
    uri = store_uri(settings, Lake.at(settings.root))
    file = store_file(uri)
    if file is not None and not file.is_file():
        return None
    from mlflow import MlflowClient

    fail_soon()
    quiet_mlflow()
    with nullcontext() if file is None else _explained_store(file):
        _refuse_other_release(uri)
        return MlflowClient(uri, uri)


def _refuse_other_release(uri: str) -> None:
    """As refuse_other_release; raises PassingError where a store that is no file cannot be reached."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        refuse_other_release(uri)
    except SQLAlchemyError as error:
        if store_file(uri) is not None:
            raise
        raise _unreached(uri, error) from error


def _unreached(uri: str, error: Exception) -> PassingError:
    return PassingError(
        f"MLflow's store at {uri} cannot be reached: {error}. Start the server, or set "
        "DLASSETS_MLFLOW__TRACKING_URI to one that runs (unset: a file under the lake's root)."
    )


def _have_experiment(client: MlflowClient, name: str, location: str | None) -> None:
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(name) is not None:
        return
    try:
        client.create_experiment(name, location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process made it at the same moment
            raise


def store_uri(settings: Settings, lake: Lake) -> str:
    """Return the URI of MLflow's tracking store and registry: as set, else sqlite under the lake's root.

    Raises SettingsError where the lake's root is no folder.
    """
    if settings.mlflow.tracking_uri:
        return settings.mlflow.tracking_uri
    try:
        return f"sqlite:///{local_path(lake.mlflow) / _FILE}"
    except SettingsError as error:
        raise SettingsError(
            f"MLflow's store cannot be kept in {lake.root}: set DLASSETS_MLFLOW__TRACKING_URI to a server or database."
        ) from error


def store_file(uri: str) -> Path | None:
    """Return the file of a store that is a file of sqlite; None for any other."""
    from sqlalchemy.engine import make_url

    name = make_url(uri).database if uri.startswith("sqlite:") else None
    return None if name is None or name == ":memory:" else Path(name)


def tracking_uri(settings: Settings, lake: Lake) -> str:
    """Return what `store_uri` does; the folder of a store under the lake's root is made.

    Raises DlassetsError where the lake's root is no folder that can be written.
    """
    uri = store_uri(settings, lake)
    if not settings.mlflow.tracking_uri:
        folder = local_path(lake.mlflow)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DlassetsError(
                f"MLflow's store {folder} cannot be written: {error}. Check the folder, or set DLASSETS_ROOT to "
                "another."
            ) from error
    return uri


def opened_store(settings: Settings, lake: Lake) -> tuple[str, str | None]:
    """Return the store's URI and where new artifacts go, with the store ready: whole, and of where the lake lies now.

    Raises DlassetsError as `tracking_uri` and `ready_store` do.
    """
    uri, artifacts = tracking_uri(settings, lake), artifact_location(settings, lake)
    require_driver(uri)
    if artifacts is not None and on_s3(artifacts):
        require(CLUSTER, "MLflow, to keep files on S3,")
    ready_store(uri, artifacts)
    _refuse_other_release(uri)
    file = store_file(uri)
    if file is not None and not is_object_storage(lake.root) and file == local_path(lake.mlflow) / _FILE:
        with _explained_store(file):  # any other may be of several lakes
            move_in(file, local_path(lake.root))
    return uri, artifacts


def require_driver(uri: str) -> None:
    """Raise MissingExtraError where a store's database needs a driver that is not installed."""
    if uri.startswith("postgresql+psycopg2:"):
        require(CLUSTER, "A store of MLflow's on PostgreSQL")


def ready_store(uri: str, artifacts: str | None) -> None:
    """Have a store that is a file of sqlite be there whole; any other is not this project's to make.

    MLflow itself leaves one that it can never use again where it is killed while it makes one, or where two processes
    do. `artifacts` is where the files of its own first experiment go. Raises DlassetsError where the file cannot be
    read, or not be written.
    """
    if (file := store_file(uri)) is None:
        return

    def make(folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{folder / file.name}", artifacts).engine.dispose()

    def is_whole(there: Path) -> bool:
        return bool(rows_of(there, "experiments"))  # its first is the last thing that is made

    with _explained_store(file):
        make_once(file.parent, [file.name], is_whole, make)


@contextmanager
def _explained_store(file: Path) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        raise DlassetsError(
            f"MLflow's store {file} cannot be used: {error}. {remedy_of(error)} Or set "
            "DLASSETS_MLFLOW__TRACKING_URI to another."
        ) from error


def artifact_location(settings: Settings, lake: Lake) -> str | None:
    """Return where a new experiment's artifacts go: a URI under the lake's root, or None where a server decides."""
    if (settings.mlflow.tracking_uri or "").startswith(("http://", "https://", "databricks")):
        return None
    location = f"{lake.mlflow}/artifacts"
    if location.startswith("s3a://"):  # Spark's name for what MLflow and everyone else call s3
        return "s3://" + location.removeprefix("s3a://")
    return location if is_object_storage(location) else local_path(location).as_uri()


def backbone_in_use(settings: Settings, lake: Lake) -> BackboneRef:
    """Return the settings' backbone, its weights where every worker can load them: see `backbones.published`.

    An alias of a registered model, or a file, is looked at here once: what is returned names the weights themselves.
    """
    ref = backbone_of(settings.features)
    return published(ref, lake, opened_store(settings, lake)[0] if ref.weights.startswith(MODEL) else None)


def fail_soon() -> None:
    """Give a server that does not answer some ten seconds, not MLflow's own minutes; what the user has set holds."""
    for name, value in (("MAX_RETRIES", "3"), ("BACKOFF_FACTOR", "1"), ("TIMEOUT", "30")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def quiet_mlflow() -> None:
    """Keep MLflow's hints and progress bars out of a run's output; its warnings stay, and its errors are raised."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("models.signature", "pyfunc", "system_metrics", "tracking.fluent"):
        logging.getLogger(f"mlflow.{name}").setLevel(logging.WARNING)
    # What it says there, pages of it, it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
