"""No secret in what Dagster writes down of an error: of its causes too, which are other libraries' own."""

from __future__ import annotations

import traceback

from dagster_shared.error import SerializableErrorInfo

from dlassets.masking import masked

_from_traceback = SerializableErrorInfo.from_traceback.__func__  # type: ignore[attr-defined]


def _masked(kind: type[SerializableErrorInfo], found: traceback.TracebackException) -> SerializableErrorInfo:
    said: SerializableErrorInfo = _from_traceback(kind, found)  # which comes here again for each cause
    stack = [masked(line) for line in said.stack]
    return kind(masked(said.message), stack, said.cls_name, said.cause, said.context)


def mask_errors() -> None:
    """Mask errors where Dagster makes text of them, which is one place for assets, checks, sensors and loading."""
    SerializableErrorInfo.from_traceback = classmethod(_masked)  # type: ignore[assignment]
