"""Dagster's webserver behind the guard: `python -m dlassets.web.dagster_webserver` is that `dagster-webserver`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import graphql
from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from dlassets.settings import load_settings
from dlassets.web.guard import Guard


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Refuses what the guard does, and changes nothing for a GET: browsers send one wherever a page has a picture."""

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(Guard, addresses=load_settings().ui.of_dagster), *super().build_middleware()]

    async def execute_graphql_request(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        if request.method == "GET" and _may_change(query, operation_name):
            raise HTTPException(
                HTTPStatus.METHOD_NOT_ALLOWED, "A GraphQL mutation is taken by POST alone.", {"Allow": "POST"}
            )
        return await super().execute_graphql_request(request, query, variables, operation_name)


def _may_change(query: str, operation_name: str | None) -> bool:
    try:
        operation = graphql.get_operation_ast(graphql.parse(query), operation_name)
    except graphql.GraphQLError:
        return False  # it is said what is wrong with it, and nothing is done
    return operation is not None and operation.operation is not graphql.OperationType.QUERY


if __name__ == "__main__":
    # There is no option that would add to it.
    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    cli.main()  # type: ignore[no-untyped-call]
