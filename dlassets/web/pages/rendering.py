"""How answers become HTML: templates that escape whatever they are given, and how times and numbers are shown."""

from __future__ import annotations

import datetime as dt
import functools
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dlassets.images.data_uri import data_uri
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

_UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"))


class Templates:
    """The templates beside this module, with what each of them may use."""

    def __init__(self, settings: Settings) -> None:
        self._environment = Environment(
            loader=PackageLoader("dlassets.web.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            date=_date,
            data_uri=data_uri,
            file_name=_file_name,
            moment=_moment,
            percent=_percent,
            number=_number,
            points=_points,
            span=_span,
        )
        self._environment.globals.update(
            link=functools.partial(link, urlsplit(settings.ui.pages).path.rstrip("/")),
            ui=settings.ui,
            root=Lake.at(settings.root).root,
            gate=settings.access.url,
        )

    def page(self, name: str, code: int = HTTPStatus.OK, /, **values: Any) -> Response:
        return HTMLResponse(self._environment.get_template(name).render(values), code)


def link(prefix: str, page: str, /, **asked: str | int | None) -> str:
    """Return where a page is on this server, below the path that a proxy has it at; what is None is not asked."""
    given = {name: value for name, value in asked.items() if value is not None}
    return f"{prefix}/{quote(page)}{'?' if given else ''}{urlencode(given)}"


def style(_: Request) -> Response:
    return _beside("style.css", "text/css")


def icon(_: Request) -> Response:
    return _beside("icon.svg", "image/svg+xml")


def _beside(name: str, media_type: str) -> Response:
    """Return a file that lies beside this module."""
    content = files("dlassets.web.pages").joinpath(name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": "max-age=60"})


def _percent(share: float) -> str:
    """Return a share as people say it; what is not quite all of it is never called so."""
    return f"{min(share, 0.999) if share < 1 else 1:.1%}"


def _number(count: int) -> str:
    return f"{count:,}"


def _points(share: float) -> str:
    """Return a difference of two shares in percentage points."""
    return f"{100 * share:+.2f}"


def _span(seconds: float) -> str:
    """Return how long something took, in the unit that people would say it in."""
    for unit, name in _UNITS:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} seconds"


def _moment(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _date(day: dt.date) -> str:
    return day.isoformat()


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
