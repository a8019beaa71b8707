"""The application: every API's routes, and what a request passes on its way to them.

    access log -> Host and Origin -> CORS -> key -> routes

Errors have the shape of the API whose path was called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gptoss_mlx.errors import GptOssError
from gptoss_mlx.server.access import AccessLog
from gptoss_mlx.server.chat_completions import routes as chat_completions
from gptoss_mlx.server.completions import routes as completions
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.guarding import Guard, KeyGuard, problem_response
from gptoss_mlx.server.host import ModelHost
from gptoss_mlx.server.problems import Problem, problem_of
from gptoss_mlx.server.reply import OpenTools
from gptoss_mlx.server.responses import routes as responses
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.server.sse import as_json
from gptoss_mlx.tools import Toolbox

__all__ = ["make_app"]


def make_app(settings: Settings, host: ModelHost, open_tools: OpenTools | None = None) -> Starlette:
    """The server's application.

    Args:
        settings: as the command line has them.
        host: the model; closed when the application ends.
        open_tools: makes the tools of `settings.tools` that one request asks for.
    """
    context = Context(settings, host, open_tools or (lambda _: Toolbox()))
    middleware = [Middleware(AccessLog), Middleware(Guard, settings)]
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

    return Starlette(
        routes=[
            *_own_routes(context),
            *chat_completions.routes(context),
            *completions.routes(context),
            *responses.routes(context, open_responses=settings.open_responses),
        ],
        middleware=middleware,
        exception_handlers={
            HTTPException: _on_http_error,
            **dict.fromkeys((Problem, GptOssError, ValidationError, Exception), _on_error),
        },
        lifespan=lifespan,
    )


def _own_routes(context: Context) -> list[Route]:
    """What is no API of its own."""
    host, settings = context.host, context.settings

    async def health(_: Request) -> Response:
        """Whether requests would be served, and why not."""
        now = host.health
        found = {"status": now.status, "running": now.running, "waiting": now.waiting}
        if now.problem is not None:
            found["problem"] = now.problem
        return _json(found, 200 if now.is_ready else 503)

    async def models(_: Request) -> Response:
        """The one model there is."""
        return _json({"object": "list", "data": [_described(settings)]})

    async def model(request: Request) -> Response:
        """The same alone."""
        name = request.path_params["name"]
        if name != settings.model:
            message = f"there is no model {name[:100]!r}: this server has {settings.model}"
            raise Problem(404, message, param="model", code="model_not_found")
        return _json(_described(settings))

    return [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def _described(settings: Settings) -> dict[str, Any]:
    return {
        "id": settings.model,
        "object": "model",
        "created": settings.started,
        "owned_by": "gptoss-mlx",
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(as_json(value), status, media_type="application/json")


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
    problem = Problem(error.status_code, message, headers=error.headers)
    return problem_response(problem, request.url.path)
