"""The host's end of the pipes to the relay: what comes is bounded, and only text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from gptoss_mlx.tools.python.wire import GarbageError, Line, Wire


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Pipes whose far ends the test has."""
    wire = Wire(10)
    yield wire
    wire.close()
    for end in wire.far:
        os.close(end)


def test_lines_in_pieces(wire: Wire) -> None:
    """Lines are whole, however they come; what comes first is read first."""
    lines = [Line("1", "stream", "a"), Line("1", "result", "\U0001f600" * 10)]
    sent = b"".join(json.dumps(line._asdict()).encode() + b"\n" for line in lines)
    found: list[Line] = []
    for start in range(0, len(sent), 100):
        os.write(wire.far[1], sent[start : start + 100])
        found += wire.receive(1)
    assert found == lines
    assert wire.receive(0) == []


def test_long_message_is_sent_in_pieces(wire: Wire) -> None:
    """What does not fit into the pipe goes out as the other side reads; nobody waits."""
    wire.send({"execute": "x" * 500_000})
    wire.send({"interrupt": True})
    received = b""
    while received.count(b"\n") < 2:
        assert wire.receive(0) == []
        received += os.read(wire.far[0], 1 << 16)
    assert [len(json.loads(line)) for line in received.splitlines()] == [1, 1]
    assert wire.receive(0) == []


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"\xff\n",
        b"[]\n",
        b'{"id": "1", "kind": "stream"}\n',
        b'{"id": "1", "kind": "stream", "text": 5}\n',
        b"[" * 1100 + b"\n",
        b'"' + b"x" * 2000 + b'"\n',
        b"x" * 2000,
    ],
)
def test_garbage(wire: Wire, line: bytes) -> None:
    """What no relay sends is refused, an endless line before its end."""
    os.write(wire.far[1], line)
    with pytest.raises(GarbageError):
        wire.receive(1)


def test_end() -> None:
    """That the other side is gone is noticed in both directions."""
    wire = Wire(10)
    os.close(wire.far[1])
    with pytest.raises(GarbageError, match="hung up"):
        wire.receive(1)
    os.close(wire.far[0])
    wire.send({})
    with pytest.raises(GarbageError):
        wire.receive(1)
    wire.close()
