"""Files that steps have made for people to look at: the reports of a lake, and its contact sheets with their photos.

Nothing else of a lake is served, and nothing that is served runs: people put files beside the contact sheets.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dlassets.settings import Settings
from dlassets.storage.files import open_regular, read_whole
from dlassets.storage.lake import Lake, is_uri

# `allow-same-origin` has them be of this origin still, or the guard would take a page's own pictures for those of a
# foreign page. It lets nothing run, or be sent: that takes words that are not here.
POLICY = "sandbox allow-same-origin; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
# Whatever else lies there (SVG, say, in which scripts may be) is for download.
TYPES = {
    ".html": "text/html",
    ".txt": "text/plain",
    ".csv": "text/plain",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}


def routes(settings: Settings) -> list[Route]:
    lake = Lake.at(settings.root)

    def file(request: Request) -> Response:
        path = request.path_params["path"]
        content = _content(lake, path)
        if content is None:
            raise HTTPException(404, f"There is no {path} among the lake's reports and contact sheets.")
        media_type = TYPES.get(PurePosixPath(path).suffix.lower())
        headers = {"Content-Security-Policy": POLICY}
        if media_type is None:
            headers["Content-Disposition"] = "attachment"
        return Response(content, media_type=media_type or "application/octet-stream", headers=headers)

    return [Route("/files/{path:path}", file)]


def _content(lake: Lake, path: str) -> bytes | None:
    """Return a file's bytes; None where it is not there, or is none of those that are served."""
    served = [lake.within(folder) for folder in (lake.reports, lake.requests)]
    parts = path.split("/")
    # What begins with a dot is `..`, or is still being written.
    if any(not part or part.startswith(".") or "\0" in part for part in parts):
        return None
    if not any(path.startswith(f"{folder}/") for folder in served):
        return None
    try:
        if is_uri(lake.root) and not lake.root.startswith("file://"):
            return read_whole(lake.under(path))
        return _read_confined(Path(lake.root.removeprefix("file://")), parts)
    except (OSError, ValueError):
        return None


def _read_confined(root: Path, parts: list[str]) -> bytes | None:
    """Return the bytes of a file below `root`, on whose way there is no link: one could lead anywhere."""
    file = root.joinpath(*parts)
    if os.path.realpath(file) != str(file):
        return None
    with open_regular(file) as stream:
        return stream.read()
