"""The body of a request -> JSON that nothing further on can stumble over.

Bounded in size, time and depth; every number is finite, and every text has a UTF-8 spelling. It
does not know what the JSON should say.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from gptoss_mlx.server.problems import Problem

__all__ = ["read_json"]

_MAX_DEPTH = 100
_SECONDS = 60.0  # for all of a body to arrive
_DISCARDED = 8  # times the limit: read on, so that a client that only writes hears of its error
_SURROGATE = re.compile(r"[\ud800-\udfff]")


async def read_json(request: Request, limit: int, seconds: float = _SECONDS) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Problem: it is too large, too slow, or no such thing.
    """
    try:
        async with asyncio.timeout(seconds):
            body = await _bounded(request, limit)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise Problem(400, "the body ends before its end") from None
    return parse(body)


async def _bounded(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if size > _DISCARDED * limit:
            break
    if size > limit:
        raise Problem(413, f"the body is larger than {limit:,} bytes", code="request_too_large")
    return b"".join(chunks)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes.

    Raises:
        Problem: they are not UTF-8, not JSON, no object, nested too deeply, or hold a number that
            is none.
    """
    try:
        value: object = json.loads(
            body.decode("utf-8-sig"), parse_constant=_refuse, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _bad("it is nested too deeply") from None
    except ValueError as error:
        raise _bad(str(error)) from None
    if not isinstance(value, dict):
        raise _bad("it must be a JSON object")
    return cast("dict[str, Any]", _checked(cast("object", value), 0))


def _checked(value: object, depth: int) -> object:
    """The same, half surrogate pairs replaced."""
    if depth > _MAX_DEPTH:
        raise _bad(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_checked(item, depth + 1) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {_SURROGATE.sub("\ufffd", k): _checked(v, depth + 1) for k, v in items}
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text[:20]} is no number that JSON has")


def _bad(reason: str) -> Problem:
    return Problem(400, f"the body cannot be read: {reason}", code="invalid_json")
