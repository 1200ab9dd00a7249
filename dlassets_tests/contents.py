"""What a lake holds that must be the same whatever happened on the way: no times, versions of tables, ids of runs."""

from pathlib import Path
from typing import Any

from dlassets.engines.local import LocalEngine
from dlassets.registry.lifecycle import versions_of
from dlassets.registry.store import MlflowStore
from dlassets.settings import MlflowSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import get

_COMPARED = {
    "raw_images": "path, image_id, length",
    "quarantined_files": "path, reason",
    "deleted_files": "path",
    "image_profiles": "image_id",
    "human_labels": "request_id, path, label, annotator, status",
    "labeled_images": "path, image_id, label, label_name, source, annotator, split",
    "image_features": "image_id, feature_version",
    "training_set": "path, image_id, label, split",
    "evaluated_rows": "path, image_id, split, label, predicted_label, confidence",
    "predictions": "path, image_id, model_name, model_version, predicted_label, confidence",
    "predictions_current": "path, image_id, model_name, model_version, predicted_label, confidence",
    "label_requests": "request_id, batch_id, path, predicted_label, confidence, status",
}


def contents(root: Path | str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Return the compared rows of every table, the registered versions and the champion.

    Confidences to nine digits: the last of a float64's depend on how many rows were scored together.
    """
    settings = Settings(root=str(root), mlflow=MlflowSettings(tracking_uri=tracking_uri))
    lake, mlflow = Lake.at(settings.root), MlflowStore(settings)
    tables = {name: get(LocalEngine(), lake, name, columns) for name, columns in _COMPARED.items()}
    confident = ("evaluated_rows", "predictions", "predictions_current", "label_requests")
    for row in (row for name in confident for row in tables[name]):
        row["confidence"] = round(row["confidence"], 9)
    champion = mlflow.champion()
    return tables | {"registry": [versions_of(mlflow.client, "image_classifier"), champion and champion.version]}
