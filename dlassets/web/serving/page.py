"""The page on which a person drops a photo and sees the answer: its files, and what a browser may do with them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dlassets.web.pages.rendering import icon, style

if TYPE_CHECKING:
    from dlassets.web.serving.service import Service

# The header that tells the page's requests from those of programs.
ASKED_BY = "X-Dlassets-Page"
FILES = ("/style.css", "/try.css", "/try.js", "/favicon.ico")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def routes(service: Service) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    environment = Environment(
        loader=PackageLoader("dlassets.web.serving", ""), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("try.html")
    settings = service.settings

    @router.get("/", response_model=None)
    async def try_it() -> Response:
        champion = service.life.champion
        name = settings.registry.model_name
        shown = template.render(
            model=champion.model if champion else None,
            name=name,
            problem=service.life.problem,
            needs_token=settings.serving.token is not None and settings.access.proxy_secret is None,
            ui=settings.ui,
            of_versions=f"{settings.ui.mlflow}/#/models/{quote(name, safe='')}/versions/",
            max_bytes=settings.serving.max_bytes,
        )
        return HTMLResponse(shown, headers={"Content-Security-Policy": POLICY})

    for path, answer in (("/style.css", style), ("/favicon.ico", icon)):
        router.add_api_route(path, answer, response_model=None)
    here = "dlassets.web.serving"
    router.add_api_route("/try.css", file_answer(here, "try.css", "text/css"), response_model=None)
    router.add_api_route("/try.js", file_answer(here, "try.js", "text/javascript"), response_model=None)
    return router


def file_answer(package: str, name: str, media_type: str) -> Callable[[Request], Response]:
    """Return what answers with a file of a package."""
    content = files(package).joinpath(name).read_bytes()

    def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "max-age=60"})

    return answer
