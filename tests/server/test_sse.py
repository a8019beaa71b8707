"""Events as bytes, and work that ends with its client."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from gptoss_mlx.server.sse import as_json, sse, unless_disconnected


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        ({"a": 1}, None, b'data: {"a":1}\n\n'),
        ({"a": 1}, "some.event", b'event: some.event\ndata: {"a":1}\n\n'),
        ({"a": "x\n\ny\r\u2028"}, None, b'data: {"a":"x\\n\\ny\\r\\u2028"}\n\n'),
    ],
)
def test_events(data: object, name: str | None, expected: bytes) -> None:
    """No text can end an event early."""
    assert sse(data, name) == expected


def test_json_of_anything() -> None:
    """Half a surrogate pair is spelled out; what is no number is no JSON."""
    assert as_json("\ud800ä") == rb'"\ud800\u00e4"'
    with pytest.raises(ValueError, match="JSON compliant"):
        as_json(float("nan"))


async def stays() -> Message:
    """A client that waits for its answer."""
    await asyncio.sleep(60)
    raise AssertionError("the test is over")


async def leaves() -> Message:
    """A client that goes away."""
    await asyncio.sleep(0.01)
    return {"type": "http.disconnect"}


def test_who_stays_gets_the_result() -> None:
    """The watch on the client ends with the work."""

    async def work() -> str:
        return "done"

    assert asyncio.run(unless_disconnected(stays, work)) == "done"


def test_errors_come_as_they_are() -> None:
    """Not in a group of errors."""

    async def work() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        asyncio.run(unless_disconnected(stays, work))


def test_work_ends_with_its_client() -> None:
    """It is cancelled where it waits."""
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(ClientDisconnect):
        asyncio.run(unless_disconnected(leaves, work))
    assert ended == [True]
