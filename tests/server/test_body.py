"""Bodies that are not what they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from gptoss_mlx.server.body import parse, read_json
from gptoss_mlx.server.problems import Problem


def request(messages: Sequence[Message]) -> Request:
    """A request whose body comes in these messages, and then no more."""
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("the test is over")

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def chunk(body: bytes, *, more: bool = False) -> Message:
    """A piece of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages: Message, limit: int = 100, seconds: float = 5) -> dict[str, Any]:
    """What becomes of a body."""
    return asyncio.run(read_json(request(messages), limit, seconds))


def test_pieces_are_put_together() -> None:
    """A body may come in pieces, cut anywhere."""
    whole = '{"a": "ä"}'.encode()
    assert read(chunk(whole[:8], more=True), chunk(whole[8:])) == {"a": "ä"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[1]", "it must be a JSON object"),
        (b'"text"', "it must be a JSON object"),
        (b'{"a": "\xff"}', "it is not UTF-8 (byte 7)"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "1e999 is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 levels deep"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_bodies(body: bytes, reason: str) -> None:
    """Whatever is wrong is a 400 that says what."""
    with pytest.raises(Problem) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert reason in caught.value.message


def test_half_surrogate_pairs_are_replaced() -> None:
    """JSON can spell what has no UTF-8; nothing further on sees it."""
    assert parse(rb'{"a\ud800": ["\udc00b", "\ud83d\ude00"]}') == {"a\ufffd": ["\ufffdb", "😀"]}


def test_a_byte_order_mark_is_no_error() -> None:
    """Some clients write one."""
    assert parse(b"\xef\xbb\xbf{}") == {}


def test_too_large() -> None:
    """Read to its end, without keeping it, so that the client hears of the error."""
    pieces = [chunk(b"x" * 60, more=True) for _ in range(3)]
    with pytest.raises(Problem) as caught:
        read(*pieces, chunk(b""))
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


def test_endless() -> None:
    """A body that goes on and on is not read to its end."""
    pieces = [chunk(b"x" * 60, more=True) for _ in range(1000)]
    with pytest.raises(Problem) as caught:
        read(*pieces)
    assert caught.value.status == 413


def test_too_slow() -> None:
    """A body that does not come is not waited for."""
    with pytest.raises(Problem) as caught:
        read(chunk(b"{", more=True), seconds=0.05)
    assert caught.value.status == 408


def test_cut_off() -> None:
    """A client that goes away in the middle of its body."""
    with pytest.raises(Problem) as caught:
        read(chunk(b"{", more=True), {"type": "http.disconnect"})
    assert caught.value.status == 400
