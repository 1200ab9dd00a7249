"""MLflow stores for tests: making a new sqlite store takes seconds, and copying one does not."""

import functools
import shutil
import tempfile
from pathlib import Path

from dlassets.settings import Settings


def give_store(settings: Settings) -> None:
    """Put an empty tracking store where the settings' lake has its own."""
    store = Path(settings.root, "mlflow", "mlflow.db")
    store.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty_store(), store)


@functools.cache
def _empty_store() -> Path:
    from mlflow import MlflowClient

    store = Path(tempfile.mkdtemp(), "mlflow.db")
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store
