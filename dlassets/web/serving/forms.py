"""The photos in a request's body, for each form of body that there is. What is no such form is refused by name."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import AsyncGenerator, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from dlassets.web.serving.refusals import RefusedError

# The one column of the model's signature, and the one tensor of the V2 protocol.
CONTENT = "content"
FIELD = "file"
BYTES = "BYTES"
_LENGTH = struct.Struct("<I")
_LONGEST_NAME = 80


async def from_multipart(body: bytes, headers: Headers, most: int) -> list[bytes]:
    """Return the files of a form's field `file`, in their order."""

    class Parser(MultiPartParser):
        spool_max_size = len(body) + 1  # what is in memory already goes to no disk

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await Parser(headers, whole(), max_files=most + 1, max_fields=most).parse()
        fields = [field for name, field in form.multi_items() if name == FIELD and isinstance(field, UploadFile)]
        files = [await field.read() for field in fields]
        await form.close()
    except (MultiPartException, LookupError, ValueError) as error:
        raise _unreadable("multipart form", error) from error
    if not files:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"The form has no file in a field named {FIELD!r}.")
    return files


def from_json(body: bytes) -> list[bytes]:
    """Return the photos of `{"images": ["<base64>", …]}`."""
    return _decoded(_list_of(_tree(body), "images"))


def from_invocations(body: bytes) -> list[bytes]:
    """Return the photos of what MLflow's scoring server takes, but for CSV and Parquet."""
    tree = {name: value for name, value in _tree(body).items() if name != "params"}
    readers = {
        "dataframe_split": _of_split,
        "dataframe_records": _of_records,
        "instances": _of_records,
        "inputs": _of_columns,
    }
    if len(tree) != 1 or not tree.keys() <= readers.keys():
        raise _bad(f"The body must have exactly one of {', '.join(readers)}.")
    ((name, value),) = tree.items()
    return _decoded(readers[name](value))


def from_v2(body: bytes, header_length: str | None) -> tuple[list[bytes], str | None]:
    """Return the photos of an inference request of the V2 protocol, and the id that it has.

    With `header_length`, JSON of so many bytes is followed by tensors in binary form.
    """
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(body)):
        raise _bad("Inference-Header-Content-Length is no length of a part of the body.")
    end = len(body) if header_length is None else int(header_length)
    tree = _tree(body[:end])
    inputs = _list_of(tree, "inputs")
    given = tree.get("id")
    if len(inputs) != 1 or not isinstance(inputs[0], dict) or inputs[0].get("name") != CONTENT:
        raise _bad(f"The request must have one input, named {CONTENT!r}.")
    if inputs[0].get("datatype") != BYTES:
        raise _bad(f"The input {CONTENT!r} must be of the datatype {BYTES}.")
    if given is not None and not isinstance(given, str):
        raise _bad("The id must be a text.")
    parameters = inputs[0].get("parameters") or {}
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        files = list(_elements(body[end:], parameters["binary_data_size"]))
    else:
        files = _decoded(_list_of(inputs[0], "data"))
    if inputs[0].get("shape") not in ([len(files)], [len(files), 1]):
        raise _bad(f"The shape of {CONTENT!r} must be [{len(files)}], as many as there are elements.")
    return files, given


def _elements(data: bytes, size: Any) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor in binary form: each behind its length, in 4 bytes."""
    if size != len(data):
        raise _bad(f"binary_data_size is {size!r}, and {len(data)} bytes follow the JSON.")
    place = 0
    while place < len(data):
        if place + _LENGTH.size > len(data):
            raise _bad("The tensor in binary form ends amid a length.")
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > len(data):
            raise _bad("An element of the tensor in binary form is longer than what follows.")
        yield data[place : place + length]
        place += length


def _of_split(value: Any) -> list[Any]:
    columns, rows = (value.get(name) if isinstance(value, dict) else None for name in ("columns", "data"))
    if not isinstance(columns, list) or not isinstance(rows, list) or CONTENT not in columns:
        raise _bad(f"dataframe_split must have columns, with {CONTENT!r} among them, and data.")
    place = columns.index(CONTENT)
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise _bad("Each row of dataframe_split's data must be a list with a value a column.")
    return [row[place] for row in rows]


def _of_records(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _bad("A list of records is needed.")
    return [_of_record(record) for record in value]


def _of_record(record: Any) -> Any:
    if isinstance(record, dict):
        if CONTENT not in record:
            raise _bad(f"A record has no {CONTENT!r}.")
        return record[CONTENT]
    return record


def _of_columns(value: Any) -> list[Any]:
    if isinstance(value, list):
        return _of_records(value)
    content = _of_record(value)
    return content if isinstance(content, list) else [content]


def _tree(body: bytes) -> Mapping[str, Any]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable("JSON", error) from error
    if not isinstance(tree, dict):
        raise _bad("The body must be a JSON object.")
    return tree


def _list_of(tree: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(found := tree.get(name), list):
        raise _bad(f"The body must have {name!r}, a list.")
    return found


def _decoded(texts: list[Any]) -> list[bytes]:
    if not texts:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "The request has no photo.")
    return [_from_base64(text, place) for place, text in enumerate(texts)]


def _from_base64(text: Any, place: int) -> bytes:
    if not isinstance(text, str):
        raise _bad(f"Photo {place} is no text: photos in JSON are base64.")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # programs break it into lines
    except (binascii.Error, ValueError) as error:
        raise _bad(f"Photo {place} is no base64: {error}") from error


def _unreadable(what: str, error: Exception) -> RefusedError:
    return _bad(f"The body is no readable {what}: {str(error)[:_LONGEST_NAME]}")


def _bad(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)
