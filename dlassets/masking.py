"""What of the settings is nobody's to read, and the masks on it wherever text leaves a process.

Users, passwords and tokens stand in the URIs of settings. Whoever makes settings learns them (`learn`): from then on
they are masked, as they stand and as they are escaped, in all that the process prints or logs, whichever library says
it. What merely looks like one, in a URI that no setting has, is masked as well.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

MASK = "…"
# A shorter one would be found in any text.
_SHORTEST = 6
# A user of fewer letters, or without a digit, may well be a word (postgres, mlflow) that says something elsewhere.
_SHORTEST_USER = 8
# Settings whose URLs are secret as a whole: some have a token in place of a host, or in the path.
_SECRET_URLS = re.compile(r"(?i)urls|heartbeat_url")
# What of them may be a token: it has a digit, or is so long, and is no name of a host.
_LONGEST_WORD = 16
# Of a password with a slash in a text, whose end is looked for from each :// on.
_LONGEST = 200

_NAME = r"[\w.-]*(?:secret|passw|pwd|token|signature|(?:access|account|api)[._-]?key)[\w.-]*|sig|sas|key|pass"
_NAME_OF_USER = r"(?:user|uid)(?:[_-]?(?:id|name))?"
_IS_SECRET = re.compile(rf"(?i){_NAME}")
# Of the environment, which has much that merely is about secrets (AWS_WEB_IDENTITY_TOKEN_FILE).
_SECRET_VARIABLE = re.compile(r"\w*(PASSWORD|SECRET|SECRET_KEY|ACCESS_KEY|ACCOUNT_KEY|API_KEY|TOKEN)")
# A host and its port, with a path after them: an @ behind that belongs to the path.
_PORT = r"[^/\s'\"]*:\d+[/?#]"
# The same with a query after them, as of mail (mailto://host:25?from=me@example.com).
_QUERY = r"[^/@\s'\":]*:\d+\?"
# Some passwords have a slash that should have been escaped.
_USER_IN_TEXT = re.compile(rf"://(?:(?!{_QUERY})[^/\s'\"]*|(?!{_PORT})[^/\s'\":]*:[^\s'\"@]{{0,{_LONGEST}}})@")
_USER = re.compile(rf"://((?!{_QUERY})[^/\s]*|(?!{_PORT})[^/:\s]*:[^@]*)@")
_PARAMETER = re.compile(rf"(?i)(?<=[?&;])({_NAME}|{_NAME_OF_USER})=([^&;#\s'\"]+)")


def masked(text: str) -> str:
    """Return a text without secrets: those that were learned, and those of the URIs in it."""
    text = _known.masked(text)
    if "://" in text:
        text = _USER_IN_TEXT.sub(f"://{MASK}@", text)
        text = _PARAMETER.sub(rf"\g<1>={MASK}", text)
    return text


def has_secret(text: str) -> bool:
    """Whether a text that is a URI, or has some, holds a password or token."""
    return "://" in text and (
        any(":" in found[1] for found in _USER.finditer(text)) or _PARAMETER.search(text) is not None
    )


def is_secret(name: str, value: str) -> bool:
    """Whether a setting of this name is secret, or holds anything that is."""
    return any(True for _ in _secrets_in(value, name))


def may_be_secret(name: str) -> bool:
    """Whether a setting of this name is secret, or may hold something that is."""
    return name == "tracking_uri" or any(known.fullmatch(name) for known in (_IS_SECRET, _SECRET_URLS))


def without_secrets(uri: str) -> str:
    """Return the address in a URI, without user and query: for whoever has a user and password of their own."""
    return _USER_IN_TEXT.sub("://", uri).partition("?")[0]


def learn(given: object, name: str = "") -> None:
    """Mask from now on what is secret in settings: a text of this name, or a tree of texts.

    From the first secret on, all that this process prints or logs is masked.
    """
    _known.add(pattern for secret in _secrets_in(given, name) for pattern in secret)


def learn_variables(environment: Mapping[str, str]) -> None:
    """Mask from now on what is secret in an environment: URIs of it (of a proxy, say), and those of storage."""
    for name, value in environment.items():
        learn(value, name if _SECRET_VARIABLE.fullmatch(name) else "")


def _secrets_in(given: object, name: str) -> Iterator[Iterator[str]]:
    """Yield the patterns of each secret."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from _secrets_in(value, str(key))
    elif isinstance(given, (list, tuple)):
        for value in given:
            yield from _secrets_in(value, name)
    elif isinstance(given, str):
        if _IS_SECRET.fullmatch(name):
            yield _patterns(given)
        if _SECRET_URLS.fullmatch(name):
            yield from map(_patterns, _tokens_of_urls(given))
        for key, value in _PARAMETER.findall(given):
            is_user = re.fullmatch(rf"(?i){_NAME_OF_USER}", key)
            yield _patterns_of_user(value, given.replace(value, "")) if is_user else _patterns(value)
        for found in _USER.finditer(given):
            yield _patterns_of_both(found[1], given.replace(found[1], ""))


def _tokens_of_urls(given: str) -> Iterator[str]:
    """Yield all that may be secret in URLs of which any part may be."""
    for url in given.split():
        rest = url.partition("://")[2]
        path = rest.partition("/")[2]
        yield rest
        if "/" in path:
            yield path
        for part in re.split(r"[/:@?&=#,;]+", rest):
            is_word = not re.search(r"\d", part) and len(part) < _LONGEST_WORD
            if len(part) >= _SHORTEST_USER and not is_word and "." not in part:
                yield part


def _patterns_of_both(userinfo: str, elsewhere: str) -> Iterator[str]:
    """Yield the patterns of a user and a password; what the URI says elsewhere as well is no secret."""
    user, colon, password = userinfo.partition(":")
    if colon and password not in elsewhere and password != user:
        yield from _patterns(password)
        for pair in {userinfo, unquote(userinfo)}:  # as the header Authorization has them
            yield re.escape(base64.b64encode(pair.encode()).decode())
    yield from _patterns_of_user(user, elsewhere)


def _patterns_of_user(user: str, elsewhere: str) -> Iterator[str]:
    if len(user) >= _SHORTEST_USER and re.search(r"\d", user) and user not in elsewhere:
        yield from _patterns(user)
    elif user:
        yield from (f"(?<=user [\"']){re.escape(form)}(?=[\"'])" for form in _forms(user))


def _patterns(secret: str) -> Iterator[str]:
    if len(secret) >= _SHORTEST:
        yield from map(re.escape, _forms(secret))


def _forms(secret: str) -> Iterable[str]:
    """Return how a secret may be written: as it is, with what a URI, JSON or Python escapes."""
    plain = unquote(secret)
    return {secret, plain, quote(plain), quote(plain, safe=""), json.dumps(plain)[1:-1], repr(plain)[1:-1]}


class _Known:
    """The secrets that this process has learned, as one pattern."""

    def __init__(self) -> None:
        self._patterns: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._adding = threading.Lock()

    def masked(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def add(self, patterns: Iterable[str]) -> None:
        with self._adding:
            if new := set(patterns) - self._patterns:
                self._patterns |= new
                # The longest first: one may begin as another does.
                self._pattern = re.compile("|".join(sorted(self._patterns, key=len, reverse=True)))
        if self._patterns:
            _mask_output()
            _mask_logs()


_known = _Known()


class _MaskedWrite:
    """A stream's `write`, with a mask: print, warnings, tracebacks and log handlers all come by here."""

    def __init__(self, write: Callable[[str], int]) -> None:
        self.unmasked = write

    def __call__(self, text: str) -> int:
        self.unmasked(masked(text))
        return len(text)


def _mask_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not isinstance(stream.write, _MaskedWrite):
            with suppress(AttributeError):  # a stream of somebody's own making may be closed to this
                stream.write = _MaskedWrite(stream.write)  # type: ignore[method-assign]


def print_unmasked(text: str) -> None:
    """Print a line that has a secret, for whoever has started this process and is to hand it on."""
    write = sys.stdout.write
    (write.unmasked if isinstance(write, _MaskedWrite) else write)(f"{text}\n")
    sys.stdout.flush()


class _MaskedRecords:
    """What makes the records of `logging`, with a mask: not every handler writes to a stream of the process."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        with suppress(Exception):  # of arguments that do not fit, which whoever handles the record says
            said = record.getMessage()
            if (shown := masked(said)) != said:
                record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            said = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if (shown := masked(said)) != said:
                record.exc_text = shown  # which formatters take in place of their own
        return record


def _mask_logs() -> None:
    make = logging.getLogRecordFactory()
    if not isinstance(make, _MaskedRecords):
        logging.setLogRecordFactory(_MaskedRecords(make))
