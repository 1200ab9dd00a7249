"""What Dagster writes down of an error: no secret, of its causes too, and no traceback of what a user can put right."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from dagster_shared.error import SerializableErrorInfo

from dlassets.errors import DlassetsError, printed_error
from dlassets.masking import masked

_from_traceback = SerializableErrorInfo.from_traceback.__func__  # type: ignore[attr-defined]
_print_error = sys.excepthook


def write_readable_errors() -> None:
    """Have Dagster's texts of errors so, which it makes in one place for assets, checks, sensors and loading.

    What its commands let through, such as settings that cannot be, Python prints, and does so likewise.
    """
    SerializableErrorInfo.from_traceback = classmethod(_readable)  # type: ignore[assignment]
    sys.excepthook = _print_readable


def _readable(kind: type[SerializableErrorInfo], error: traceback.TracebackException) -> SerializableErrorInfo:
    whole: SerializableErrorInfo = _from_traceback(kind, error)  # which comes here again for each cause
    message = masked(whole.message)
    readable = kind(message, [masked(line) for line in whole.stack], whole.cls_name, whole.cause, whole.context)
    # Of an error that only says which step failed, the frames are Dagster's own.
    is_ours = any(printed_error(each.message) for each in (readable, readable.cause) if each)
    return _without_frames(readable) if is_ours else readable


def _without_frames(error: SerializableErrorInfo) -> SerializableErrorInfo:
    cause = _without_frames(error.cause) if error.cause else None
    return SerializableErrorInfo(error.message, [], error.cls_name, cause)


def _print_readable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, DlassetsError):
        sys.stderr.write(f"error: {error}\n")
    else:
        _print_error(kind, error, trace)
