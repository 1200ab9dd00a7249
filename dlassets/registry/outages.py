"""MLflow that goes away, or fails, while something is done with it: said in this project's words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dlassets.errors import PassingError


@contextmanager
def explained_mlflow(while_: str) -> Iterator[None]:
    """Raise PassingError in place of what MLflow raises where it goes away while something is done."""
    try:
        yield
    except Exception as error:
        if not _is_of_mlflow(error):
            raise
        message = str(error).rstrip(".")
        raise PassingError(
            f"MLflow failed while {while_}: {message}. Once it can be reached, do the same again: what was done stands."
        ) from error


def _is_of_mlflow(error: Exception) -> bool:
    # Importing it takes seconds, which what does nothing with it would pay for too.
    exceptions = sys.modules.get("mlflow.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MlflowException)
