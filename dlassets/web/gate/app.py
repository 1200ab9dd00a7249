"""The gate's application: it logs people in, and tells the proxy of each request who makes it and whether they may."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dlassets.errors import DlassetsError, SettingsError
from dlassets.labeling.label_studio.own import address_of
from dlassets.masking import masked
from dlassets.settings import AccessSettings, MlflowAccount, Settings
from dlassets.storage.lake import Lake
from dlassets.web import guard
from dlassets.web.gate import policy
from dlassets.web.gate.cookies import Cookies
from dlassets.web.gate.doorkeeper import Doorkeeper, WaitError
from dlassets.web.gate.label_studio import logged_in
from dlassets.web.gate.oidc import Provider, RefusedLoginError
from dlassets.web.identity import Visitor, is_by_the_proxy
from dlassets.web.pages.app import Safe
from dlassets.web.pages.rendering import icon, style

LABEL_STUDIO_PATH = "/label-studio/"
# Of a log-in at a provider, which a person begins here and ends there.
_LOGIN_SECONDS = 900
_LONGEST_FORM = 10_000
_WRONG = "The name or the password is wrong."


@dataclass(frozen=True)
class _Asked:
    """A request as the proxy has it: for which server, and its method and address."""

    part: str
    method: str
    address: str


def create_app(settings: Settings) -> Starlette:
    """Return the gate. Raises SettingsError where a setting lacks that it needs."""
    gate = Gate(settings)

    @asynccontextmanager
    async def lives(_: Starlette) -> AsyncIterator[None]:
        await gate.check()
        yield

    return Starlette(
        routes=[
            Route("/check", gate.answer),
            Route("/gate/", gate.me),
            Route("/gate/login", gate.login, methods=["GET", "POST"]),
            Route("/gate/logout", gate.logout, methods=["POST"]),
            Route("/gate/label-studio", gate.to_label_studio),
            Route("/gate/oidc/login", gate.to_the_provider),
            Route("/gate/oidc/callback", gate.from_the_provider),
            Route("/gate/style.css", style),
            Route("/gate/icon.svg", icon),
            Route("/gate/health", _health),
            Route("/health", _health),
        ],
        middleware=[
            Middleware(Safe),
            # What Authlib knows of a log-in until the person is back.
            Middleware(
                SessionMiddleware,
                secret_key=f"{gate.access.cookie_secret} of log-ins under way",
                session_cookie="dlassets_login",
                path="/gate/oidc/",
                max_age=_LOGIN_SECONDS,
                same_site="lax",
                https_only=gate.url.startswith("https://"),
            ),
        ],
        exception_handlers={DlassetsError: gate.failed},
        lifespan=lives,
    )


class Gate:
    def __init__(self, settings: Settings) -> None:
        self.access = settings.access
        self.url, self._cookie_secret, self._proxy_secret = _required(settings.access)
        self._label_studio, self._lake = settings.labeling.label_studio, Lake.at(settings.root)
        self._hosts = guard.hosts_of([self.url])
        self._cookies = Cookies(self.access, self._cookie_secret)
        self._keeper = Doorkeeper(self.access, self._cookies)
        self._provider = _provider(self.access, self.url)
        self._templates = Environment(
            loader=PackageLoader("dlassets.web.gate"), autoescape=True, undefined=StrictUndefined
        )

    async def check(self) -> None:
        """Raise DlassetsError where nobody could log in."""
        self._keeper.check()
        if self._provider is not None:
            await self._provider.check()

    async def answer(self, request: Request) -> Response:
        """Say whether the proxy may hand a request on, and as whose: 200 with headers, or what its sender is told."""
        headers = request.headers
        if not is_by_the_proxy(headers, self._proxy_secret):
            return PlainTextResponse("The proxy alone is told, by access.proxy_secret.\n", HTTPStatus.FORBIDDEN)
        asked = _Asked(
            *(headers.get(name, "") for name in (policy.PART_HEADER, "X-Forwarded-Method", "X-Forwarded-Uri"))
        )
        if refused := guard.refusal(asked.method, headers, self._hosts):
            return self._refused(request, refused.status, refused.reason)
        try:
            visitor = await self._visitor(request)
        except WaitError as error:
            return _wait(error)
        if visitor is None:
            return self._asked_to_log_in(request, asked.method, asked.address)
        return self._answer_to(request, asked, visitor)

    def _answer_to(self, request: Request, asked: _Asked, visitor: Visitor) -> Response:
        if reason := policy.refusal(asked.part, asked.method, asked.address.partition("?")[0], visitor.roles):
            return self._refused(request, HTTPStatus.FORBIDDEN, reason)
        if asked.part == policy.LABEL_STUDIO and not self._cookies.is_at_label_studio(request.cookies):
            return self._sent_to_label_studio(request, asked)
        return Response(headers={**visitor.headers, **self._known_as(asked.part, visitor)})

    async def me(self, request: Request) -> Response:
        """Say who asks: a page for people, JSON for programs."""
        try:
            visitor = await self._visitor(request)
        except WaitError as error:
            return _wait(error)
        if visitor is None:
            return self._asked_to_log_in(request, "GET", "/gate/")
        if not _is_page(request):
            return JSONResponse({"name": visitor.name, "roles": sorted(visitor.roles)})
        return self._page("me.html", title="You", visitor=visitor, does=policy.DOES)

    async def login(self, request: Request) -> Response:
        """Show the form, or take it. Its page is of this origin alone, or a stranger could log somebody in."""
        if refused := guard.refusal(request.method, request.headers, self._hosts):
            return self._refused(request, refused.status, refused.reason)
        if request.method == "GET":
            return self._login_page(_own_path(request.query_params.get("next", "/")))
        if int(request.headers.get("content-length") or _LONGEST_FORM + 1) > _LONGEST_FORM:
            return PlainTextResponse(
                "A form with a name and a password is shorter.\n", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
        form = await request.form()
        name, password, then = (str(form.get(field, "")) for field in ("name", "password", "next"))
        try:
            session = await asyncio.to_thread(self._keeper.log_in, name, password, _address(request))
        except WaitError as error:
            return _wait(error)
        if session is None or self.access.login != "basic":
            return self._login_page(_own_path(then), _WRONG, HTTPStatus.UNAUTHORIZED)
        return _sent_on(_own_path(then), self._cookies.write(session))

    async def logout(self, request: Request) -> Response:
        if refused := guard.refusal(request.method, request.headers, self._hosts):
            return self._refused(request, refused.status, refused.reason)
        return _sent_on("/gate/login", self._cookies.end(self._cookies.read(request.cookies)))

    async def to_the_provider(self, request: Request) -> Response:
        if self._provider is None:
            return RedirectResponse("/gate/login", HTTPStatus.SEE_OTHER)
        return await self._provider.sent_there(request, _own_path(request.query_params.get("next", "/")))

    async def from_the_provider(self, request: Request) -> Response:
        if self._provider is None:
            return RedirectResponse("/gate/login", HTTPStatus.SEE_OTHER)
        try:
            session, then = await self._provider.came_back(request)
        except RefusedLoginError as error:
            return self._login_page("/", str(error), HTTPStatus.FORBIDDEN)
        return _sent_on(_own_path(then), self._cookies.write(session))

    async def to_label_studio(self, request: Request) -> Response:
        """Log a person in at Label Studio, and send them there."""
        session, visitor = self._cookies.read(request.cookies), self._keeper.by_cookie(request.cookies)
        if session is None or visitor is None:
            return self._asked_to_log_in(request, "GET", LABEL_STUDIO_PATH)
        if reason := policy.refusal(policy.LABEL_STUDIO, "GET", LABEL_STUDIO_PATH, visitor.roles):
            return self._refused(request, HTTPStatus.FORBIDDEN, reason)
        server = address_of(self._label_studio, self._lake)
        there = await logged_in(server, visitor.name, self._cookie_secret)
        answer = RedirectResponse(_own_path(request.query_params.get("next", LABEL_STUDIO_PATH)), HTTPStatus.SEE_OTHER)
        for header in self._cookies.write_label_studio(session, there):
            answer.headers.append("Set-Cookie", header)
        return answer

    async def failed(self, request: Request, error: Exception) -> Response:
        return self._refused(request, HTTPStatus.SERVICE_UNAVAILABLE, masked(str(error)))

    async def _visitor(self, request: Request) -> Visitor | None:
        """Return who asks. Raises WaitError and DlassetsError."""
        if header := request.headers.get("authorization"):
            visitor = await asyncio.to_thread(self._keeper.by_authorization, header, _address(request))
            if visitor is not None:
                return visitor
        return self._keeper.by_cookie(request.cookies)

    def _known_as(self, part: str, visitor: Visitor) -> Mapping[str, str]:
        """Return who MLflow is to know them as: an account of its own that may what they may."""
        if part != policy.MLFLOW:
            return {}
        writes = visitor.roles & {"operator", "approver"}
        account = self.access.mlflow_writer if writes else self.access.mlflow_reader
        return {"Authorization": _basic(account)} if account else {}

    def _asked_to_log_in(self, request: Request, method: str, address: str) -> Response:
        if method in {"GET", "HEAD"} and _is_page(request):
            return RedirectResponse(f"/gate/login?next={quote(_own_path(address), safe='')}", HTTPStatus.SEE_OTHER)
        # A browser that is challenged would ask with a window of its own.
        headers = {} if "sec-fetch-mode" in request.headers else {"WWW-Authenticate": 'Basic realm="dlassets"'}
        text = (
            f"Log in: {self.url}/gate/login. Programs send a name and password (HTTP Basic), or a token of "
            "`dlassets users token` as `Authorization: Bearer …`.\n"
        )
        return PlainTextResponse(text, HTTPStatus.UNAUTHORIZED, headers)

    def _sent_to_label_studio(self, request: Request, asked: _Asked) -> Response:
        if asked.method == "GET" and _is_page(request):
            there = quote(_own_path(asked.address), safe="")
            return RedirectResponse(f"/gate/label-studio?next={there}", HTTPStatus.SEE_OTHER)
        text = f"Open {self.url}{LABEL_STUDIO_PATH} in a browser: it is by pages that people are logged in there.\n"
        return PlainTextResponse(text, HTTPStatus.UNAUTHORIZED)

    def _refused(self, request: Request, status: HTTPStatus, reason: str) -> Response:
        if _is_page(request):
            return self._page("refused.html", status, title=status.phrase, message=reason)
        return PlainTextResponse(f"{reason}\n", status)

    def _login_page(self, then: str, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        is_basic = self.access.login == "basic"
        return self._page("login.html", status, title="Log in", next=then, problem=problem, is_basic=is_basic)

    def _page(self, name: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(name).render(values), status)


def _required(access: AccessSettings) -> tuple[str, str, str]:
    """Return what no gate can do without. Raises SettingsError naming all that is missing."""
    wanted = {
        "access.url": access.url,
        "access.cookie_secret": access.cookie_secret,
        "access.proxy_secret": access.proxy_secret,
        **({"access.users_file": access.users_file} if access.login == "basic" else {}),
    }
    if missing := [name for name, value in wanted.items() if value is None]:
        raise SettingsError(
            f"The gate needs {', '.join(missing)}. A secret is 32 characters or more, such as `openssl rand -hex 32` "
            "writes, in a variable or in a file: DLASSETS_ACCESS__COOKIE_SECRET__FILE=/run/secrets/cookie. See "
            "docs/access.md."
        )
    return str(access.url), str(access.cookie_secret), str(access.proxy_secret)


def _provider(access: AccessSettings, url: str) -> Provider | None:
    return Provider(access.oidc, url) if access.login == "oidc" and access.oidc else None


def _own_path(address: str) -> str:
    """Return a path of this server, as it was given where it is one: no other server's address, and no line break."""
    parts = urlsplit(address) if address.isprintable() else None
    is_path = address.startswith("/") and not address.startswith("//") and "\\" not in address
    return address if parts and is_path and not parts.netloc and not parts.scheme else "/"


def _is_page(request: Request) -> bool:
    """Whether a person looks at what is answered. A page's own requests, and programs, ask for no HTML first."""
    mode = request.headers.get("sec-fetch-mode", "navigate")
    return mode == "navigate" and "text/html" in request.headers.get("accept", "")


def _address(request: Request) -> str:
    """Return where a request comes from, by the last proxy's word, which is ours."""
    return request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()


def _sent_on(path: str, cookie: str) -> Response:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, {"Set-Cookie": cookie})


def _wait(error: WaitError) -> Response:
    text = f"Too many wrong passwords: try again in {error.seconds} s.\n"
    return PlainTextResponse(text, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(error.seconds)})


def _basic(account: MlflowAccount) -> str:
    return "Basic " + base64.b64encode(f"{account.user}:{account.password}".encode()).decode()


def _health(_: Request) -> Response:
    return PlainTextResponse("OK")
