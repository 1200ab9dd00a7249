"""The application: which forms of requests there are, who may ask, and what everybody is told of the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dlassets import __version__
from dlassets.images.decode import ImageError
from dlassets.labeling.label_studio.hints import PATH as HINTS
from dlassets.scoring.online import Form, Listener
from dlassets.settings import Settings
from dlassets.web.serving import answers, documented, forms, page
from dlassets.web.serving.answer_hints import hint_router
from dlassets.web.serving.asked import asked_of
from dlassets.web.serving.guarded import HANDLERS, middleware
from dlassets.web.serving.label import page as label
from dlassets.web.serving.metrics import CONTENT_TYPE
from dlassets.web.serving.refusals import RefusedError
from dlassets.web.serving.service import Service
from dlassets.web.serving.webhooks import PATH as WEBHOOKS
from dlassets.web.serving.webhooks import webhook_router

# What is asked without a token: whether the service is up, what it is, and its page, on which a person gives one.
_OPEN = {
    *("/", "/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready", "/openapi.json"),
    *(*page.FILES, *label.FILES, WEBHOOKS, HINTS),  # webhooks bring a signature, or a key of their own
}
# JSON that takes longer to read than a request may hold up the others is read by a thread.
_LONG = 2**18
_V2_LENGTH = "Inference-Header-Content-Length"


def create_app(settings: Settings, listeners: Sequence[Listener] = ()) -> FastAPI:
    """Return the service. Each listener is given what was answered, before the answer is sent: see `Listener`.

    `app.state.service.life.look_now()` has it ask MLflow at once who is champion.
    """
    service = Service(settings, listeners)

    @asynccontextmanager
    async def lives(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="dlassets serve",
        version=__version__,
        summary=f"Asks the champion of {settings.registry.model_name} about photos.",
        docs_url=None,  # their pages would be fetched from elsewhere
        redoc_url=None,
        lifespan=lives,
        middleware=middleware(settings, service.metrics, _OPEN),
        exception_handlers=HANDLERS,
    )
    app.state.service = service
    app.include_router(_routes(service))
    app.include_router(page.routes(service))
    app.include_router(label.routes(settings))
    app.include_router(hint_router(settings))

    async def then_looks() -> AsyncIterator[None]:
        yield  # what is refused raises here
        service.life.look_now()

    app.include_router(webhook_router(settings), dependencies=[Depends(then_looks)])
    return app


def _routes(service: Service) -> APIRouter:
    router = APIRouter()
    for each in (_predict, _invocations, _v2, _state):
        each(router, service)
    return router


def _predict(router: APIRouter, service: Service) -> None:
    @router.post("/predict", response_model=None, **documented.PREDICT)
    async def predict(request: Request) -> Response:
        """Ask about a photo as it is, or about several in a form or as base64 in JSON.

        A photo alone that does not decode is refused with 422; beside others it has an `error` in place of an answer.
        """
        kind = _kind_of(request)
        asked = asked_of(request.scope)
        if kind == "application/json":
            files = await _parsed(forms.from_json, await _body(service, request, "json"))
        elif kind == "multipart/form-data":
            body = await _body(service, request, "multipart")
            files = await forms.from_multipart(body, request.headers, service.settings.serving.max_images)
        elif kind.startswith("image/") or kind == "application/octet-stream":
            form: Form = "page" if page.ASKED_BY in request.headers else "raw"
            body = await _body(service, request, form)
            (answer,) = await service.answer(asked, [body])
            return answers.one(asked, _decoded(answer))
        else:
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is {kind or 'missing'}: send a photo as image/… or application/octet-stream, files as "
                "multipart/form-data, or base64 in application/json.",
            )
        found = await service.answer(asked, files)
        if len(found) == 1:
            _decoded(found[0])
        return answers.many(asked, found)


def _invocations(router: APIRouter, service: Service) -> None:
    @router.post("/invocations", response_model=None, **documented.INVOCATIONS)
    async def invocations(request: Request) -> Response:
        """Ask as MLflow's scoring server is asked: base64 in a column `content`, and rows with `error` come back."""
        if (kind := _kind_of(request)) != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {kind}: send application/json.")
        files = await _parsed(forms.from_invocations, await _body(service, request, "invocations"))
        return answers.as_mlflow(await service.answer(asked_of(request.scope), files))


def _v2(router: APIRouter, service: Service) -> None:
    versions = "/v2/models/{name}/versions/{version}"
    absent: dict[str, Any] = {
        "response_model": None,
        "responses": documented.refusals(503) | {404: documented.INFER["responses"][404]},
    }

    def champion(request: Request) -> tuple[str, int]:
        """Return the name and version that answers. Raises RefusedError where the request names another."""
        model = service.champion().model
        asked = request.path_params
        if asked["name"] != model.name or asked.get("version", str(model.version)) != str(model.version):
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{model.name}, version {model.version}, is what answers here.")
        return model.name, model.version

    @router.get("/v2", response_model=None)
    async def server() -> Response:
        """Say which server it is."""
        return _json({"name": "dlassets", "version": __version__, "extensions": ["binary_tensor_data"]})

    @router.get("/v2/models/{name}", **absent)
    @router.get(versions, **absent)
    async def model(request: Request, name: str, version: str = "") -> Response:  # noqa: ARG001 - for OpenAPI
        """Say what the model takes and gives."""
        return _json(answers.v2_model(*champion(request)))

    @router.get("/v2/models/{name}/ready", **absent)
    @router.get(f"{versions}/ready", **absent)
    async def is_ready(request: Request, name: str, version: str = "") -> Response:  # noqa: ARG001 - for OpenAPI
        """Say whether the model answers."""
        champion(request)
        return _json({"ready": True})

    @router.post("/v2/models/{name}/infer", response_model=None, **documented.INFER)
    @router.post(f"{versions}/infer", response_model=None, **documented.INFER)
    async def infer(request: Request, name: str, version: str = "") -> Response:  # noqa: ARG001 - for OpenAPI
        """Ask as the V2 protocol does: base64 in a tensor `content` of BYTES, or its elements behind the JSON."""
        champion(request)
        body = await _body(service, request, "v2")
        length = request.headers.get(_V2_LENGTH)
        files, given_id = await _parsed(lambda whole: forms.from_v2(whole, length), body)
        asked = asked_of(request.scope)
        return answers.as_v2(asked, await service.answer(asked, files), given_id)


def _state(router: APIRouter, service: Service) -> None:
    @router.get("/health", response_model=None)
    @router.get("/ping", response_model=None)
    @router.get("/v2/health/live", response_model=None)
    async def health() -> Response:
        """Say that the server is up, whether or not it has a model."""
        return PlainTextResponse("OK")

    @router.get("/ready", response_model=None, responses=documented.refusals(503))
    @router.get("/v2/health/ready", response_model=None, responses=documented.refusals(503))
    async def ready() -> Response:
        """Say which model answers; 503, and why, while none does."""
        life = service.life
        models = [str(loaded.model) for loaded in life.models]
        told = {"ready": bool(models), "models": models, **({"error": life.problem} if life.problem else {})}
        return _json(told, HTTPStatus.OK if models else HTTPStatus.SERVICE_UNAVAILABLE)

    @router.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Say how much was asked and how long it took, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _body(service: Service, request: Request, form: Form) -> bytes:
    """Return a request's body, unless nothing could be made of it now. Raises RefusedError."""
    asked_of(request.scope).form = form
    service.champion()
    service.workers.check()
    return await service.bodies.read(request)


async def _parsed(parse: Any, body: bytes) -> Any:
    return await asyncio.to_thread(parse, body) if len(body) > _LONG else parse(body)


def _decoded(answer: answers.Answered) -> Any:
    if isinstance(answer, ImageError):
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(answer))
    return answer


def _kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _json(tree: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(tree), status, media_type="application/json")
