"""Label Studio over HTTP: requests with a token, a time limit and few repeats, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlassets.errors import DlassetsError
from dlassets.masking import without_secrets

if TYPE_CHECKING:
    import requests

# Seconds: to be reached, and to answer.
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# Between one repeat and the next, doubled each time.
BACKOFF_SECONDS = 0.5
# What may be asked again without doing anything twice. Where the server was not reached at all, everything may.
_HARMLESS = ("GET", "PATCH", "DELETE")
_BUSY = (429, 500, 502, 503, 504)
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
# Of a refusal's own words.
_LONGEST = 300


class LabelStudioError(DlassetsError):
    """Label Studio could not be asked, or refused what it was asked."""


class UncertainError(LabelStudioError):
    """No answer came to a request that changes something: it may have been carried out, or be carried out yet."""


class NotThereError(LabelStudioError):
    """What was asked for is not there, or not there for this user."""


@dataclass(frozen=True)
class Address:
    """Where a Label Studio answers, and a token of a user of it: an access token, or a personal one (a JWT)."""

    url: str
    token: str = field(repr=False)


class LabelStudioHttp:
    """One server. `seconds` is how long its answers took so far, in all."""

    def __init__(self, address: Address) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        self.address, self.url = address, address.url.rstrip("/")
        self._token, self._access = address.token, ""
        self.seconds = 0.0
        retry = Retry(
            total=3,
            connect=3,
            read=1,
            status=2,
            other=0,
            allowed_methods=_HARMLESS,
            status_forcelist=_BUSY,
            backoff_factor=BACKOFF_SECONDS,
            raise_on_status=False,
        )
        self._session = requests.Session()
        # A proxy that the environment names must not be asked for this machine.
        self._session.trust_env = urlsplit(self.url).hostname not in _LOOPBACK
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self._errors = requests

    def get(self, path: str, **parameters: Any) -> Any:
        return self._json(self._ask("GET", path, params=parameters))

    def post(self, path: str, body: Any = None, *, files: Any = None, **parameters: Any) -> Any:
        return self._json(self._ask("POST", path, params=parameters, json=body, files=files))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._ask("PATCH", path, json=body))

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        self._ask("DELETE", path, json=body)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        response = self._sent(method, path, **options)
        if response.status_code == HTTPStatus.UNAUTHORIZED and self._is_personal:
            self._access = ""  # of some minutes: it has run out
            response = self._sent(method, path, **options)
        self._check(response, method)
        return response

    @property
    def _is_personal(self) -> bool:
        return self._token.count(".") == 2  # noqa: PLR2004 - a JWT has three parts

    def _authorization(self) -> str:
        if not self._is_personal:
            return f"Token {self._token}"
        if not self._access:
            response = self._unauthorized("POST", "/api/token/refresh/", json={"refresh": self._token})
            self._check(response, "POST")
            self._access = str(self._json(response)["access"])
        return f"Bearer {self._access}"

    def _sent(self, method: str, path: str, **options: Any) -> requests.Response:
        authorization = self._authorization()

        def authorized(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = authorization
            return request

        return self._unauthorized(method, path, auth=authorized, **options)

    def _unauthorized(self, method: str, path: str, **options: Any) -> requests.Response:
        began = time.monotonic()
        limits = (CONNECT_SECONDS, READ_SECONDS)
        try:
            return self._session.request(method, self.url + path, timeout=limits, allow_redirects=False, **options)
        except self._errors.RequestException as error:
            raise self._explained(error, method) from error
        finally:
            self.seconds += time.monotonic() - began

    def _explained(self, error: Exception, method: str) -> LabelStudioError:
        from urllib3.exceptions import ReadTimeoutError

        reason = getattr(error.args[0] if error.args else None, "reason", None)
        is_slow = isinstance(reason, ReadTimeoutError) or isinstance(error, self._errors.ReadTimeout)
        was_reached = is_slow or reason is None
        if is_slow:
            message = f"{self._named} did not answer within {READ_SECONDS:g} s. Nothing is lost: the next run goes on."
        else:
            message = (
                f"{self._named} cannot be reached. Start it (make labelstudio), or set labeling.label_studio.url to "
                "where it is. Nothing is lost: the next run goes on."
            )
        return (UncertainError if was_reached and method not in _HARMLESS else LabelStudioError)(message)

    def _check(self, response: requests.Response, method: str) -> None:
        status = response.status_code
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status == HTTPStatus.UNAUTHORIZED:
            raise LabelStudioError(
                f"{self._named} does not take the token: it is wrong, has expired, or is of a kind that is switched "
                "off there. Take a new one from its page Account & Settings, and set labeling.label_studio.token."
            )
        if status == HTTPStatus.FORBIDDEN:
            raise LabelStudioError(
                f"{self._named} does not let the token's user do this: {_words(response)}. Give that user the rights "
                "to change the project, or set labeling.label_studio.token to another's token."
            )
        if status < HTTPStatus.BAD_REQUEST:
            raise LabelStudioError(
                f"{self._named} answers from elsewhere: set labeling.label_studio.url to "
                f"{without_secrets(response.headers.get('Location', 'where it is'))}, without a path that is no part "
                "of its address."
            )
        if status == HTTPStatus.NOT_FOUND:
            raise NotThereError(f"{self._named} does not know what it was asked for: {_words(response)}.")
        if status in _BUSY:
            kind = LabelStudioError if method in _HARMLESS else UncertainError
            raise kind(f"{self._named} failed ({status}): {_words(response)}. Nothing is lost: the next run goes on.")
        raise LabelStudioError(f"{self._named} refused a request ({status}): {_words(response)}.")

    def _json(self, response: requests.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise LabelStudioError(
                f"{self._named} answers, but not as Label Studio does: set labeling.label_studio.url to its address."
            ) from error

    @property
    def _named(self) -> str:
        return f"Label Studio at {without_secrets(self.url)}"


def _words(response: requests.Response) -> str:
    """Return what a refusal says, where it says it as Label Studio does: a page of another's is of no use."""
    try:
        said = response.json()
    except ValueError:
        return response.reason or "it gives no reason"
    details = said.get("validation_errors") or said.get("detail") if isinstance(said, dict) else said
    return str(details or said)[:_LONGEST]
