"""A chat without an engine: any ids are what the model says. Quick enough for thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gptoss_mlx.chat import Event, FinishReason, Turn
from gptoss_mlx.harmony import Message, StreamParser
from gptoss_mlx.sequence import GenerationStats
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.reading import read
from gptoss_mlx.server.messages.schema import MessagesRequest
from gptoss_mlx.server.messages.writing import MessageWriter
from gptoss_mlx.tokenizer import Tokenizer

from .scenes import USER, JsonObject, make_writer

__all__ = ["simulate"]


def no_page(_: int) -> None:
    """Nothing was browsed."""


def simulate(
    tokenizer: Tokenizer,
    request: JsonObject,
    turns: Sequence[tuple[Sequence[int], FinishReason]],
) -> tuple[MessageWriter, list[Wire]]:
    """The events of a message in which the model says these ids, turn by turn."""
    body = {"messages": [USER], "max_tokens": 1, **request}
    reading = read(MessagesRequest.model_validate(body), ("browser", "python"))
    functions = {function.name for function in reading.job.setup.functions}
    writer = make_writer(reading, Memory(), tokenizer, 7, source=no_page)
    wires = writer.begin()
    for ids, reason in turns:
        for event in turn_events(ids, reason, functions, tokenizer):
            wires += writer.push(0, event)
    return writer, wires + writer.end()


def turn_events(
    ids: Sequence[int], reason: FinishReason, functions: set[str], tokenizer: Tokenizer
) -> Iterator[Event]:
    """What a chat gives of a turn, the results of tools that it runs included."""
    parser = StreamParser(tokenizer)
    for i in ids:
        yield from parser.push(i)
    yield from parser.close()
    calls = [message for message in parser.messages if message.is_tool_call]
    if reason == "stop" and calls:
        reason = "tool_calls"
    yield Turn(tuple(parser.messages), reason, GenerationStats(7, 3, len(ids)))
    for call in calls if reason == "tool_calls" else ():
        recipient = call.recipient or ""
        if recipient.removeprefix("functions.") not in functions:
            yield Message("tool", "42", call.channel, "assistant", name=recipient)
