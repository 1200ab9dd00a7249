"""One file over HTTP(S), however the line behaves: resumed where it broke off, retried, verified before it is used."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from dlassets.errors import DlassetsError

# Told how much is done and how much there is in all: bytes here, photos elsewhere; None where that is not known.
Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 256 * 2**10
_NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)
_TRANSIENT_STATUS = {408, 425, 429}  # and all of 5xx
_RANGE_NOT_SATISFIABLE = 416


class _BrokenOffError(ConnectionError):
    """The server sent less than it announced."""


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    retries: int = 4,
    backoff: float = 1.0,
) -> Path:
    """Download `url` to `target` and return `target`; one that is there and has the right checksum is not asked for.

    `checksum` is `md5:<hex>` or `sha256:<hex>`. What has come so far lies in `<target>.part`, and the next try or run
    goes on from there if the server can and its file is still the same. After more than `retries` failures in a row
    with nothing gained, `backoff` · 2ⁿ seconds apart, it is given up; `timeout` is how long the line may be silent
    (seconds). `progress` is told the bytes that are here, those of earlier runs included, and the bytes in all.
    Raises DlassetsError for anything that ends without the file.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise DlassetsError(f"{url}: only http:// and https:// can be fetched. For a file, give its path.")
    digest = _digest(checksum)
    if target.is_file() and (digest is None or _file_digest(target, digest[0]) == digest[1]):
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive_with_retries(url, part, timeout, retries, backoff, progress)
        found = None if digest is None else _file_digest(part, digest[0])
        if digest is not None and found != digest[1]:
            part.unlink()
            _tag_path(part).unlink(missing_ok=True)
            raise DlassetsError(
                f"{url}: the file that came has {digest[0]} {found}, not {digest[1]}, and was removed. Try again; "
                "if it stays so, the file has changed at its source: check what it is before you use it."
            )
        part.replace(target)
        _tag_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise DlassetsError(
            f"{url} could not be written to {target}: {error}. Put that right and run again."
        ) from error
    return target


def _digest(checksum: str | None) -> tuple[str, str] | None:
    if checksum is None:
        return None
    algorithm, _, value = checksum.partition(":")
    if (
        algorithm not in {"md5", "sha256"}
        or len(value) != hashlib.new(algorithm, usedforsecurity=False).digest_size * 2
    ):
        raise DlassetsError(f"{checksum!r} is no checksum: write md5:<32 hex digits> or sha256:<64 hex digits>.")
    return algorithm, value.lower()


def _file_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _receive_with_retries(
    url: str, part: Path, timeout: float, retries: int, backoff: float, progress: Progress | None
) -> None:
    failures, most = 0, _size(part)
    while True:
        try:
            return _receive(url, part, timeout, progress)
        except _NETWORK_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code < 500 and error.code not in _TRANSIENT_STATUS:  # noqa: PLR2004 (HTTP's own number)
                    raise DlassetsError(
                        f"{url}: the server answered {error.code} {error.reason}. Check the address."
                    ) from error
            # Any gain starts the count anew, but gained is what exceeds the most so far: a server that always starts
            # over and always breaks off would otherwise be asked for ever.
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures > retries:
                raise DlassetsError(
                    f"{url} could not be downloaded: {getattr(error, 'reason', None) or error}. Check the address and "
                    f"the connection, then run again: {most:,} bytes are kept and need not come again."
                ) from error
            time.sleep(backoff * 2 ** (failures - 1))


def _receive(url: str, part: Path, timeout: float, progress: Progress | None) -> None:
    """Add to `part` what it lacks. Raises one of _NETWORK_ERRORS, with what came left in `part`."""
    with _open(url, part, timeout) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = _size(part) if resumed else 0
        total = None if response.length is None else done + response.length
        with part.open("ab" if resumed else "wb") as file:
            if not resumed:
                _tag_path(part).write_text(_tag(response))
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection ended after {done:,} of {total:,} bytes")


def _open(url: str, part: Path, timeout: float) -> http.client.HTTPResponse:
    """Ask for the whole file, or for the rest of it where `part` and the tag of the file it came from are there.

    A server whose file is another by now (If-Range), or that knows no ranges, answers with the whole file.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "dlassets"})  # noqa: S310 (http or https: checked)
    tag = _tag_path(part).read_text() if _tag_path(part).exists() else ""
    offset = _size(part) if tag else 0
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", tag)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310 (as above)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE or not offset:
            raise
        error.close()
        part.unlink()
        return _open(url, part, timeout)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if start != str(offset):
            response.close()
            part.unlink()
            raise _BrokenOffError(
                f"the server sent bytes from {start or 'somewhere'} when asked for those from {offset}"
            )
    return response


def _tag(response: http.client.HTTPResponse) -> str:
    """What says that the server's file is still the same; If-Range takes no weak ETag."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
