"""The application: every API's routes, and what a request passes on its way to them.

    access log -> Host and Origin -> CORS -> key -> routes

Errors have the shape of the API whose path was called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from gptoss_mlx.errors import GptOssError
from gptoss_mlx.server import about
from gptoss_mlx.server.access import AccessLog
from gptoss_mlx.server.chat_completions import routes as chat_completions
from gptoss_mlx.server.completions import routes as completions
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.guarding import Guard, KeyGuard, problem_response
from gptoss_mlx.server.host import ModelHost
from gptoss_mlx.server.messages import routes as messages
from gptoss_mlx.server.metrics import Metrics
from gptoss_mlx.server.openapi import Operation, document
from gptoss_mlx.server.problems import Problem, problem_of
from gptoss_mlx.server.reply import OpenTools
from gptoss_mlx.server.responses import routes as responses
from gptoss_mlx.server.responses.operations import OPERATIONS as RESPONSES
from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tools import Toolbox

__all__ = ["OPERATIONS", "make_app"]

OPERATIONS: tuple[Operation, ...] = (
    *about.OPERATIONS,
    *chat_completions.OPERATIONS,
    *completions.OPERATIONS,
    *messages.OPERATIONS,
    *RESPONSES,
)


def make_app(
    settings: Settings,
    host: ModelHost,
    open_tools: OpenTools | None = None,
    *,
    store: ResponseStore | None = None,
    seal: Seal | None = None,
) -> Starlette:
    """The server's application.

    Args:
        settings: as the command line has them.
        host: the model; closed when the application ends.
        open_tools: makes the tools of `settings.tools` that one request asks for.
        store: where responses are kept; in memory by default.
        seal: signs what clients keep instead; by default good until the server ends.
    """
    context = Context(settings, host, open_tools or (lambda _: Toolbox()), seal=seal or Seal())
    metrics = Metrics(host)
    described = document(OPERATIONS, needs_key=bool(settings.api_keys))
    routes = [
        *about.routes(context, metrics, described),
        *chat_completions.routes(context),
        *completions.routes(context),
        *messages.routes(context),
        *responses.routes(context, store=store, open_responses=settings.open_responses),
    ]

    def answered(scope: Scope, status: int | None) -> None:
        metrics.answered(scope, routes, status)

    middleware = [Middleware(AccessLog, answered), Middleware(Guard, settings)]
    if settings.origins:
        pages = Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["retry-after", "x-request-id"],
        )
        middleware.append(pages)
    middleware.append(Middleware(KeyGuard, settings))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await host.close()

    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            HTTPException: _on_http_error,
            **dict.fromkeys((Problem, GptOssError, ValidationError, Exception), _on_error),
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # what is not there is an error of the API's
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """No such path, or no such method of it."""
    assert isinstance(error, HTTPException), "it is registered for those"
    messages = {
        404: f"there is nothing at {request.url.path[:200]!r}",
        405: f"{request.method} is not what {request.url.path[:200]!r} takes",
    }
    message = messages.get(error.status_code, error.detail)
    headers = _allowed(request) if error.status_code == 405 else error.headers
    return problem_response(Problem(error.status_code, message, headers=headers), request.url.path)


def _allowed(request: Request) -> dict[str, str]:
    """The methods of a path, which may have several routes; one that is named is no parameter."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    found = [route for route in found if route.path == request.url.path] or found
    return {"allow": ", ".join(sorted({m for route in found for m in route.methods or ()}))}
