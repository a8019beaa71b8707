"""A conversation: engine, harmony and tools together. Used by the command line and the server.

Keeps the messages, renders them with the ids that were sampled, hands on what the parser finds as
it comes, runs the tools that are called and goes on. It ends with an answer, with a call that the
caller has to answer, or at a limit. It does not know a terminal or a wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import GptOssError, ToolError
from gptoss_mlx.generation import Generation, OnPrefill
from gptoss_mlx.harmony import Delta, Message, Setup, StopFilter, StreamParser, render
from gptoss_mlx.sequence import Constraint, GenerationStats, Request, SpeculationMode, Token
from gptoss_mlx.tokenizer import START, STOP_TOKENS, Tokenizer
from gptoss_mlx.tools import Preview, Toolbox

__all__ = ["Approve", "Chat", "Dropped", "Event", "FinishReason", "Options", "Turn"]

FinishReason = Literal["stop", "length", "tool_calls", "interrupted"]
Approve = Callable[[Message, Preview], str | None]  # why a call may not run; None: it may
_COMPLETE = ("stop", "tool_calls")
_MAX_ROUNDS = 50
_MAX_RESERVE = 4096  # tokens kept free for an answer, where the context is large
_LAST_CALL = "no more calls are possible: answer with what you know now"
_INTERRUPTED = "[ERROR] the user stopped this call"


@dataclass(frozen=True)
class Turn:
    """What the assistant did in one turn. `stopped` is the stop text that ended it, if one did."""

    messages: tuple[Message, ...]
    finish_reason: FinishReason
    stats: GenerationStats
    stopped: str | None = None

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


@dataclass(frozen=True)
class Dropped:
    """The oldest turns do not fit the context any more: from now on the model does not see them."""

    turns: int


Event = Delta | Message | Turn | Dropped | Token


@dataclass(frozen=True)
class Options:
    """How replies come about.

    params: how to draw; its max_tokens are those of all turns that one `send` leads to. on_prefill:
    as `Engine.submit`. stop: an answer ends before the first of these texts; reasoning and calls do
    not. constrain: makes a grammar's matcher for each turn
    (`grammar.compile_grammar(...).matcher`). approve: asked before each call of a tool.
    """

    params: SamplingParams | None = None
    on_prefill: OnPrefill | None = None
    stop: Sequence[str] = ()
    constrain: Callable[[], Constraint] | None = None
    approve: Approve | None = None


class Chat:
    """A conversation with one model; `messages` may be read and changed between turns.

    Args:
        engine: what completes prompts.
        tokenizer: the model's.
        setup: what stands before the messages. Calls of its functions are the caller's to answer,
            and so are those of the toolbox's client functions.
        speculation: as `Request` has it.
        toolbox: tools that are run here, described after those of the setup.
        max_rounds: turns in a row that may end in calls of the toolbox's tools.
        drops_oldest: when the context is full, leave out the oldest turns instead of refusing.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        setup: Setup | None = None,
        speculation: SpeculationMode = "off",
        *,
        toolbox: Toolbox | None = None,
        max_rounds: int = _MAX_ROUNDS,
        drops_oldest: bool = False,
    ) -> None:
        self.engine = engine
        self.speculation: SpeculationMode = speculation
        self.tokenizer = tokenizer
        self.setup = setup or Setup()
        self.toolbox = toolbox or Toolbox()
        self.max_rounds = max_rounds
        self.drops_oldest = drops_oldest
        self.messages: list[Message] = []
        self.last_turn: Turn | None = None
        self._first: Message | None = None  # that the model still sees; None: all
        self._generation: Generation | None = None
        self._is_cancelled = False

    def send(self, text: str | None = None, options: Options | None = None) -> Generator[Event]:
        """Say something; stream turns, tools run between them, until one needs the caller.

        Deltas and messages come as `reply` gives them, then the turn itself, then the result of
        each call as a message. The last turn's `tool_calls` are of the setup's functions: answer
        them with `add_tool_result` and send again, without a text. Closed early, or interrupted,
        every call has a result nevertheless.

        Raises:
            ContextLengthError: it does not fit; the conversation is as it was.
        """
        options = options or Options()
        length = len(self.messages)
        if text is not None:
            self.messages.append(Message("user", text))
        try:
            dropped = self._drop_oldest(options.params)
            first = self.reply(options)
        except GptOssError:
            del self.messages[length:]
            raise
        return self._rounds(first, dropped, options)

    def cancel(self) -> None:
        """End what streams, and the tool that runs; from any thread, and once for all."""
        self._is_cancelled = True
        if self._generation is not None:
            self._generation.close()
        self.toolbox.close()

    def add_tool_result(self, call: Message, output: str) -> Message:
        """Answer a tool call; the next reply goes on from there."""
        result = Message(
            "tool",
            output,
            channel=call.channel,
            recipient="assistant",
            name=call.recipient,
        )
        self.messages.append(result)
        return result

    @property
    def open_calls(self) -> list[Message]:
        """Calls that have no result yet."""
        calls: list[Message] = []
        for message in self.messages:
            if message.is_tool_call:
                calls.append(message)
            elif message.role == "tool":
                answered = next((c for c in calls if c.recipient == message.name), None)
                calls = [call for call in calls if call is not answered]
        return calls

    def reply(self, options: Options | None = None) -> Generator[Delta | Message | Token]:
        """Stream the assistant's next turn: deltas, and each message when it is complete.

        Where log-probabilities were asked for, each token comes as well, before what it completes.

        When the stream ends, or is closed early, its messages have joined the conversation and
        `last_turn` describes them. Of a turn that was cut off only what the user saw stays.

        Raises:
            ContextLengthError: the conversation leaves no room for an answer.
        """
        options = options or Options()
        request = Request(
            tuple(self.prompt()),
            options.params or SamplingParams(),
            stop=STOP_TOKENS,
            boundaries=frozenset({START}),
            constraint=options.constrain() if options.constrain else None,
            speculation=self.speculation,
        )
        stops = StopFilter(options.stop)
        self._generation = self.engine.submit(request, options.on_prefill)
        if self._is_cancelled:
            self._generation.close()
        return self._stream(self._generation, stops, request.params.logprobs is not None)

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the latest reply's prompt has; 0 before the first."""
        return 0 if self._generation is None else self._generation.stats.prompt_tokens

    def prompt(self) -> list[int]:
        """The ids that the next reply goes on from."""
        start = next((i for i, m in enumerate(self.messages) if m is self._first), 0)
        setup = self.toolbox.extend(self.setup)
        return render(setup, self.messages[start:], self.tokenizer)

    def _rounds(
        self, stream: Generator[Delta | Message | Token], dropped: int, options: Options
    ) -> Generator[Event]:
        for n in range(self.max_rounds + 1):
            with closing(stream):  # also where nobody reads on
                if dropped:
                    yield Dropped(dropped)
                yield from stream
            turn = self.last_turn
            assert turn is not None, "a stream that ended has a turn"
            calls = turn.tool_calls if turn.finish_reason == "tool_calls" else ()
            ours = [call for call in calls if not self._is_callers(call)]
            is_over = not calls or len(ours) < len(calls)
            try:
                yield turn
                yield from self._results(ours, options.approve, is_last=n == self.max_rounds - 1)
            finally:
                for call in ours:
                    self.add_tool_result(call, _INTERRUPTED)
            if is_over:
                return
            options = _with_less(options, turn.stats.completion_tokens)
            if n < self.max_rounds:
                dropped = self._drop_oldest(options.params)
                stream = self.reply(options)

    def _results(
        self, calls: list[Message], approve: Approve | None, *, is_last: bool
    ) -> Generator[Message]:
        """Run calls, taking each from the list when its result has joined the conversation."""
        while calls:
            output = self._output(calls[0], approve)
            if is_last:
                output = f"{output}\n\n[ERROR] {_LAST_CALL}"
            yield self.add_tool_result(calls.pop(0), output)

    def _output(self, call: Message, approve: Approve | None) -> str:
        assert call.recipient is not None, "a call has a recipient"
        if approve is not None:
            try:
                preview = self.toolbox.preview(call.recipient, call.content)
            except ToolError as error:
                return f"[ERROR] {error}"
            refusal = approve(call, preview)
            if refusal is not None:
                return f"[ERROR] {refusal}"
        return self.toolbox.run(call.recipient, call.content)

    def _is_callers(self, call: Message) -> bool:
        """Whether the call is of a function that only the caller has."""
        name = (call.recipient or "").removeprefix("functions.")
        functions = (*self.setup.functions, *self.toolbox.client_functions)
        return any(function.name == name for function in functions)

    def _drop_oldest(self, params: SamplingParams | None) -> int:
        """Leave out turns, if the context is full, until a quarter of it is free; how many."""
        context = self.engine.context
        wanted = (params and params.max_tokens) or _MAX_RESERVE
        if not self.drops_oldest or len(self.prompt()) + min(wanted, context // 4) <= context:
            return 0
        first = next((i for i, m in enumerate(self.messages) if m is self._first), 0)
        asked = [m for m in self.messages[first:] if m.role == "user"]
        for turns, message in enumerate(asked[1:], 1):
            self._first = message
            if len(self.prompt()) <= context * 3 // 4:
                return turns
        return max(0, len(asked) - 1)

    def _stream(
        self, generation: Generation, stops: StopFilter, gives_tokens: bool
    ) -> Generator[Delta | Message | Token]:
        parser = StreamParser(self.tokenizer)
        messages: list[Message] = []
        reason: FinishReason = "interrupted"

        def seen(events: list[Delta | Message]) -> list[Delta | Message]:
            remaining = stops.push(events)
            messages.extend(event for event in remaining if isinstance(event, Message))
            return remaining

        try:
            last = None
            for token in generation.tokens():
                last = token.id
                if gives_tokens:
                    yield token
                yield from seen(parser.push(last))
                if stops.stopped is not None:
                    break
            is_complete = last in STOP_TOKENS or stops.stopped is not None
            if not self._is_cancelled:
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
            stats = replace(generation.stats)
            self.last_turn = Turn(tuple(messages), reason, stats, stops.stopped)


def _with_less(options: Options, used: int) -> Options:
    """The same for what follows after some tokens; where none are left, it ends at once."""
    params = options.params
    if params is None or params.max_tokens is None:
        return options
    return replace(options, params=replace(params, max_tokens=max(0, params.max_tokens - used)))
