"""What a chat gives -> the events of a message, and the message that they add up to.

One message of the model is one content block: a chain of thought, a text, a call. It does not know
HTTP, and neither threads nor the model.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from gptoss_mlx.chat import Event, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.messages.blocks import Block
from gptoss_mlx.server.messages.memory import Keeper, Memory
from gptoss_mlx.server.messages.reading import Reading
from gptoss_mlx.server.messages.running import call_of, result_of
from gptoss_mlx.server.problems import Problem, anthropic_error
from gptoss_mlx.server.usage import Usage
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools.browser import CitationFilter
from gptoss_mlx.tools.browser.citations import Source

__all__ = ["MessageWriter"]

_BLANK: dict[str, dict[str, str]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
}


def _new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(12)}"


def _no_page(_: int) -> None:
    return None


class MessageWriter:
    """The writer of one message.

    Args:
        reading: the request.
        memory: where blocks are remembered, and by what they are sealed.
        model: the id that the client is told.
        tokenizer: the model's.
        prompt_tokens: how many the first prompt has.
        source: the page of a citation's cursor; None where there is no browser.
        make_id: of a message and of calls, from a prefix.
    """

    terminator = b""

    def __init__(
        self,
        reading: Reading,
        memory: Memory,
        model: str,
        tokenizer: Tokenizer,
        prompt_tokens: int,
        *,
        source: Source | None = None,
        make_id: Callable[[str], str] = _new_id,
    ) -> None:
        self._reading, self._memory, self._make_id = reading, memory, make_id
        self._head = {"id": make_id("msg"), "type": "message", "role": "assistant", "model": model}
        self._prompt_tokens, self._source = prompt_tokens, source
        self._functions = {function.name for function in reading.job.setup.functions}
        self._usage = Usage(tokenizer)
        self._blocks: list[Block] = []
        self._open: Block | None = None  # the block that is growing
        self._links: CitationFilter | None = None  # of the text that is growing
        self._called: list[Block | None] = []  # in this turn, of the server's tools
        self._running: deque[Block | None] = deque()  # results are to come
        self._keeper = Keeper(memory)
        self._last_turn: Turn | None = None

    def begin(self) -> list[Wire]:
        """The message, which is empty."""
        usage = _usage(self._prompt_tokens, 0, 0)
        blank: dict[str, Any] = {**self._head, "content": [], **self._ending(), "usage": usage}
        return [("message_start", {"type": "message_start", "message": blank})]

    def push(self, number: int, event: Event) -> list[Wire]:
        """What the next event becomes; `number` is always 0, since a message is one reply."""
        del number
        match event:
            case Delta(role="assistant"):
                return self._delta(event)
            case Message(role="assistant"):
                return self._message(event)
            case Message(role="tool") if self._running:
                return self._result(event)
            case Turn():
                self._turn(event)
                return []
            case _:  # what the model says in others' names, and log-probabilities
                return []

    def heartbeat(self) -> list[Wire]:
        """The stream lives."""
        return [("ping", {"type": "ping"})]

    def end(self) -> list[Wire]:
        """Why it ended, and what it took."""
        if self._last_turn is None:
            return self.fail(Problem(500, "the model did not answer"))
        delta = {"type": "message_delta", "delta": self._ending(), "usage": self._counts()}
        return [("message_delta", delta), ("message_stop", {"type": "message_stop"})]

    def fail(self, problem: Problem) -> list[Wire]:
        """The error; what is open stays so."""
        return [("error", anthropic_error(problem))]

    def result(self) -> dict[str, Any]:
        """The message."""
        content = [block.content for block in self._blocks]
        return {**self._head, "content": content, **self._ending(), "usage": self._counts()}

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompts, and of what was generated, so far."""
        return self._usage.prompt, self._usage.completion

    def _delta(self, delta: Delta) -> list[Wire]:
        if delta.is_reasoning:
            return self._grow("thinking", delta.text) if self._shows_thoughts else []
        if delta.is_shown:
            return self._said(delta.text)
        return self._asked(delta, delta.text)

    def _message(self, message: Message) -> list[Wire]:
        """The end of a message, whose deltas have told its text."""
        if message.is_reasoning:
            return self._thought(message)
        if message.is_shown:
            return self._answered(message)
        if _name(message) in self._functions:
            return self._client_call(message)
        return self._server_call(message)

    def _thought(self, message: Message) -> list[Wire]:
        self._keeper.passed(message)
        if not self._reading.shows_thinking or not message.content:
            return []
        begun = [] if self._open else self._begin({"type": "thinking", **_BLANK["thinking"]})
        assert self._open is not None, "it has been begun"
        return [*begun, self._open.sign(self._memory.seal.seal(message)), *self._end()]

    def _said(self, text: str) -> list[Wire]:
        """Text of an answer; citations become links."""
        if self._source is not None and self._links is None:
            self._links = CitationFilter(self._source)
        return self._grow("text", self._links.push(text) if self._links else text)

    def _answered(self, message: Message) -> list[Wire]:
        wires = self._grow("text", self._links.close()) if self._links else []
        self._links = None
        if self._open is not None:
            self._keeper.said(message, self._open.content["text"])
        return [*wires, *self._end()]

    def _asked(self, of: Delta | Message, text: str) -> list[Wire]:
        """Input of a client's call; the input of others is shown when it is complete."""
        name = _name(of)
        if name not in self._functions:
            return []
        begun: list[Wire] = []
        if self._open is None:
            shown = {"id": self._make_id("toolu"), "name": self._reading.names.to_client(name)}
            begun = self._begin({"type": "tool_use", **shown, "input": {}})
        return [*begun, *self._grow("tool_use", text)]

    def _client_call(self, message: Message) -> list[Wire]:
        wires = self._asked(message, "" if message.content.strip() else "{}")
        block, ended = self._open, self._end()
        assert block is not None, "it has been begun"
        content = block.content
        self._keeper.called(message, content["id"], _name(message), content["input"])
        return [*wires, *ended]

    def _server_call(self, message: Message) -> list[Wire]:
        """A call that is answered here; of what is not there, only the model hears."""
        self._keeper.passed(message)
        self._called.append(None)
        to, builtins = message.recipient or "", self._reading.job.builtins
        call = call_of(to, message.content, builtins, self._source or _no_page)
        if call is None:
            return []
        shown = {"id": self._make_id("srvtoolu"), "name": call[0]}
        begun = self._begin({"type": "server_tool_use", **shown, "input": {}})
        self._called[-1] = self._open
        return [*begun, *self._grow("server_tool_use", json.dumps(call[1])), *self._end()]

    def _result(self, result: Message) -> list[Wire]:
        """A tool that was run here has given this."""
        self._keeper.passed(result)
        call = self._running.popleft()
        if call is None:
            return []
        name, identity = call.content["name"], call.content["id"]
        source = self._source or _no_page
        return [*self._begin(result_of(name, identity, result.content, source)), *self._end()]

    def _turn(self, turn: Turn) -> None:
        self._usage.add(turn)
        self._last_turn = turn
        if turn.finish_reason == "tool_calls":
            self._running.extend(self._called)
        self._called = []

    def _grow(self, kind: str, text: str) -> list[Wire]:
        """More text of the block that is open, or of a new one."""
        if not text:
            return []
        begun = [] if self._open else self._begin({"type": kind, **_BLANK[kind]})
        assert self._open is not None, "it has been begun"
        return [*begun, self._open.grow(text)]

    def _begin(self, content: dict[str, Any]) -> list[Wire]:
        self._open = Block(len(self._blocks), content)
        self._blocks.append(self._open)
        return [self._open.begin()]

    def _end(self) -> list[Wire]:
        block, self._open = self._open, None
        return [] if block is None else [block.end()]

    @property
    def _shows_thoughts(self) -> bool:
        return self._reading.shows_thinking and not self._reading.omits_thinking

    def _ending(self) -> dict[str, Any]:
        """Why the message ended."""
        turn = self._last_turn
        if turn is None:
            return {"stop_reason": None, "stop_sequence": None}
        reason = "end_turn"
        if turn.finish_reason == "length":
            limit = self._reading.job.params.max_tokens
            is_limited = limit is not None and self._usage.completion >= limit
            reason = "max_tokens" if is_limited else "model_context_window_exceeded"
        elif turn.stopped is not None:
            reason = "stop_sequence"
        elif any(block.content["type"] == "tool_use" for block in self._blocks):
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": turn.stopped}

    def _counts(self) -> dict[str, Any]:
        """Tokens of all turns; those of prompts that were cached count apart."""
        usage = self._usage
        names = [b.content["name"] for b in self._blocks if b.content["type"] == "server_tool_use"]
        served = {
            "web_search_requests": names.count("web_search"),
            "web_fetch_requests": names.count("web_fetch"),
        }
        return {
            **_usage(usage.prompt - usage.cached, usage.cached, usage.completion),
            "output_tokens_details": {"thinking_tokens": usage.reasoning},
            "server_tool_use": served if names else None,
        }


def _usage(new: int, cached: int, completion: int) -> dict[str, Any]:
    return {
        "input_tokens": new,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _name(of: Delta | Message) -> str:
    return (of.recipient or "").removeprefix("functions.")
