"""Messages <-> token ids, by the harmony format's rules. It knows nothing of the engine.

Rendering is openai-harmony's, message by message, except that a message which was sampled here goes
back as the very ids that were sampled, so that a cached prefix stays valid. Parsing is our own
state machine over ids, because it must survive anything a model may emit:

    between messages --<|start|>--> header --<|message|>--> content --<|end|>--> between messages

The recipient makes a message a tool call, whatever its channel and wherever in the header it
stands. What does not fit the format is never an error: parsed messages are kept, the rest becomes
content of the final channel, stray markers are dropped, and the log says so.

Source of the format: https://cookbook.openai.com/articles/openai-harmony.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import openai_harmony as oh

from gptoss_mlx.tokenizer import (
    CALL,
    CHANNEL,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    VOCAB_SIZE,
    Tokenizer,
)

__all__ = [
    "Delta",
    "Effort",
    "FunctionTool",
    "Message",
    "Setup",
    "StreamParser",
    "parse",
    "parse_header",
    "prune",
    "render",
]

logger = logging.getLogger(__name__)

Effort = Literal["low", "medium", "high"]
CHANNELS = ("analysis", "commentary", "final")
ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_HEADER_TOKENS = 128  # longer ones are text whose <|message|> never came
_END_MARKERS = frozenset({END, RETURN, CALL, ENDOFTEXT})
_NOT_TOOLS = frozenset({"assistant", "user", "all"})


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    `name` is the tool's for role tool; `recipient` whom it addresses (`functions.f`, `python`);
    `content_type` what the header says of the content (`<|constrain|>json`, `code`); `ids` the
    tokens from `<|start|>` to the end marker, if it was sampled and well-formed.
    """

    role: str
    content: str
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None
    ids: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def is_tool_call(self) -> bool:
        """Whether the assistant addresses a tool: the recipient decides, not the channel."""
        return self.role == "assistant" and self.recipient is not None

    @property
    def is_shown(self) -> bool:
        """Whether it is for the user to read: an answer, or a preamble before a call."""
        return self.role == "assistant" and self.recipient is None and self.channel != "analysis"

    @property
    def is_final(self) -> bool:
        """Whether this is an answer to the user."""
        return self.role == "assistant" and self.recipient is None and self.channel == "final"


@dataclass(frozen=True)
class Delta:
    """Text that a message still being generated has grown by."""

    channel: str | None
    recipient: str | None
    text: str


@dataclass(frozen=True)
class FunctionTool:
    """A function that the model may call: its name, what it does, and a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Setup:
    """What stands before a conversation: the system message and the developer message.

    `date` is today's, YYYY-MM-DD, or None to leave it out; `instructions` is what other APIs call
    the system prompt.
    """

    reasoning: Effort = "medium"
    instructions: str | None = None
    functions: tuple[FunctionTool, ...] = ()
    date: str | None = None


def render(setup: Setup, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The prompt for the assistant's next message; reasoning of finished turns is left out."""
    options = oh.RenderOptions(conversation_has_function_tools=bool(setup.functions))
    ids: list[int] = []
    for message in _setup_messages(setup):
        ids += tokenizer.encoding.render(message, options)
    for message in prune(messages):
        ids += message.ids or tokenizer.encoding.render(_to_openai(message), options)
    return [*ids, START, *tokenizer.encode("assistant")]


def prune(messages: Sequence[Message]) -> list[Message]:
    """The messages a prompt still needs: analysis before the last final answer goes.

    Later analysis stays, because calls and their results belong to it. Function calls and results
    stay whatever their channel; built-in tools' go with the analysis they are part of.
    """
    finals = [i for i, message in enumerate(messages) if message.is_final]
    last_final = finals[-1] if finals else -1
    return [
        message
        for i, message in enumerate(messages)
        if i >= last_final or message.channel != "analysis" or _concerns_function(message)
    ]


def parse(ids: Iterable[int], tokenizer: Tokenizer) -> list[Message]:
    """The messages in a completion, whole; see `StreamParser` for their pieces as they come."""
    parser = StreamParser(tokenizer)
    for i in ids:
        parser.push(i)
    parser.close()
    return parser.messages


class StreamParser:
    """Completion ids in, one at a time; pieces of text and finished messages out.

    Starts where a prompt ends, after `<|start|>assistant`. The deltas of a message concatenate to
    its content, and no bytes cross from one message to the next. No sequence of ids raises.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.messages: list[Message] = []
        self._tokenizer = tokenizer
        self._assistant = tokenizer.encode("assistant")
        self._header: list[int] | None = list(self._assistant)  # None: not in a header
        self._open: Message | None = None  # header of the message whose content is coming
        self._text: list[str] = []
        self._ids: list[int] = [START, *self._assistant]
        self._well_formed = True
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, i: int) -> list[Delta | Message]:
        """Take the next id; returns what became known: deltas, and messages that it finished."""
        if not 0 <= i < VOCAB_SIZE:
            logger.info("id %d is outside the vocabulary", i)
            return []
        if self._open is not None:
            return self._push_content(i)
        return self._push_header(i)

    def close(self) -> list[Delta | Message]:
        """The stream has ended: finishes what is open. The end of the stream closes a call, too."""
        if self._open is not None:
            return self._finish(CALL if self._open.recipient else END)
        return self._abandon_header()

    def _push_header(self, i: int) -> list[Delta | Message]:
        if i in _END_MARKERS:
            return self._abandon_header()
        if i == START:
            events = self._abandon_header()
            self._header, self._ids, self._well_formed = [], [START], True
            return events
        if self._header is None:  # between messages, and no <|start|>
            logger.info("a message begins without <|start|>")
            self._header, self._ids, self._well_formed = list(self._assistant), [START], False
        self._ids.append(i)
        if i == MESSAGE:
            self._open = parse_header(self._tokenizer.decode(self._header))
            self._header = None
            return []
        self._header.append(i)
        if len(self._header) > MAX_HEADER_TOKENS:
            return self._header_was_content()
        return []

    def _push_content(self, i: int) -> list[Delta | Message]:
        if i in _END_MARKERS:
            return self._finish(i)
        if i in (START, CHANNEL):
            logger.info("a message ends without an end marker")
            self._well_formed = False
            return self._finish(END) + self.push(i)
        self._ids.append(i)
        if self._tokenizer.is_special(i):
            logger.info("stray marker %d in a message", i)
            self._well_formed = False
            return []
        return self._delta(self._utf8.decode(self._tokenizer.decode_bytes([i])))

    def _abandon_header(self) -> list[Delta | Message]:
        """The header ends without <|message|>: what it holds beyond its form is content."""
        events = self._header_was_content()
        return events + self._finish(END) if self._open is not None else events

    def _header_was_content(self) -> list[Delta | Message]:
        ids, self._header = self._header, None
        if ids is None:
            return []
        text = self._tokenizer.decode(ids).removeprefix("assistant")
        channel, text = _leading_channel(text)
        text = _MARKER.sub("", text)
        if not text.strip():
            return []
        logger.info("a header without <|message|>: kept as content")
        self._open = Message("assistant", "", channel=channel)
        self._well_formed = False
        return self._delta(text)

    def _delta(self, text: str) -> list[Delta | Message]:
        if not text or self._open is None:
            return []
        self._text.append(text)
        return [Delta(self._open.channel, self._open.recipient, text)]

    def _finish(self, marker: int) -> list[Delta | Message]:
        assert self._open is not None
        events = self._delta(self._utf8.decode(b"", final=True))
        self._utf8.reset()
        ids = (*self._ids, CALL if marker == CALL else END)
        message = replace(
            self._open, content="".join(self._text), ids=ids if self._well_formed else None
        )
        self.messages.append(message)
        self._open, self._header, self._text = None, None, []
        return [*events, message]


_MARKER = re.compile(r"<\|[a-z_0-9]+\|>")
_CHANNEL_SECTION = re.compile(r"<\|channel\|>|<\|constrain\|>")
_RECIPIENT = re.compile(r"(?:^|\s)to=(.*?)(\s+(?:json|code|text))?\s*$", re.DOTALL)


def parse_header(text: str) -> Message:
    """What stands between `<|start|>` and `<|message|>`, as a message without content.

    The recipient may follow the role or the channel; `<|constrain|>` is optional.

    >>> parse_header("assistant<|channel|>commentary to=functions.f <|constrain|>json").recipient
    'functions.f'
    """
    author, channel, constraint = _sections(text)
    author, recipient, content_type = _without_recipient(author)
    channel, channel_recipient, channel_type = _without_recipient(channel)
    constraint, late_recipient, _ = _without_recipient(constraint)
    recipient = channel_recipient or late_recipient or recipient
    words = channel.split()
    role, name, glued = _role(author, recipient)
    known = next((c for c in CHANNELS if words and words[0].startswith(c)), glued)
    if role == "assistant" and known is None and recipient is None:
        if channel:
            logger.info("an unknown channel is taken as final")
        known = "final"
    if constraint:
        content_type = f"<|constrain|>{constraint}"
    else:
        content_type = channel_type or (words[1] if len(words) > 1 else None) or content_type
    recipient = None if recipient in _NOT_TOOLS and role == "assistant" else recipient
    return Message(role, "", known, recipient, content_type, name)


def _sections(text: str) -> tuple[str, str, str]:
    """Role section, channel section and constraint of a header; empty where absent."""
    head, _, constraint = text.partition("<|constrain|>")
    author, _, channel = head.partition("<|channel|>")
    return author.strip(), _MARKER.sub(" ", channel).strip(), _MARKER.sub(" ", constraint).strip()


def _without_recipient(section: str) -> tuple[str, str | None, str | None]:
    """(section without `to=...`, the recipient, the content type that followed it)."""
    match = _RECIPIENT.search(section)
    if match is None:
        return section, None, None
    recipient, content_type = match.groups()
    return (
        section[: match.start()].strip(),
        recipient.strip() or None,
        content_type.strip() if content_type else None,
    )


def _role(author: str, recipient: str | None) -> tuple[str, str | None, str | None]:
    """(role, a tool's name, a channel glued to the role as in `assistantfinal`)."""
    word, *rest = author.split() or ["assistant"]
    if word != "tool" and word in ROLES:
        return word, None, rest[0] if rest and rest[0] in CHANNELS else None
    if word == "tool" or "." in word or recipient in _NOT_TOOLS:
        return "tool", word, None
    glued = word.removeprefix("assistant")
    return "assistant", None, glued if glued in CHANNELS else None


def _leading_channel(text: str) -> tuple[str, str]:
    """(channel, the rest) of a header that never came to its content."""
    text = _CHANNEL_SECTION.sub(" ", text)
    for channel in CHANNELS:
        if re.match(rf"\s*{channel}\b", text):
            return channel, text.lstrip().removeprefix(channel).lstrip(" ")
    return "final", text


def _setup_messages(setup: Setup) -> list[oh.Message]:
    system = oh.SystemContent.new().with_reasoning_effort(
        oh.ReasoningEffort[setup.reasoning.upper()]
    )
    if setup.date is not None:
        system = system.with_conversation_start_date(setup.date)
    messages = [oh.Message.from_role_and_content(oh.Role.SYSTEM, system)]
    if setup.instructions or setup.functions:
        developer = oh.DeveloperContent.new()
        if setup.instructions:
            developer = developer.with_instructions(_valid(setup.instructions))
        if setup.functions:
            tools = [
                oh.ToolDescription.new(t.name, t.description, t.parameters) for t in setup.functions
            ]
            developer = developer.with_function_tools(tools)
        messages.append(oh.Message.from_role_and_content(oh.Role.DEVELOPER, developer))
    return messages


def _to_openai(message: Message) -> oh.Message:
    author = oh.Author(role=oh.Role(message.role), name=message.name)
    rendered = oh.Message.from_author_and_content(author, _valid(message.content))
    rendered.channel = message.channel
    rendered.recipient = message.recipient
    rendered.content_type = message.content_type
    return rendered


def _concerns_function(message: Message) -> bool:
    """Whether it is a call of a user's function, or the result of one."""
    return any((who or "").startswith("functions.") for who in (message.recipient, message.name))


def _valid(text: str) -> str:
    """The text with lone surrogates replaced; they have no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
