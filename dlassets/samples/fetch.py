"""One file over HTTP(S), however the line behaves: resumed where it broke off, retried, verified before it is used.

pooch decides whether a file must come, verifies it and puts it in its place. What it cannot do stands here: going on
where a download broke off.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.masking import learn

if TYPE_CHECKING:
    from dlassets.engines.base import Progress

CHUNK_BYTES = 256 * 2**10
_CHECKSUM = re.compile("(?i)md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")
_NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)
_RANGE_NOT_SATISFIABLE = 416
_TRANSIENT_STATUS = {408, 425, 429, _RANGE_NOT_SATISFIABLE}  # and all of 5xx


class _BrokenOffError(ConnectionError):
    """The server sent something else than it was asked for, or announced."""


def fetch(
    url: str,
    folder: Path,
    *,
    checksum: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    retries: int = 4,
    backoff: float = 1.0,
) -> Path:
    """Return the path in `folder` of what `url` holds; what is there and has the right checksum is not asked for.

    `checksum` is `md5:<hex>` or `sha256:<hex>`. What has come so far lies in `<path>.part`, and the next try or run
    goes on from there if the server can and its file is still the same. After more than `retries` failures in a row
    with nothing gained, `backoff` · 2ⁿ seconds apart, it is given up; `timeout` is how long the line may be silent
    (seconds). `progress` is told the bytes that are here, those of earlier runs included, and the bytes in all.
    Raises DlassetsError for anything that ends without the file.
    """
    import pooch
    from pooch.utils import unique_file_name

    learn(url)
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise DlassetsError(f"{url}: only http:// and https:// can be fetched. For a file, give its path.")
    if checksum is not None and not _CHECKSUM.fullmatch(checksum):
        raise DlassetsError(f"{checksum!r} is no checksum: write md5:<32 hex digits> or sha256:<64 hex digits>.")

    name = unique_file_name(url)  # many URLs end in master.zip

    def download(url: str, place: str, _: object) -> None:
        part = folder / f"{name}.part"
        _receive_with_retries(url, part, timeout, retries, backoff, progress)
        part.replace(place)
        _tag_path(part).unlink(missing_ok=True)

    pooch.get_logger().setLevel(logging.WARNING)  # `progress` is told what its lines would say
    try:
        return Path(pooch.retrieve(url, checksum, name, folder, downloader=download))
    except OSError as error:
        raise DlassetsError(
            f"{url} could not be written to {folder}: {error}. Put that right and run again."
        ) from error
    except ValueError as error:  # what pooch raises for another checksum; it has removed the file
        raise DlassetsError(
            f"{url}: {error} Try again; if it stays so, the file has changed at its source: check what it is before "
            "you use it."
        ) from error


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
                if error.code == _RANGE_NOT_SATISFIABLE:
                    part.unlink(missing_ok=True)
            # Any gain starts the count anew, but gained is what exceeds the most so far: a server that always starts
            # over and always breaks off would otherwise be asked for ever.
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures > retries:
                raise DlassetsError(
                    f"{url} could not be downloaded: {getattr(error, 'reason', None) or error}. Check the address and "
                    f"the connection, then run again: {_size(part):,} bytes are kept and need not come again."
                ) from error
            time.sleep(backoff * 2 ** (failures - 1))


def _receive(url: str, part: Path, timeout: float, progress: Progress | None) -> None:
    """Add to `part` what it lacks. Raises one of _NETWORK_ERRORS, with what came left in `part`.

    Asked for the rest of a file, a server whose file is another by now (If-Range), or that knows no ranges, answers
    with the whole of it.
    """
    tag = _tag_path(part).read_text() if _tag_path(part).exists() else ""
    done = _size(part) if tag else 0
    rest = {"Range": f"bytes={done}-", "If-Range": tag} if done else {}
    request = urllib.request.Request(url, headers={"User-Agent": "dlassets", **rest})  # noqa: S310 (http or https: checked)
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 (as above)
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
            _tag_path(part).write_text(_tag(response))
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _BrokenOffError(f"the server did not send the bytes from {done:,} when asked for them")
        total = None if response.length is None else done + response.length
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection ended after {done:,} of {total:,} bytes")


def _tag(response: http.client.HTTPResponse) -> str:
    """What says that the server's file is still the same; If-Range takes no weak ETag."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
