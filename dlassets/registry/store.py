"""Where MLflow keeps what it is told: the tracking store, and the artifacts beside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError, SettingsError
from dlassets.settings import Settings
from dlassets.storage.lake import Lake, local_path

if TYPE_CHECKING:
    from dlassets.learning.backbones import BackboneRef


def tracking_uri(settings: Settings, lake: Lake) -> str:
    """Return the URI of MLflow's tracking store and registry: as set, else sqlite under the lake's root, folder made.

    Raises DlassetsError where the lake's root is no folder that can be written.
    """
    if settings.mlflow.tracking_uri:
        return settings.mlflow.tracking_uri
    try:
        folder = local_path(lake.mlflow)
    except SettingsError as error:
        raise SettingsError(
            f"MLflow's store cannot be kept in {lake.root}: set DLASSETS_MLFLOW__TRACKING_URI to a server or database."
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DlassetsError(
            f"MLflow's store {folder} cannot be written: {error}. Check the folder, or set DLASSETS_ROOT to another."
        ) from error
    return f"sqlite:///{folder / 'mlflow.db'}"


def _is_served(uri: str) -> bool:
    """Whether a server of its own stands before the store, and decides where artifacts go."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_location(settings: Settings, lake: Lake) -> str | None:
    """Return where a new experiment's artifacts go: a URI under the lake's root, or None where a server decides."""
    if _is_served(settings.mlflow.tracking_uri or ""):
        return None
    location = f"{lake.mlflow}/artifacts"
    if location.startswith("s3a://"):  # Spark's name for what MLflow and everyone else call s3
        return "s3://" + location.removeprefix("s3a://")
    return location if "://" in location else Path(location).as_uri()


def backbone_in_use(settings: Settings, lake: Lake) -> BackboneRef:
    """Return the settings' backbone, its weights where every worker can load them: see `backbones.published`.

    An alias of a registered model, or a file, is looked at here once: what is returned names the weights themselves.
    """
    from dlassets.learning.backbones import backbone_of, published
    from dlassets.learning.weights import MODEL

    ref = backbone_of(settings.features)
    return published(ref, lake, tracking_uri(settings, lake) if ref.weights.startswith(MODEL) else None)


def fail_soon() -> None:
    """Give a server that does not answer some ten seconds, not MLflow's own minutes; what the user has set holds."""
    for name, value in (("MAX_RETRIES", "3"), ("BACKOFF_FACTOR", "1"), ("TIMEOUT", "30")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def quiet_mlflow() -> None:
    """Keep MLflow's hints and progress bars out of a run's output; its warnings and errors stay."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("models.signature", "pyfunc", "store.db.utils", "system_metrics", "tracking.fluent"):
        logging.getLogger(f"mlflow.{name}").setLevel(logging.WARNING)
