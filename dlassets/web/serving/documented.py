"""What OpenAPI says of each form of request: its body, its answer, an example of both, and why it may be refused."""

from __future__ import annotations

from typing import Any

_PHOTO = "/9j/4AAQSkZJRgABAQAAAQABAAD…"
_CLASS = {
    "type": "object",
    "properties": {
        "label": {"type": "integer"},
        "name": {"type": "string"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["label", "name", "confidence"],
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_CLASS["properties"],  # type: ignore[dict-item]
        "margin": {"type": "number", "description": "How much surer it is than of the next class."},
        "top_k": {"type": "array", "items": _CLASS},
    },
    "required": ["label", "name", "confidence", "margin", "top_k"],
}
_HEAD = {
    "request_id": {"type": "string"},
    "model": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "version": {"type": "integer"}},
        "required": ["name", "version"],
    },
}
_FAILED = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_ONE = {
    "type": "object",
    "properties": {**_HEAD, **_ANSWER["properties"]},
    "required": ["request_id", "model", *_ANSWER["required"]],
}
_MANY = {
    "type": "object",
    "properties": {**_HEAD, "predictions": {"type": "array", "items": {"oneOf": [_ANSWER, _FAILED]}}},
    "required": ["request_id", "model", "predictions"],
}
_BEST = {"label": 2, "name": "hat", "confidence": 0.93}
_EXAMPLE_ANSWER = {**_BEST, "margin": 0.89, "top_k": [_BEST, {"label": 5, "name": "mug", "confidence": 0.04}]}
_EXAMPLE_HEAD = {"request_id": "5f0c…", "model": {"name": "image_classifier", "version": 3}}
_REFUSAL = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"error": {"type": "string"}, "request_id": {"type": "string"}},
            "required": ["error"],
        },
        "example": {"error": "The bytes do not decode as a picture: …", "request_id": "5f0c…"},
    }
}
_REASONS = {
    400: "The body is not what its form says.",
    401: "The token is missing or wrong.",
    408: "The body was not here whole in time.",
    413: "Too many bytes, or too many photos.",
    415: "No form that is known.",
    422: "The photo does not decode, or is too large; or there is none.",
    429: "Too many photos wait: come back after the seconds of Retry-After.",
    503: "No model is ready, or the answer could not be written down.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of refusals, all that there are unless some are named."""
    return {status: {"description": _REASONS[status], "content": _REFUSAL} for status in statuses or _REASONS}


def _documented(bodies: dict[str, Any], answer: dict[str, Any], example: Any) -> dict[str, Any]:
    return {
        "openapi_extra": {
            "requestBody": {"required": True, "content": bodies},
        },
        "responses": {
            **refusals(),
            200: {
                "description": "The answer.",
                "content": {"application/json": {"schema": answer, "example": example}},
            },
        },
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "format": "byte"}
_FILES = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
    "required": ["file"],
}
_IMAGES = {
    "type": "object",
    "properties": {"images": {"type": "array", "items": _BASE64, "minItems": 1}},
    "required": ["images"],
}

PREDICT = _documented(
    {
        "image/jpeg": _BINARY,
        "image/png": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": _FILES},
        "application/json": {"schema": _IMAGES, "example": {"images": [_PHOTO]}},
    },
    {"oneOf": [_ONE, _MANY]},
    {**_EXAMPLE_HEAD, **_EXAMPLE_ANSWER},
)

_RECORD = {"type": "object", "properties": {"content": _BASE64}, "required": ["content"]}
_RECORDS = {"type": "array", "items": _RECORD, "minItems": 1}
_SPLIT = {
    "type": "object",
    "properties": {
        "columns": {"type": "array", "items": {"const": "content"}, "minItems": 1, "maxItems": 1},
        "data": {"type": "array", "items": {"type": "array", "items": _BASE64, "minItems": 1, "maxItems": 1}},
    },
    "required": ["columns", "data"],
}
_COLUMNS = {
    "type": "object",
    "properties": {"content": {"type": "array", "items": _BASE64, "minItems": 1}},
    "required": ["content"],
}


def _only(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


_NULLABLE = {name: {"type": [kind, "null"]} for name, kind in (("label", "integer"), ("name", "string"))}
INVOCATIONS = _documented(
    {
        "application/json": {
            "schema": {
                "oneOf": [
                    _only("dataframe_split", _SPLIT),
                    _only("dataframe_records", _RECORDS),
                    _only("instances", _RECORDS),
                    _only("inputs", _COLUMNS),
                ]
            },
            "examples": {
                "dataframe_split": {"value": {"dataframe_split": {"columns": ["content"], "data": [[_PHOTO]]}}},
                "dataframe_records": {"value": {"dataframe_records": [{"content": _PHOTO}]}},
                "instances": {"value": {"instances": [{"content": _PHOTO}]}},
                "inputs": {"value": {"inputs": {"content": [_PHOTO]}}},
            },
        }
    },
    _only("predictions", {"type": "array", "items": {"type": "object", "properties": _NULLABLE}}),
    {"predictions": [{**_EXAMPLE_ANSWER, "error": None}]},
)

_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"const": "content"},
        "datatype": {"const": "BYTES"},
        "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        "data": {"type": "array", "items": _BASE64, "minItems": 1},
    },
    "required": ["name", "datatype", "shape", "data"],
}
_OUTPUT = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array"},
    },
    "required": ["name", "datatype", "shape", "data"],
}
INFER = _documented(
    {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
                },
                "required": ["inputs"],
            },
            "example": {"inputs": [{"name": "content", "datatype": "BYTES", "shape": [1], "data": [_PHOTO]}]},
        },
        "application/octet-stream": _BINARY,
    },
    {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": _OUTPUT},
        },
        "required": ["model_name", "model_version", "outputs"],
    },
    {
        "id": "5f0c…",
        "model_name": "image_classifier",
        "model_version": "3",
        "outputs": [{"name": "name", "datatype": "BYTES", "shape": [1], "data": ["hat"]}],
    },
)
INFER["responses"][404] = {"description": "Another model or version than the one that answers.", "content": _REFUSAL}
