"""The errors a user is meant to read, and how they leave another process as what they were there.

A record says an error's kind and its whole message, in JSON: where a process can hand over a file or a pickle, that is
what it hands over. Through the text of another system, Spark's of a failed task, a record goes as one line.
"""

from __future__ import annotations

import base64
import json
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from dlassets.masking import masked

_ENCODED = re.compile(r"dlassets-error:([\w=-]+);", re.ASCII)


def some_of(names: Sequence[str], most: int) -> str:
    """Return names as a message lists them: the first so many, and a sign that there are more."""
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


class Record(TypedDict):
    """`kind` is the full name of a DlassetsError of this package; None where the message is another's traceback."""

    kind: str | None
    message: str


class DlassetsError(Exception):
    """Something the user can put right; the message says how, and no secret."""

    def __str__(self) -> str:
        return masked(super().__str__())

    def __reduce__(self) -> tuple[Callable[[Record], Exception], tuple[Record]]:
        """Pickle it as its record: a kind that takes more than a message could not be made again by its arguments."""
        return error_from, (record_of(self),)


class SettingsError(DlassetsError):
    """A setting is unknown or has a value that cannot be."""


class PassingError(DlassetsError):
    """Something that may have passed a little later: doing the same again, unchanged, may help."""


class ConflictError(PassingError):
    """Another writer committed first; what was planned on the old snapshot must be planned again."""


class ProcessFailedError(RuntimeError):
    """Another process failed for no reason that a setting mends; the message has its traceback."""


class EncodedError(Exception):
    """An error of ours on its way through another system's text, where `decoded_error` finds it."""


def record_of(error: BaseException) -> Record:
    """Return the record of an error: of its nearest kind that every process can import."""
    for kind in type(error).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if _kind(name) is kind:
            return {"kind": name, "message": str(error)}
    return {"kind": None, "message": masked("".join(traceback.format_exception(error)))}


def error_from(record: Record) -> Exception:
    """Return the error that a record is of: a DlassetsError, else a ProcessFailedError.

    One whose kind takes more than a message is of the nearest base that does not.
    """
    return _error(record["kind"] or "", record["message"]) or ProcessFailedError(record["message"])


@contextmanager
def encoded_errors() -> Iterator[None]:
    """Raise each DlassetsError as an EncodedError, for `decoded_error` to find wherever its text gets to."""
    try:
        yield
    except DlassetsError as error:
        record = base64.urlsafe_b64encode(json.dumps(record_of(error)).encode()).decode()
        raise EncodedError(f"dlassets-error:{record};") from error


def decoded_error(text: str) -> Exception | None:
    """Return the first error that was encoded into a text, None where there is none."""
    encoded = _ENCODED.search(text)
    return error_from(json.loads(base64.urlsafe_b64decode(encoded[1]))) if encoded else None


def printed_error(text: str) -> DlassetsError | None:
    """Return the error that Python prints as this text, `module.Kind: message`; None for one that is not ours."""
    name, _, message = text.rstrip("\n").partition(": ")
    return _error(name, message)


def _error(kind: str, message: str) -> DlassetsError | None:
    """Return an error with this message, of the kind or its nearest base that takes a message alone."""
    found = _kind(kind)
    for base in found.__mro__ if found else ():
        try:
            error = base(message)
        except TypeError:
            continue
        if isinstance(error, DlassetsError) and str(error) == message:
            return error
    return None


def _kind(name: str) -> type[DlassetsError] | None:
    """Return the kind of that full name, None for what is no DlassetsError of this package."""
    if not name.startswith(f"{__package__}."):
        return None
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) and issubclass(found, DlassetsError) else None
