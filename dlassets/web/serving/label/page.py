"""The page's files, and what they ask: which photo is next, the photo itself, and that answers be kept."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dlassets.errors import DlassetsError
from dlassets.images.digest import image_id_of
from dlassets.labeling.page_answers import Given, UnwrittenError
from dlassets.monitoring.views.open_requests import OpenRequest
from dlassets.settings import Settings
from dlassets.web.identity import visitor_of
from dlassets.web.pages.pictures import smaller
from dlassets.web.pages.rendering import icon, style
from dlassets.web.serving.bodies import Bodies
from dlassets.web.serving.label.queue import Dealt, Hand, Queue
from dlassets.web.serving.page import POLICY, file_answer
from dlassets.web.serving.refusals import RefusedError, later

PAGE = "/label/"
_KINDS = {"label.css": "text/css", "label.js": "text/javascript"}
# What is asked without a token: the page has nobody's photos or names in it.
FILES = ("/label", PAGE, *(PAGE + name for name in (*_KINDS, "style.css", "icon.svg", "who")))

LONGEST_SIDE = 1600
_MOST_BYTES = 2**18
_MOST_HELD, _MOST_ANSWERS = 500, 200
_LONGEST_SECONDS = 3600.0


def _is_a_name(text: str) -> str:
    name = " ".join(text.split())
    if not name or not name.isprintable():
        raise ValueError("it is empty, or has characters that cannot be seen")
    return name


# People type 60 at most; the name of a log-in may be a long address.
Name = Annotated[str, Field(max_length=200), AfterValidator(_is_a_name)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RequestId = Annotated[str, Field(min_length=1, max_length=200)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Next(_Sent):
    """What is asked: `classes` is the digest of those that the browser has."""

    person: Name
    browser: Id
    holds: Annotated[list[RequestId], Field(max_length=_MOST_HELD)] = []
    most: int = Field(ge=0, le=20)
    classes: str = ""


class _Answers(_Sent):
    browser: Id
    answers: Annotated[list[Any], Field(max_length=_MOST_ANSWERS)]


class _Answer(_Sent):
    id: Id
    request_id: RequestId
    person: Name
    act: Literal["answered", "skipped", "taken_back"]
    label: int | None = None
    seconds: float | None = None

    @property
    def given(self) -> Given:
        seconds = self.seconds if self.seconds is not None and math.isfinite(self.seconds) else None
        if seconds is not None:
            seconds = min(max(0.0, seconds), _LONGEST_SECONDS)
        label = self.label if self.act == "answered" else None
        return Given(self.id, self.request_id, self.person, self.act, label, seconds)


def routes(settings: Settings) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    _files(router)
    queue, bodies = Queue(settings), Bodies(settings.serving)

    async def sent(request: Request, kind: type[_Sent]) -> Any:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
        try:
            return kind.model_validate_json(await bodies.read(request, _MOST_BYTES))
        except ValidationError as error:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, _first(error)) from error

    @router.post("/label/next", response_model=None)
    async def next_(request: Request) -> Response:
        asked: _Next = await sent(request, _Next)
        hand = Hand(_known(request) or asked.person, asked.browser, asked.holds)
        dealt, classes = await _told(lambda: (queue.deal(hand, asked.most), queue.classes))
        return _json({**_dealt(dealt, classes), **_classes(classes, asked.classes)})

    @router.post("/label/answers", response_model=None)
    async def answers(request: Request) -> Response:
        """Keep answers: of each that cannot be kept, `problems` says why in its place, and of the others null."""
        asked: _Answers = await sent(request, _Answers)
        read = [_read(one, _known(request)) for one in asked.answers]
        given = [one for one in read if isinstance(one, Given)]
        found, progress = await _told(lambda: queue.take(asked.browser, given))
        of_given = iter(found)
        problems = [next(of_given) if isinstance(one, Given) else one for one in read]
        return _json({"problems": problems, "progress": asdict(progress) if progress else None})

    @router.get("/label/who", response_model=None)
    async def who(request: Request) -> Response:
        """Say as whom a person has logged in; null where they say it themselves."""
        return _json({"name": _known(request)})

    @router.get("/label/photo/{request_id}", response_model=None)
    async def photo(request_id: str) -> Response:
        data = await _told(lambda: queue.photo(request_id))
        if data is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such request, or its photo is gone.")
        return Response(await asyncio.to_thread(smaller, data, LONGEST_SIDE), media_type="image/jpeg")

    return router


def _files(router: APIRouter) -> None:
    here = __package__
    page = file_answer(here, "label.html", "text/html")

    @router.get(PAGE, response_model=None)
    def label(request: Request) -> Response:
        answer = page(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    @router.get(PAGE.rstrip("/"), response_model=None)
    def there() -> Response:
        return RedirectResponse(PAGE.lstrip("/"))  # from where it is: a proxy may have it below a path

    for name, kind in _KINDS.items():
        router.add_api_route(PAGE + name, file_answer(here, name, kind), response_model=None)
    router.add_api_route(f"{PAGE}style.css", style, response_model=None)
    router.add_api_route(f"{PAGE}icon.svg", icon, response_model=None)


async def _told(ask: Any) -> Any:
    """Return what a thread finds. Raises RefusedError where the lake or the disk does not let it."""
    try:
        return await asyncio.to_thread(ask)
    except UnwrittenError as error:
        status = HTTPStatus.INSUFFICIENT_STORAGE if error.is_full else HTTPStatus.SERVICE_UNAVAILABLE
        raise later(status, f"{error} They are kept in this browser, and sent again.", 5) from error
    except DlassetsError as error:
        raise later(HTTPStatus.SERVICE_UNAVAILABLE, str(error), 5) from error


def _known(request: Request) -> str | None:
    """Return the name that a person has logged in by; None where nobody need."""
    visitor = visitor_of(request.scope)
    return visitor.name if visitor else None


def _read(sent: Any, known: str | None) -> Given | str:
    """Return an answer, or what is wrong with it: to be another's than of who has logged in, say."""
    try:
        given = _Answer.model_validate(sent).given
    except ValidationError as error:
        return _first(error)
    if known not in (None, given.annotator):
        return f"It is of {given.annotator}, and {known} has logged in."
    return given


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _dealt(dealt: Dealt, classes: Mapping[int, str]) -> Mapping[str, Any]:
    return {
        "photos": [_shown(request, classes) for request in dealt.new],
        "kept": dealt.kept,
        "progress": asdict(dealt.progress),
    }


def _shown(request: OpenRequest, classes: Mapping[int, str]) -> Mapping[str, Any]:
    """Return what a person sees of a request; the guess of a class that there is no more is none."""
    guess = request.predicted_label if request.predicted_label in classes else None
    return {"id": request.request_id, "path": request.path, "guess": guess, "confidence": request.confidence}


def _classes(classes: Mapping[int, str], known: str) -> Mapping[str, Any]:
    """Return the classes in the order of their numbers, and their digest; nothing where the browser knows them."""
    listed = [[label, name] for label, name in sorted(classes.items())]
    digest = image_id_of(json.dumps(listed).encode())[:16]
    return {} if digest == known else {"classes": {"digest": digest, "all": listed}}


def _json(tree: Any) -> Response:
    return Response(json.dumps(tree), media_type="application/json")
