"""What a chat gives -> the events of a response, and the response that they add up to.

One message of the model is one item of the output: a chain of thought, a text, a call. What was cut
off by the end of the stream shows only when the turn ends: so an item is closed when the next thing
comes. It does not know HTTP, and neither threads nor the model.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gptoss_mlx.chat import Event, FinishReason, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.sequence import Token
from gptoss_mlx.server.logprobs import Logprobs
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.facts import all_facts_of
from gptoss_mlx.server.responses.items import (
    CustomCallItem,
    FunctionCallItem,
    OutputItem,
    ReasoningItem,
    Status,
    TextItem,
    Wire,
)
from gptoss_mlx.server.responses.reading import Context, History, Reading
from gptoss_mlx.server.responses.response import blank_response, error_of, usage_json
from gptoss_mlx.server.responses.running import CodeItem, RunItem, SearchItem
from gptoss_mlx.server.sse import DONE
from gptoss_mlx.server.usage import Usage
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools.browser.citations import Source

__all__ = ["Numbered", "ResponseWriter", "new_id"]

Numbered = tuple[str | None, dict[str, Any]]  # an event as writers of all APIs give it

_OPEN_NAMES = {"response.reasoning_text": "response.reasoning"}
_STATUS: dict[FinishReason, str] = {
    "stop": "completed",
    "tool_calls": "completed",
    "length": "incomplete",
    "interrupted": "cancelled",
}
_PREFIXES: dict[type[OutputItem], str] = {
    ReasoningItem: "rs",
    TextItem: "msg",
    FunctionCallItem: "fc",
    CustomCallItem: "ctc",
    SearchItem: "ws",
    CodeItem: "ci",
}


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(24)}"


def _no_page(_: int) -> None:
    return None


class ResponseWriter:
    """The writer of one response.

    Args:
        reading: the request.
        context: where items are remembered, and by what they are sealed.
        tokenizer: the model's.
        model: the id that the client is told.
        identity: the response's id.
        source: the page of a citation's cursor; None where there is no browser.
        open_responses: the names of events that the Open Responses specification has, where they
            differ from OpenAI's, and its end of the stream.
        make_id, clock: ids of items, by their prefixes, and seconds since 1970.
        on_end: called once, when the response is as it will stay.
    """

    def __init__(
        self,
        reading: Reading,
        context: Context,
        tokenizer: Tokenizer,
        *,
        model: str,
        identity: str | None = None,
        source: Source | None = None,
        open_responses: bool = False,
        make_id: Callable[[str], str] = new_id,
        clock: Callable[[], float] = time.time,
        on_end: Callable[[ResponseWriter], object] | None = None,
    ) -> None:
        self.terminator = DONE if open_responses else b""
        self._reading, self._context = reading, context
        self._source, self._open_responses = source, open_responses
        self._make_id, self._clock, self._on_end = make_id, clock, on_end
        self._response = blank_response(
            reading, identity=identity or make_id("resp"), model=model, created_at=int(clock())
        )
        self.is_over = False
        self._sequence_number = 0
        self._items: list[OutputItem] = []
        self._usage = Usage(tokenizer)
        self._logprobs = Logprobs(tokenizer, reading.request.top_logprobs or 0)
        self._open: OutputItem | None = None  # the message that is being generated
        self._closing: Message | None = None  # it is complete, unless the turn says otherwise
        self._called: list[tuple[Message, RunItem | None]] = []  # in this turn; None: no item
        self._running: deque[tuple[Message, RunItem | None]] = deque()  # results are to come
        self._last_turn: Turn | None = None
        self._messages: list[Message] = []
        self._calls: dict[str, Message] = {}

    def begin(self) -> list[Numbered]:
        """The response is there, and under way."""
        return self._numbered([self._lifecycle("created"), self._lifecycle("in_progress")])

    def push(self, number: int, result: Event) -> list[Numbered]:
        """What the next event becomes; `number` is always 0, since a response is one reply."""
        del number
        match result:
            case Token():
                self._logprobs.push(result)
                return []
            case Delta():
                events = self._delta(result)
            case Message(role="tool") if self._running:
                events = self._result(result)
            case Message():
                events = self._message(result)
            case Turn():
                events = self._turn(result)
            case _:  # turns were dropped: the client asked for it
                events = []
        return self._numbered(events)

    def heartbeat(self) -> list[Numbered]:
        """Still under way: an event, since clients count neither comments nor silence as life."""
        return self._numbered([self._lifecycle("in_progress")])

    def end(self) -> list[Numbered]:
        """Nothing more comes: the response is complete, or as far as it got."""
        if self._last_turn is None:
            return self.fail(Problem(500, "the model did not answer"))
        reason = self._last_turn.finish_reason
        self._response["status"] = status = _STATUS[reason]
        if status == "completed":
            self._response["completed_at"] = int(self._clock())
        if reason == "length":
            self._response["incomplete_details"] = {"reason": "max_output_tokens"}
        return self._end("completed" if status == "completed" else "incomplete")

    def fail(self, problem: Problem) -> list[Numbered]:
        """It cannot go on: what is open ends as it is."""
        self._response |= {"status": "failed", "error": error_of(problem)}
        return self._end("failed")

    def cancel(self) -> list[Numbered]:
        """Nobody wants it any more: what is open ends as it is."""
        self._response["status"] = "cancelled"
        return self._end("incomplete")

    def result(self) -> dict[str, Any]:
        """The response as it is by now."""
        output = [item.item for item in self._items if item.status != "in_progress"]
        has_usage = self._response["status"] != "in_progress" and self._last_turn is not None
        usage = usage_json(self._usage) if has_usage else None
        return {**self._response, "output": output, "usage": usage}

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompts, and of what was generated, so far."""
        return self._usage.prompt, self._usage.completion

    @property
    def history(self) -> History:
        """What the response adds to the conversation, as the chat has it."""
        return History(tuple(self._messages), dict(self._calls))

    def _delta(self, delta: Delta) -> list[Wire]:
        events = self._flush("completed")
        if delta.role != "assistant":  # a message that the model has made up for somebody else
            return events
        if self._open is None:
            events += self._begin_item(delta)
        if self._open is not None:
            if isinstance(self._open, TextItem):
                self._open.expect(self._logprobs.take(delta.text))
            events += self._open.grow(delta.text)
        return events

    def _message(self, message: Message) -> list[Wire]:
        events = self._flush("completed")
        if message.role == "assistant":
            if self._open is None:  # it has no text
                events += self._begin_item(message)
            self._closing = message
        return events

    def _turn(self, turn: Turn) -> list[Wire]:
        is_whole = turn.finish_reason in ("stop", "tool_calls")
        events = self._flush("completed" if is_whole else "incomplete")
        kept = [m for m in turn.messages if m.role == "assistant" and (is_whole or m.is_shown)]
        self._messages += kept
        self._usage.add(turn)
        self._last_turn = turn
        if turn.finish_reason == "tool_calls":
            self._running.extend(self._called)
        else:
            events += [e for _, item in self._called if item for e in item.finish(None)]
        self._called = []
        return events

    def _result(self, result: Message) -> list[Wire]:
        """A tool that was run here has given this."""
        call, item = self._running.popleft()
        self._messages.append(result)
        if item is None:
            return []
        events = item.finish(result.content)
        self._context.recall.keep(self._context.owner, all_facts_of(item.item), (call, result))
        return events

    def _begin_item(self, begun: Delta | Message) -> list[Wire]:
        self._open = self._new_item(begun)
        if self._open is None:
            return []
        self._items.append(self._open)
        return self._open.begin()

    def _new_item(self, begun: Delta | Message) -> OutputItem | None:
        """The item that a message becomes; None for calls of what is not there."""
        if begun.is_reasoning:
            asked = self._reading.request.reasoning
            return ReasoningItem(*self._place(ReasoningItem), bool(asked and asked.summary))
        if begun.recipient is None:
            phase = "commentary" if begun.channel == "commentary" else "final_answer"
            return TextItem(*self._place(TextItem), phase, self._source)
        return self._new_call(begun.recipient)

    def _new_call(self, recipient: str) -> OutputItem | None:
        name = recipient.removeprefix("functions.")
        client = self._reading.tools.clients.get(name)
        if client is not None:
            kind = CustomCallItem if client.is_custom else FunctionCallItem
            return kind(*self._place(kind), self._make_id("call"), client)
        name = recipient.strip().removeprefix("functions.")
        includes = self._reading.request.includes
        if name in ("browser.search", "browser.open", "browser.find") and self._has("browser"):
            has_sources = includes("web_search_call.action.sources")
            source = self._source or _no_page
            return SearchItem(*self._place(SearchItem), name, source, has_sources)
        if name == "python" and self._has("python"):
            has_outputs = includes("code_interpreter_call.outputs")
            return CodeItem(*self._place(CodeItem), self._container, has_outputs)
        return None

    def _has(self, builtin: str) -> bool:
        return builtin in self._reading.job.builtins

    @property
    def _container(self) -> str:
        """The python of a response is its own."""
        return f"cntr_{self._response['id'].removeprefix('resp_')}"

    def _place(self, kind: type[OutputItem]) -> tuple[int, str]:
        return len(self._items), self._make_id(_PREFIXES[kind])

    def _flush(self, status: Status) -> list[Wire]:
        """Close the message that is complete, if there is one."""
        message, self._closing = self._closing, None
        if message is None:
            return []
        item, self._open = self._open, None
        if item is None or isinstance(item, RunItem):  # a call that the client does not answer
            self._called.append((message, item))
        if item is None:
            return []
        self._remember(item, message)
        events = item.end(status)
        if not isinstance(item, RunItem):
            self._context.recall.keep(self._context.owner, all_facts_of(item.item), (message,))
        return events

    def _remember(self, item: OutputItem, message: Message) -> None:
        if isinstance(item, ReasoningItem):
            if self._reading.request.includes("reasoning.encrypted_content"):
                item.sealed = self._context.seal.seal(message)
        elif isinstance(item, (FunctionCallItem, CustomCallItem)):
            self._calls[item.call_id] = message

    def _end(self, name: str) -> list[Numbered]:
        events = self._numbered([*self._close_all(), self._lifecycle(name)])
        self.is_over = True
        if self._on_end is not None:
            self._on_end(self)
        return events

    def _close_all(self) -> list[Wire]:
        """End every item that is not done."""
        events = self._flush("completed")
        if self._open is not None:
            events += self._open.end("incomplete")
            if isinstance(self._open, RunItem):
                events += self._open.finish(None)
        waiting = [item for _, item in (*self._called, *self._running) if item is not None]
        events += [event for item in waiting for event in item.finish(None)]
        self._open, self._called = None, []
        self._running.clear()
        return events

    def _lifecycle(self, name: str) -> Wire:
        return f"response.{name}", {"response": self.result()}

    def _numbered(self, events: list[Wire]) -> list[Numbered]:
        numbered: list[Numbered] = []
        for given, fields in events:
            name = self._name(given)
            data = {"type": name, "sequence_number": self._sequence_number, **fields}
            numbered.append((name, data))
            self._sequence_number += 1
        return numbered

    def _name(self, name: str) -> str:
        if not self._open_responses:
            return name
        stem, _, ending = name.rpartition(".")
        return f"{_OPEN_NAMES.get(stem, stem)}.{ending}"
