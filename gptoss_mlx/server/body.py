"""The body of a request -> JSON that nothing further on can stumble over.

Bounded in size, time, depth and number of pieces; every number is finite, every key is there once,
and every text has a UTF-8 spelling. It does not know what the JSON should say.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from gptoss_mlx.server.problems import Problem

__all__ = ["read_json"]

_MAX_DEPTH = 100
_MAX_PIECES = 1_000_000  # commas and brackets: more take seconds to read, and fit no context
_LARGE = 1 << 20  # bytes that are better read in a thread, so that streams go on
_SECONDS = 60.0  # for all of a body to arrive
_DISCARDED = 8  # times the limit: read on, so that a client that only writes hears of its error
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
# a form is what curl says of anything; those of web pages have an Origin, and were refused before
_MEDIA_TYPE = re.compile(
    r"application/(([\w.-]+\+)?json|x-www-form-urlencoded)\s*(;.*)?", re.IGNORECASE
)


async def read_json(request: Request, limit: int, seconds: float = _SECONDS) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Problem: it is too large, too slow, or no such thing.
    """
    _check_headers(request)
    try:
        async with asyncio.timeout(seconds):
            body = await _bounded(request, limit)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise Problem(400, "the body ends before its end") from None
    return parse(body) if len(body) < _LARGE else await asyncio.to_thread(parse, body)


def _check_headers(request: Request) -> None:
    media_type = request.headers.get("content-type")
    if media_type is not None and not _MEDIA_TYPE.fullmatch(media_type):
        message = f"a body of {media_type[:100]!r} is not read: send application/json"
        raise Problem(415, message, code="unsupported_media_type")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        message = f"a body in {encoding[:100]!r} is not read: send it as it is"
        raise Problem(415, message, code="unsupported_encoding")


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
        Problem: they are not UTF-8, not JSON, no object, nested too deeply, in too many pieces, or
            hold a number that is none, or a key twice.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_PIECES:
        message = f"the body has more than {_MAX_PIECES:,} commas and brackets"
        raise Problem(413, message, code="request_too_large")
    try:
        value: object = json.loads(
            body.decode("utf-8-sig"),
            parse_constant=_refuse,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _bad("it is nested too deeply") from None
    except ValueError as error:
        raise _bad(str(error)) from None
    if not isinstance(value, dict):
        raise _bad("it must be a JSON object")
    _check_depth(cast("object", value))
    if _SURROGATE_ESCAPE.search(body):
        value = _well_formed(cast("object", value))
    return cast("dict[str, Any]", value)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, list | dict)]
        if not level:
            return
    raise _bad(f"it is nested more than {_MAX_DEPTH} levels deep")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value)


def _well_formed(value: object) -> object:
    """The same, half surrogate pairs replaced."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_well_formed(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {_SURROGATE.sub("\ufffd", k): _well_formed(v) for k, v in items}
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in an object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text[:20]} is no number that JSON has")


def _bad(reason: str) -> Problem:
    return Problem(400, f"the body cannot be read: {reason}", code="invalid_json")
