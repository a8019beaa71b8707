"""Every route of the application, for tests that hold for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, cast

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route

from gptoss_mlx.server.app import OPERATIONS, make_app
from gptoss_mlx.server.host import ModelHost
from gptoss_mlx.server.settings import Settings

OPENAI = ("message", "type", "param", "code")
__all__ = ["ROUTES", "Called", "message_of", "unloaded"]


@dataclass(frozen=True)
class Called:
    """A method and a path that leads to a route."""

    method: str
    path: str
    body: type[BaseModel] | None  # what it reads

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def unloaded(**settings: object) -> Starlette:
    """An application whose model nothing may need."""

    def load() -> NoReturn:
        raise AssertionError("the model was needed")

    return make_app(Settings("m", **settings), ModelHost(load))  # pyright: ignore[reportArgumentType]


@cache
def _routes() -> tuple[Called, ...]:
    bodies = {(o.method, o.path): o.body for o in OPERATIONS}
    routes = [route for route in unloaded().routes if isinstance(route, Route)]
    return tuple(
        Called(
            method, re.sub(r"{\w+(:\w+)?}", "some", route.path), bodies.get((method, route.path))
        )
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    )


ROUTES = _routes()


def message_of(path: str, body: object) -> str:
    """The message of an error, which must have the shape of the path's API."""
    keys = {"type", "message"} if path.startswith("/v1/messages") else {*OPENAI}
    assert isinstance(body, dict)
    outer = cast("dict[str, Any]", body)
    assert set(outer) == ({"type", "error"} if path.startswith("/v1/messages") else {"error"})
    error = outer["error"]
    assert set(error) == keys
    assert isinstance(error["type"], str)
    assert error["message"]
    return str(error["message"])
