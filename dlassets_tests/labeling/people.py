"""Requests and answers of people with names, as rows of their tables; a request is called as its photo is."""

import datetime as dt
from typing import Any

from dlassets_tests.labeling.conftest import image_id
from dlassets_tests.tables import NOON


def request(name: str, confidence: float = 0.5, **more: Any) -> dict[str, Any]:
    row = {"request_id": name, "batch_id": "v3-00000000", "path": f"unlabeled/{name}.jpg", "image_id": image_id(name)}
    told = {"predicted_label": 2, "predicted_name": "hat", "confidence": confidence, "strategy": "least_confidence"}
    return {**row, **told, "status": "open", "service": "folder", **more}


def answer(name: str, annotator: str | None, label: int | None = 2, order: int = 1, **more: Any) -> dict[str, Any]:
    row = {"request_id": name, "path": f"unlabeled/{name}.jpg", "image_id": image_id(name), "label": label}
    when = NOON + dt.timedelta(seconds=order)
    return {**row, "annotator": annotator, "answered_at": when, "status": "accepted", "read_order": order, **more}
