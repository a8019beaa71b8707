"""The routes that are no API of their own: health, metrics, the document, and the one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gptoss_mlx.server.context import Context
from gptoss_mlx.server.metrics import CONTENT_TYPE, Metrics
from gptoss_mlx.server.openapi import Operation
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.server.sse import as_json

__all__ = ["OPERATIONS", "routes"]

_MODEL = ("id", "object", "created", "owned_by")
OPERATIONS = (
    Operation(
        "GET",
        "/health",
        "Whether a request would be served now, and why not.",
        returns=("status", "running", "waiting"),
        is_open=True,
        statuses=(200, 503),
    ),
    Operation("GET", "/metrics", "Figures for Prometheus.", media_type="text/plain"),
    Operation("GET", "/openapi.json", "This document.", returns=("openapi", "info", "paths")),
    Operation("GET", "/v1/models", "The one model there is.", returns=("object", "data")),
    Operation("GET", "/v1/models/{name:path}", "The same alone.", returns=_MODEL),
)


def routes(context: Context, metrics: Metrics, document: Mapping[str, Any]) -> list[Route]:
    """These routes; `document` describes all there are."""
    host, settings = context.host, context.settings

    async def health(_: Request) -> Response:
        now = host.health
        found = {"status": now.status, "running": now.running, "waiting": now.waiting}
        if now.problem is not None:
            found["problem"] = now.problem
        return _json(found, 200 if now.is_ready else 503)

    async def figures(_: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def described(_: Request) -> Response:
        return _json(document)

    async def models(_: Request) -> Response:
        return _json({"object": "list", "data": [_described(settings)]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name != settings.model:
            message = f"there is no model {name[:100]!r}: this server has {settings.model}"
            raise Problem(404, message, param="model", code="model_not_found")
        return _json(_described(settings))

    handlers = (health, figures, described, models, model)
    return [
        Route(operation.path, handler, methods=[operation.method])
        for operation, handler in zip(OPERATIONS, handlers, strict=True)
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
