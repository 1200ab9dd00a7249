"""Answers as each form of request has them, and their shapes and examples for OpenAPI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from dlassets.images.decode import ImageError
from dlassets.scoring.online import Answer
from dlassets.web.serving.asked import Asked
from dlassets.web.serving.forms import BYTES

_COLUMNS = ("label", "name", "confidence", "margin", "top_k", "error")
# Of the V2 protocol: the datatype of each output, and what stands for none.
_OUTPUTS: Mapping[str, tuple[str, Any]] = {
    "label": ("INT64", -1),
    "name": (BYTES, ""),
    "confidence": ("FP64", 0.0),
    "margin": ("FP64", 0.0),
    "top_k": (BYTES, ""),
    "error": (BYTES, ""),
}

Answered = Answer | ImageError


def one(asked: Asked, answer: Answer) -> Response:
    """Return the answer to the one photo that was sent as it is."""
    return _json({**_head(asked), **answer})


def many(asked: Asked, answers: Sequence[Answered]) -> Response:
    """Return the answers to photos that were sent together, each a `label` and so on, or an `error`."""
    return _json({**_head(asked), "predictions": [_or_error(answer) for answer in answers]})


def as_mlflow(answers: Sequence[Answered]) -> Response:
    """Return what MLflow's scoring server answers."""
    rows = [{**dict.fromkeys(_COLUMNS), **_or_error(answer)} for answer in answers]
    return _json({"predictions": rows})


def as_v2(asked: Asked, answers: Sequence[Answered], given_id: str | None) -> Response:
    """Return an inference response of the V2 protocol; top_k is JSON in a text."""
    rows = [_or_error(answer) for answer in answers]
    outputs = [
        {"name": name, "datatype": datatype, "shape": [len(rows)], "data": [_flat(row.get(name, none)) for row in rows]}
        for name, (datatype, none) in _OUTPUTS.items()
    ]
    model = {"model_name": asked.model.name, "model_version": str(asked.model.version)} if asked.model else {}
    return _json({**model, "id": given_id or asked.request_id, "outputs": outputs})


def v2_model(name: str, version: int) -> Mapping[str, Any]:
    """Return what the V2 protocol says of a model."""
    return {
        "name": name,
        "versions": [str(version)],
        "platform": "dlassets",
        "inputs": [{"name": "content", "datatype": BYTES, "shape": [-1]}],
        "outputs": [{"name": output, "datatype": kind, "shape": [-1]} for output, (kind, _) in _OUTPUTS.items()],
    }


def _head(asked: Asked) -> Mapping[str, Any]:
    model = asked.model
    return {
        "request_id": asked.request_id,
        "model": {"name": model.name, "version": model.version} if model else None,
    }


def _or_error(answer: Answered) -> Mapping[str, Any]:
    return {"error": str(answer)} if isinstance(answer, ImageError) else answer


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _json(tree: Mapping[str, Any]) -> Response:
    return Response(json.dumps(tree), media_type="application/json")
