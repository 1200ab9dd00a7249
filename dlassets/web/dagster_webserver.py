"""Dagster's webserver behind the guard: `python -m dlassets.web.dagster_webserver` is that `dagster-webserver`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import dagster as dg
import graphql
from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

from dlassets.registry.events import USER_TAG
from dlassets.settings import load_settings
from dlassets.web.guard import Guard
from dlassets.web.identity import behind_the_proxy, visitor_of

_submit_as_it_is = dg.DagsterInstance.submit_run


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Refuses what the guard does, and changes nothing for a GET: browsers send one wherever a page has a picture."""

    def build_middleware(self) -> list[Middleware]:
        settings = load_settings()
        probed = {"/server_info", f"{self._app_path_prefix}/server_info"}
        return [
            *behind_the_proxy(settings.access, probed),
            Middleware(Guard, addresses=settings.ui.of_dagster),
            *super().build_middleware(),
        ]

    def _make_request_context(self, conn: HTTPConnection) -> Any:
        """Have backfills bear the name of who asks for them, where that is known."""
        context = super()._make_request_context(conn)
        if visitor := visitor_of(conn.scope):
            context.get_viewer_tags = lambda: {USER_TAG: visitor.name}
        return context

    async def execute_graphql_request(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        if request.method == "GET" and _may_change(query, operation_name):
            raise HTTPException(
                HTTPStatus.METHOD_NOT_ALLOWED, "A GraphQL mutation is taken by POST alone.", {"Allow": "POST"}
            )
        return await super().execute_graphql_request(request, query, variables, operation_name)


def _submit_run(instance: dg.DagsterInstance, run_id: str, workspace: Any) -> dg.DagsterRun:
    """Have a run bear the name of who launches it, whatever name came with the request or the run it repeats."""
    source = getattr(workspace, "source", None)
    if isinstance(source, HTTPConnection) and (visitor := visitor_of(source.scope)):
        instance.add_run_tags(run_id, {USER_TAG: visitor.name})
    return _submit_as_it_is(instance, run_id, workspace)


def _may_change(query: str, operation_name: str | None) -> bool:
    try:
        operation = graphql.get_operation_ast(graphql.parse(query), operation_name)
    except graphql.GraphQLError:
        return False  # it is said what is wrong with it, and nothing is done
    return operation is not None and operation.operation is not graphql.OperationType.QUERY


if __name__ == "__main__":
    # There is no option that would add to them.
    dg.DagsterInstance.submit_run = _submit_run  # type: ignore[method-assign, assignment]
    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    cli.main()  # type: ignore[no-untyped-call]
