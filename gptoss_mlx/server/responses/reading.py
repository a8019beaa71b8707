"""A request, and what is known of the conversation before it -> a job.

Items that were given out by this server become the very messages that were sampled, where they are
remembered or sealed; all others are read as text. The first system and developer messages are the
instructions; later ones stay where they are, so that a cached prompt stays valid. It does not know
where a history is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, cast

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.grammar import Format, json_object, json_schema
from gptoss_mlx.harmony import Builtin, Effort, Message, Setup
from gptoss_mlx.server.job import Job
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.responses import schema
from gptoss_mlx.server.responses.facts import facts_of
from gptoss_mlx.server.responses.tools import ToolSet, read_tools
from gptoss_mlx.server.schemas import format_text
from gptoss_mlx.server.sealing import Seal

__all__ = ["Context", "History", "Reading", "read"]

_IMAGE = "[an image, which this model cannot see]"
_EFFORTS: dict[str | None, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_INSTRUCTING = ("system", "developer")


def _nothing(_: str) -> dict[str, Any] | None:
    return None


@dataclass(frozen=True)
class Context:
    """What a server knows beside the request.

    owner: whose request it is, as the store and `recall` know them. builtins: the tools that the
    server was started with. date: today's, or None to leave it out of prompts. find_item: an item
    of a stored response by its id.
    """

    owner: str = ""
    builtins: Sequence[Builtin] = ()
    date: str | None = None
    recall: Recall = field(default_factory=Recall)
    seal: Seal = field(default_factory=Seal)
    find_item: Callable[[str], dict[str, Any] | None] = _nothing


@dataclass(frozen=True)
class History:
    """What was said before: messages, and those of them that are calls, by their call ids."""

    messages: tuple[Message, ...] = ()
    calls: Mapping[str, Message] = field(default_factory=dict[str, Message])


@dataclass(frozen=True)
class Reading:
    """A request, understood. `own` is what it adds to the history."""

    request: schema.CreateRequest
    job: Job
    tools: ToolSet
    own: History

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest turns are left out of a prompt that would be too long."""
        return self.request.truncation == "auto"


def read(
    request: schema.CreateRequest, context: Context, history: History | None = None
) -> Reading:
    """What a request asks for, after a history.

    Raises:
        Problem: it asks for something that is not there, or contradicts itself.
        UsageError: a number or a schema cannot be used.
    """
    history = history or History()
    _check(request)
    tools = read_tools(request, context.builtins)
    reader = _Reader(context, tools, dict(history.calls))
    reader.read(request.input)
    messages = (*history.messages, *reader.messages)
    if not messages:
        raise Problem(400, "input is empty: send a text or items", param="input")
    lead = list(takewhile(lambda m: m.role in _INSTRUCTING, messages))
    texts = [request.instructions, *(m.content for m in lead), _format_text(request)]
    setup = Setup(
        reasoning=_EFFORTS.get(request.reasoning and request.reasoning.effort, "medium"),
        instructions="\n\n".join(text for text in texts if text) or None,
        functions=tools.functions,
        date=context.date,
    )
    job = Job(
        tuple(_in_place(m) for m in messages[len(lead) :]),
        setup,
        _params(request),
        answer=_answer(request),
        tool_choice=tools.choice,
        strict=tools.strict,
        builtins=tools.builtins,
    )
    own = History(tuple(reader.messages), reader.own_calls)
    return Reading(request, job, tools, own)


def _check(request: schema.CreateRequest) -> None:
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise Problem(400, f"{name} is not supported by this server", param=name)
    if request.background and not request.is_stored:
        message = "background needs store: nobody could ask for the response otherwise"
        raise Problem(400, message, param="background")


def _params(request: schema.CreateRequest) -> SamplingParams:
    return SamplingParams(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        max_tokens=request.max_output_tokens,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logprobs=(request.top_logprobs or 0) if request.wants_logprobs else None,
    )


def _format(request: schema.CreateRequest) -> schema.TextFormat:
    return (request.text and request.text.format) or schema.TextFormat()


def _answer(request: schema.CreateRequest) -> Format | None:
    form = _format(request)
    if form.type == "text":
        return None
    if form.type == "json_object":
        return json_object()
    if form.json_schema is None:
        raise Problem(400, "a json_schema format needs a schema", param="text.format.schema")
    return json_schema(form.json_schema, strict=bool(form.strict))


def _format_text(request: schema.CreateRequest) -> str | None:
    """The section that tells the model what its answer must look like."""
    form = _format(request)
    if form.type != "json_schema":
        return None
    return format_text(form.json_schema or {}, form.name or "response", form.description)


def _in_place(message: Message) -> Message:
    """An instruction in the middle of a conversation, as the models know instructions."""
    if message.role not in _INSTRUCTING:
        return message
    return Message("developer", f"# Instructions\n\n{message.content}")


class _Reader:
    """Items -> messages, one after the other."""

    def __init__(self, context: Context, tools: ToolSet, calls: dict[str, Message]) -> None:
        self._context, self._tools, self._calls = context, tools, calls
        self.messages: list[Message] = []
        self.own_calls: dict[str, Message] = {}

    def read(self, given: str | Sequence[schema.InputItem]) -> None:
        """All of a request's input."""
        if isinstance(given, str):
            self.messages += [Message("user", given)] if given else []
            return
        for number, item in enumerate(given):
            following = given[number + 1] if number + 1 < len(given) else None
            self._item(item, following, number)

    def _item(self, item: schema.InputItem, following: object, number: int) -> None:
        if isinstance(item, schema.ItemReference):
            item = self._referenced(item.id, number)
        known = self._context.recall.find(self._context.owner, facts_of(item.model_dump()))
        if isinstance(item, (schema.FunctionCall, schema.CustomCall)):
            self._call(item, known)
        elif isinstance(item, (schema.FunctionCallOutput, schema.CustomCallOutput)):
            self._output(item, number)
        elif known and not isinstance(item, schema.OtherItem):
            self.messages += known
        elif isinstance(item, schema.InputMessage):
            self._message(item, following)
        elif isinstance(item, schema.ReasoningItem):
            self._reasoning(item)
        elif isinstance(item, schema.CodeInterpreterCall):
            self._code(item)
        elif isinstance(item, schema.CompactionItem):
            self._compaction(item, number)

    def _message(self, item: schema.InputMessage, following: object) -> None:
        text = _text(item.content)
        if item.role != "assistant":
            self.messages.append(Message(item.role, text))
            return
        comes_before_call = isinstance(following, (schema.FunctionCall, schema.CustomCall))
        is_preamble = item.phase == "commentary" or (item.phase is None and comes_before_call)
        channel = "commentary" if is_preamble else "final"
        self.messages.append(Message("assistant", text, channel))

    def _reasoning(self, item: schema.ReasoningItem) -> None:
        """Sealed ids where they fit; else the text, or at least its summary."""
        text = "\n\n".join(part.text or "" for part in item.content or item.summary or ())
        sealed = self._context.seal.open(item.encrypted_content or "")
        if sealed is not None and sealed.content == (text or sealed.content):
            self.messages.append(sealed)
        elif text:
            self.messages.append(Message("assistant", text, "analysis"))

    def _call(
        self, item: schema.FunctionCall | schema.CustomCall, known: Sequence[Message]
    ) -> None:
        recipient = self._tools.recipient(item.name, item.namespace)
        if isinstance(item, schema.FunctionCall):
            arguments = item.arguments
        else:
            arguments = json.dumps({"input": item.input}, ensure_ascii=False)
        plain = Message("assistant", arguments, "commentary", recipient, "<|constrain|>json")
        message = known[0] if known else plain
        self.messages.append(message)
        self._calls[item.call_id] = self.own_calls[item.call_id] = message

    def _output(
        self, item: schema.FunctionCallOutput | schema.CustomCallOutput, number: int
    ) -> None:
        call = self._calls.get(item.call_id)
        if call is None:
            message = f"there is no call {item.call_id!r} in this conversation to give an output of"
            raise Problem(400, message, param=f"input.{number}.call_id")
        self.messages.append(_result(call, _output_text(item.output)))

    def _code(self, item: schema.CodeInterpreterCall) -> None:
        """Code that was run elsewhere, or is forgotten: only as useful as its output."""
        logs = [output["logs"] for output in item.outputs or () if "logs" in output]
        if item.code and logs:
            call = Message("assistant", item.code, "analysis", "python", "code")
            self.messages += [call, _result(call, "\n".join(map(str, logs)))]

    def _compaction(self, item: schema.CompactionItem, number: int) -> None:
        """What it stands for: nothing else tells what was said before."""
        summary = self._context.seal.open(item.encrypted_content)
        if summary is None:
            message = "this server cannot read the compaction: send the conversation itself"
            raise Problem(400, message, param=f"input.{number}.encrypted_content")
        self.messages.append(summary)

    def _referenced(self, id_: str, number: int) -> schema.InputItem:
        found = self._context.find_item(id_)
        if found is None:
            param = f"input.{number}.id"
            raise Problem(404, f"there is no stored item {id_!r}", param=param)
        item = schema.CreateRequest.model_validate({"input": [found]}).input[0]
        return cast("schema.InputItem", item)


def _result(call: Message, text: str) -> Message:
    return Message("tool", text, call.channel, "assistant", name=call.recipient)


def _output_text(output: object) -> str:
    if isinstance(output, str):
        return output
    if isinstance(output, list) and all(isinstance(p, schema.Part) for p in output):  # pyright: ignore
        return _text(cast("list[schema.Part]", output))
    return json.dumps(output, ensure_ascii=False)


def _text(content: schema.Content) -> str:
    """The text of content; a note where it is no text."""
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part) for part in content)


def _part_text(part: schema.Part) -> str:
    if part.text is not None or part.refusal is not None:
        return part.text or part.refusal or ""
    match part.type:
        case "input_image":
            return _IMAGE
        case "input_file":
            return f"[the file {part.filename or ''!r}, which cannot be read here]"
        case _:
            return ""
