"""A conversation: engine and harmony together, a turn at a time. Used by the command line.

Keeps the messages, renders them with the ids that were sampled, and hands on what the parser finds
as it comes. A turn ends with an answer, with a tool call for the caller to answer, or at a limit.
It does not know a terminal or a wire format.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import GptOssError
from gptoss_mlx.generation import Generation, OnPrefill
from gptoss_mlx.harmony import Delta, Message, Setup, StopFilter, StreamParser, render
from gptoss_mlx.sequence import Constraint, GenerationStats, Request, SpeculationMode
from gptoss_mlx.tokenizer import START, STOP_TOKENS, Tokenizer

__all__ = ["Chat", "FinishReason", "Turn"]

FinishReason = Literal["stop", "length", "tool_calls", "interrupted"]
_COMPLETE = ("stop", "tool_calls")


@dataclass(frozen=True)
class Turn:
    """What the assistant did in one turn."""

    messages: tuple[Message, ...]
    finish_reason: FinishReason
    stats: GenerationStats

    @property
    def answer(self) -> str:
        """The text for the user: preambles and the final message."""
        return "\n\n".join(m.content for m in self.messages if m.is_shown)

    @property
    def reasoning(self) -> str:
        """The chain of thought."""
        return "\n\n".join(m.content for m in self.messages if m.is_reasoning)

    @property
    def tool_calls(self) -> tuple[Message, ...]:
        """The messages that address a tool."""
        return tuple(m for m in self.messages if m.is_tool_call)


class Chat:
    """A conversation with one model; `messages` may be read and changed between turns."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        setup: Setup | None = None,
        speculation: SpeculationMode = "off",
    ) -> None:
        self.engine = engine
        self.speculation: SpeculationMode = speculation
        self.tokenizer = tokenizer
        self.setup = setup or Setup()
        self.messages: list[Message] = []
        self.last_turn: Turn | None = None

    def send(
        self,
        text: str,
        params: SamplingParams | None = None,
        on_prefill: OnPrefill | None = None,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Generator[Delta | Message]:
        """Say something and stream the assistant's turn; see `reply`.

        Raises:
            ContextLengthError: it does not fit; the conversation is as it was.
        """
        self.messages.append(Message("user", text))
        try:
            return self.reply(params, on_prefill, stop, constraint)
        except GptOssError:
            self.messages.pop()
            raise

    def add_tool_result(self, call: Message, output: str) -> None:
        """Answer a tool call; the next `reply` goes on from there."""
        self.messages.append(
            Message(
                "tool",
                output,
                channel=call.channel,
                recipient="assistant",
                name=call.recipient,
            )
        )

    def reply(
        self,
        params: SamplingParams | None = None,
        on_prefill: OnPrefill | None = None,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Generator[Delta | Message]:
        """Stream the assistant's next turn: deltas, and each message when it is complete.

        When the stream ends, or is closed early, its messages have joined the conversation and
        `last_turn` describes them. Of a turn that was cut off only what the user saw stays.

        Args:
            params: how to draw.
            on_prefill: as `Engine.submit`.
            stop: an answer ends before the first of these texts; reasoning and calls do not.
            constraint: a grammar's matcher (`grammar.compile_grammar`), fresh for each turn.

        Raises:
            ContextLengthError: the conversation leaves no room for an answer.
        """
        request = Request(
            tuple(render(self.setup, self.messages, self.tokenizer)),
            params or SamplingParams(),
            stop=STOP_TOKENS,
            boundaries=frozenset({START}),
            constraint=constraint,
            speculation=self.speculation,
        )
        stops = StopFilter(stop)
        return self._stream(self.engine.submit(request, on_prefill), stops)

    def _stream(self, generation: Generation, stops: StopFilter) -> Generator[Delta | Message]:
        parser = StreamParser(self.tokenizer)
        messages: list[Message] = []
        reason: FinishReason = "interrupted"

        def seen(events: list[Delta | Message]) -> list[Delta | Message]:
            remaining = stops.push(events)
            messages.extend(event for event in remaining if isinstance(event, Message))
            return remaining

        try:
            last = None
            for last in generation:
                yield from seen(parser.push(last))
                if stops.stopped is not None:
                    break
            is_complete = last in STOP_TOKENS or stops.stopped is not None
            reason = "stop" if is_complete else "length"
            yield from seen(parser.close())
        finally:
            generation.close()
            seen(parser.close())
            if reason == "stop" and any(m.is_tool_call for m in messages):
                reason = "tool_calls"
            self.messages += [
                m for m in messages if m.role == "assistant" and (m.is_shown or reason in _COMPLETE)
            ]
            self.last_turn = Turn(tuple(messages), reason, replace(generation.stats))
