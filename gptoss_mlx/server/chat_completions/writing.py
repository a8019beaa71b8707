"""The events of replies -> chunks of a stream, and the completion that they add up to.

The completion is folded from the very chunks, so that both always say the same. Nothing of the
model's own tools, or of what it says in others' names, gets here. A complete reply is remembered as
it was sampled. It knows no HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_mlx.chat import Dropped, Event, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.sequence import Token
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.chat_completions.memory import Memory
from gptoss_mlx.server.chat_completions.reading import Reading
from gptoss_mlx.server.logprobs import Logprobs
from gptoss_mlx.server.problems import Problem, openai_error
from gptoss_mlx.server.sse import DONE
from gptoss_mlx.server.usage import Usage
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools.browser.citations import Citation, CitationFilter, Source

__all__ = ["ChatWriter"]

_BETWEEN = "\n\n"  # a preamble and the answer are one text, as in Turn.answer


def random_id(prefix: str) -> str:
    """A new id; clients send those of calls back."""
    return prefix + secrets.token_hex(12)


@dataclass
class _Choice:
    """How far one choice has come. `message` is what its deltas add up to."""

    message: dict[str, Any]
    usage: Usage
    logprobs: Logprobs | None
    source: Source | None
    tokens: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    finish_reason: str | None = None
    given: int = 0  # characters of the open message that were sent
    is_open: bool = False  # whether a message is: its first delta has been seen
    links: CitationFilter | None = None  # of the open message
    gap: str = ""  # what parts its text from that of the message before
    start: int = 0  # where in the content that text begins
    annotations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sampled: list[Message] = field(default_factory=list[Message])  # and results of our tools
    num_running: int = 0  # calls of our tools whose results are to come


class ChatWriter:
    """Events of each choice in, chunks out.

    Args:
        reading: what was asked.
        model: the id that clients are told.
        tokenizer: the model's.
        created: seconds since 1970.
        make_id: of a completion and of calls, from a prefix.
        sources: of each choice's citations, where it may browse.
        memory: what the client was told.
    """

    terminator = DONE

    def __init__(
        self,
        reading: Reading,
        model: str,
        tokenizer: Tokenizer,
        created: int,
        make_id: Callable[[str], str] = random_id,
        sources: Sequence[Source] = (),
        memory: Memory | None = None,
    ) -> None:
        self._reading, self._make_id = reading, make_id
        self._memory = memory or Memory()
        self._functions = {f.name for f in reading.jobs[0].setup.functions}
        self._head = {"id": make_id("chatcmpl-"), "created": created, "model": model}
        top = reading.top_logprobs
        self._choices = [
            _Choice(
                {"role": "assistant", "content": None, "refusal": None},
                Usage(tokenizer),
                None if top is None else Logprobs(tokenizer, top),
                sources[number] if sources else None,
            )
            for number in range(len(reading.jobs))
        ]

    def begin(self) -> list[Wire]:
        """Whose message it is."""
        return [
            self._chunk(number, {"role": "assistant", "content": "", "refusal": None})
            for number in range(len(self._choices))
        ]

    def push(self, number: int, event: Event) -> list[Wire]:
        """The chunks of one choice's next event."""
        choice = self._choices[number]
        match event:
            case Token():
                if choice.logprobs is not None:
                    choice.logprobs.push(event)
                return []
            case Delta():
                return self._text(number, event, event.text)
            case Message(role="tool") if choice.num_running:
                choice.num_running -= 1
                choice.sampled.append(event)
                return []
            case Message():
                return self._message(number, event)
            case Turn():
                self._turn(choice, event)
                return []
            case Dropped():
                return []

    def heartbeat(self) -> list[Wire]:
        """A chunk that says nothing."""
        return [self._chunk(0, {})]

    def end(self) -> list[Wire]:
        """Why each choice ended, and what all of it took."""
        wires: list[Wire] = []
        for number, choice in enumerate(self._choices):
            if choice.finish_reason in ("stop", "tool_calls"):
                self._memory.keep(choice.message, choice.sampled, self._functions)
            wires += self._annotate(number)
            wires.append(self._chunk(number, {}, choice.finish_reason or "stop"))
        if self._reading.includes_usage:
            wires.append((None, {**self._base(), "choices": [], "usage": self._usage()}))
        return wires

    def fail(self, problem: Problem) -> list[Wire]:
        """The error."""
        return [(None, openai_error(problem))]

    def result(self) -> dict[str, Any]:
        """The completion."""
        choices = [self._whole(n, choice) for n, choice in enumerate(self._choices)]
        head = {"object": "chat.completion", **self._head}
        return {**head, "choices": choices, "usage": self._usage()}

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompts, and of what was generated."""
        usage = self._usage()
        return usage["prompt_tokens"], usage["completion_tokens"]

    def _message(self, number: int, message: Message) -> list[Wire]:
        """What of a whole message its deltas have not said, and its end."""
        choice = self._choices[number]
        rest = message.content[choice.given :]
        if message.is_tool_call and not message.content:
            rest = "{}"  # clients parse arguments
        wires = self._text(number, message, rest) if rest else []
        if message.is_shown and choice.links is not None:
            wires += self._put(number, "content", choice.links.close())
            choice.annotations += [_annotation(c, choice.start) for c in choice.links.citations]
        choice.given, choice.is_open, choice.links = 0, False, None
        if choice.logprobs is not None:
            choice.logprobs.clear()
        return wires

    def _text(self, number: int, of: Delta | Message, text: str) -> list[Wire]:
        """More text of a message, where the client is to see it."""
        choice = self._choices[number]
        is_first, choice.is_open = not choice.is_open, True
        choice.given += len(text)
        if of.is_reasoning or of.is_shown:
            key = "reasoning" if of.is_reasoning else "content"
            if is_first:
                choice.gap = _BETWEEN if choice.message.get(key) else ""
                choice.start = len(choice.message.get(key) or "") + len(choice.gap)
                choice.links = CitationFilter(choice.source) if choice.source else None
            return self._grow(number, key, text)
        return self._call(number, of, text, is_first=is_first) if self._is_clients(of) else []

    def _is_clients(self, of: Delta | Message) -> bool:
        """Whether it belongs to a call of a function of the client's."""
        return of.role == "assistant" and _name(of) in self._functions

    def _grow(self, number: int, key: str, text: str) -> list[Wire]:
        """More reasoning or more content, in which citations become links."""
        choice = self._choices[number]
        if key == "reasoning":
            return self._put(number, key, text)
        tokens = choice.logprobs.take(text) if choice.logprobs is not None else []
        choice.tokens += tokens
        shown = text if choice.links is None else choice.links.push(text)
        return self._put(number, key, shown, tokens)

    def _put(
        self, number: int, key: str, text: str, tokens: Sequence[dict[str, Any]] = ()
    ) -> list[Wire]:
        """A chunk of text; messages of one kind are set apart."""
        choice = self._choices[number]
        if not text and not tokens:
            return []
        if text:
            text, choice.gap = choice.gap + text, ""
        choice.message[key] = (choice.message.get(key) or "") + text
        return [self._chunk(number, {key: text}, tokens=tokens)]

    def _call(self, number: int, of: Delta | Message, text: str, *, is_first: bool) -> list[Wire]:
        calls: list[dict[str, Any]] = self._choices[number].message.setdefault("tool_calls", [])
        wires: list[Wire] = []
        if is_first:
            function = {"name": self._reading.names.to_client(_name(of)), "arguments": ""}
            call = {"id": self._make_id("call_"), "type": "function", "function": function}
            opening = {"index": len(calls), **call, "function": dict(function)}
            wires.append(self._chunk(number, {"tool_calls": [opening]}))
            calls.append(call)
        calls[-1]["function"]["arguments"] += text
        more = {"index": len(calls) - 1, "function": {"arguments": text}}
        return [*wires, self._chunk(number, {"tool_calls": [more]})]

    def _annotate(self, number: int) -> list[Wire]:
        """The links of the content, all at once: clients do not add up such lists."""
        choice = self._choices[number]
        if not choice.annotations:
            return []
        choice.message["annotations"] = choice.annotations
        return [self._chunk(number, {"annotations": choice.annotations})]

    def _turn(self, choice: _Choice, turn: Turn) -> None:
        """Calls of tools that the server runs are no end; the last turn's reason stays."""
        choice.usage.add(turn)
        choice.sampled += [message for message in turn.messages if message.role == "assistant"]
        ours = [call for call in turn.tool_calls if not self._is_clients(call)]
        choice.num_running = len(ours) if turn.finish_reason == "tool_calls" else 0
        has_calls = bool(choice.message.get("tool_calls"))
        reason = turn.finish_reason
        if reason in ("stop", "tool_calls"):
            reason = "tool_calls" if has_calls else "stop"
        choice.finish_reason = "stop" if reason == "interrupted" else reason

    def _base(self) -> dict[str, Any]:
        return {"object": "chat.completion.chunk", **self._head}

    def _chunk(
        self,
        number: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        tokens: Sequence[dict[str, Any]] = (),
    ) -> Wire:
        logprobs = {"content": list(tokens), "refusal": None} if tokens else None
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        usage: dict[str, Any] = {"usage": None} if self._reading.includes_usage else {}
        return None, {**self._base(), "choices": [choice], **usage}

    def _whole(self, number: int, choice: _Choice) -> dict[str, Any]:
        logprobs = None if choice.logprobs is None else {"content": choice.tokens, "refusal": None}
        message = choice.message
        if message["content"] is None and "tool_calls" not in message:
            message = {**message, "content": ""}
        return {
            "index": number,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason or "stop",
        }

    def _usage(self) -> dict[str, Any]:
        """Tokens in OpenAI's names. The prompt is the same for all choices, and counts once."""
        each = [choice.usage for choice in self._choices]
        prompt, completion = each[0].prompt, sum(usage.completion for usage in each)
        reasoning = sum(usage.reasoning for usage in each)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": each[0].cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }


def _name(of: Delta | Message) -> str:
    """Of the function that is called."""
    return (of.recipient or "").removeprefix("functions.")


def _annotation(citation: Citation, start: int) -> dict[str, Any]:
    """A link, in a content of which its text is a part."""
    url_citation = {
        "start_index": start + citation.start_index,
        "end_index": start + citation.end_index,
        "url": citation.url,
        "title": citation.title,
    }
    return {"type": "url_citation", "url_citation": url_citation}
