"""A chat without an engine: any ids are what the model says. Quick enough for thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gptoss_mlx.chat import Event, FinishReason, Turn
from gptoss_mlx.harmony import Message, StreamParser
from gptoss_mlx.sequence import GenerationStats
from gptoss_mlx.server.responses.reading import Context, Reading, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.writing import Numbered, ResponseWriter
from gptoss_mlx.tokenizer import Tokenizer

from .scenes import make_writer

__all__ = ["simulate", "turn_events"]


def no_page(_: int) -> None:
    """Nothing was browsed."""


def simulate(
    tokenizer: Tokenizer,
    request: dict[str, Any],
    turns: Sequence[tuple[Sequence[int], FinishReason]],
) -> tuple[ResponseWriter, list[Numbered]]:
    """The events of a response in which the model says these ids, turn by turn."""
    context = Context(builtins=("browser", "python"))
    asked = CreateRequest.model_validate({"input": "Rain?", **request})
    reading = read(asked, context)
    writer = make_writer(reading, context, tokenizer, source=no_page)
    wires = writer.begin()
    for ids, reason in turns:
        for event in turn_events(ids, reason, reading, tokenizer):
            wires += writer.push(0, event)
    return writer, wires + writer.end()


def turn_events(
    ids: Sequence[int], reason: FinishReason, reading: Reading, tokenizer: Tokenizer
) -> Iterator[Event]:
    """What a chat gives of a turn, the results of tools that it runs included."""
    parser = StreamParser(tokenizer)
    for i in ids:
        yield from parser.push(i)
    yield from parser.close()
    turn = Turn(tuple(parser.messages), reason, GenerationStats(7, 3, len(ids)))
    if reason == "stop" and turn.tool_calls:
        reason = "tool_calls"
        turn = Turn(turn.messages, reason, turn.stats)
    yield turn
    if reason == "tool_calls":
        names = {f"functions.{name}" for name in reading.tools.clients}
        for call in turn.tool_calls:
            recipient = call.recipient or ""
            if f"functions.{recipient.removeprefix('functions.')}" not in names:
                yield Message("tool", "42", call.channel, "assistant", name=recipient)
