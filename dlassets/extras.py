"""What is installed only where it is asked for: the package's extras, and the one message where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from dlassets.errors import DlassetsError

# An extra of pyproject.toml, and what is imported of it: it is there where all of these are.
SPARK, TUNING, LABEL_ERRORS, PETASTORM, HEIF = "spark", "tuning", "label-errors", "petastorm", "heif"
EDGE, TENSORBOARD, CLUSTER, KUBERNETES = "edge", "tensorboard", "cluster", "kubernetes"
MODULES = {
    SPARK: ("pyspark", "delta", "dagster_pyspark"),
    TUNING: ("optuna",),
    LABEL_ERRORS: ("cleanlab",),
    PETASTORM: ("petastorm",),
    HEIF: ("pillow_heif",),
    EDGE: ("onnx", "onnxruntime"),
    TENSORBOARD: ("tensorboard",),
    CLUSTER: ("boto3", "dagster_postgres", "flask_wtf", "psycopg2"),
    KUBERNETES: ("dagster_k8s",),
}


class MissingExtraError(DlassetsError):
    """What was asked for needs an extra that is not installed."""


def missing(extra: str, what: str) -> str | None:
    """Return what to do about an extra that `what` needs and that is not installed; None where it is there."""
    absent = [module for module in MODULES[extra] if find_spec(module) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return (
        f"{what} needs the extra {extra} ({', '.join(absent)} {verb} not installed): pip install 'dlassets[{extra}]' "
        "brings it."
    )


def installed(extra: str) -> bool:
    return missing(extra, "") is None


def require(extra: str, what: str, instead: str = "") -> None:
    """Raise MissingExtraError where the extra that `what` needs is not installed; `instead` says how to do without."""
    if (message := missing(extra, what)) is not None:
        raise MissingExtraError(f"{message} {instead}".rstrip())
