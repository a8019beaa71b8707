"""The ids of a completion -> messages, as they come.

A state machine of our own, because it must survive anything a model may emit:

    between messages --<|start|>--> header --<|message|>--> content --<|end|>--> between messages

The recipient makes a message a tool call, whatever its channel and wherever in the header it
stands. What does not fit the format is never an error: parsed messages are kept, the rest becomes
content of the final channel, stray markers are dropped, and the log says so.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterable
from dataclasses import replace

from gptoss_mlx.harmony.messages import CHANNELS, ROLES, Delta, Message
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

__all__ = ["StreamParser", "parse", "parse_header", "without_foreign_ids"]

logger = logging.getLogger(__name__)

MAX_HEADER_TOKENS = 128  # longer ones are text whose <|message|> never came
_END_MARKERS = frozenset({END, RETURN, CALL, ENDOFTEXT})
_NOT_TOOLS = frozenset({"assistant", "user", "all"})


def parse(ids: Iterable[int], tokenizer: Tokenizer) -> list[Message]:
    """The messages in a completion, whole; see `StreamParser` for their pieces as they come."""
    parser = StreamParser(tokenizer)
    for i in ids:
        parser.push(i)
    parser.close()
    return parser.messages


def without_foreign_ids(message: Message, tokenizer: Tokenizer) -> Message:
    """The message; without its ids, if those say anything but what it says."""
    said = parse(message.ids or (), tokenizer)
    is_own = said == [message] and said[0].ids == message.ids
    return message if is_own or message.ids is None else replace(message, ids=None)


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
        if self._header and _CUT_HEADER.fullmatch(self._tokenizer.decode(self._header)):
            logger.info("the stream ends in a header")
            self._header = None
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
        split = ids.index(CHANNEL) if CHANNEL in ids else len(ids)
        author, rest = (self._text_of(part) for part in (ids[:split], ids[split:]))
        channel, rest = _leading_channel(rest) if split < len(ids) else ("final", rest)
        text = author.removeprefix("assistant") + rest
        if not text.strip():
            return []
        logger.info("a header without <|message|>: kept as content")
        self._open = Message("assistant", "", channel=channel)
        self._well_formed = False
        return self._delta(text)

    def _text_of(self, ids: list[int]) -> str:
        """The text of the ordinary ids among these."""
        return self._tokenizer.decode([i for i in ids if not self._tokenizer.is_special(i)])

    def _delta(self, text: str) -> list[Delta | Message]:
        if not text or self._open is None:
            return []
        self._text.append(text)
        return [Delta(self._open.channel, self._open.recipient, text, self._open.role)]

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
_TO = r"(?:\s+(?:t|to|to=\S*))?"
_CUT_HEADER = re.compile(  # all of it is form, none of it text
    rf"(?:(?:assistant)+(?:analysis|commentary|final)?|(?!assistant)[\w.]*){_TO}\s*"
    rf"(?:<\|channel\|>\s*\w*{_TO}\s*(?:<\|constrain\|>)?\w*{_TO}\s*)?"
)
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
    channel_word = words[0] if words else glued
    known = next((c for c in CHANNELS if channel_word.startswith(c)), None)
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
    author = re.sub(r"^assistant(?=\S)", "assistant ", author)  # as in `assistantfinal`
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


def _role(author: str, recipient: str | None) -> tuple[str, str | None, str]:
    """(role, a tool's name, a word after the role, which may be a channel without its marker)."""
    word, *rest = author.split() or ["assistant"]
    if word != "tool" and word in ROLES:
        return word, None, " ".join(rest)
    if word == "tool" or "." in word or recipient in _NOT_TOOLS:
        return "tool", word, ""
    return "assistant", None, ""


def _leading_channel(text: str) -> tuple[str, str]:
    """(channel, the rest) of a header that never came to its content."""
    for channel in CHANNELS:
        if re.match(rf"\s*{channel}\b", text):
            return channel, text.lstrip().removeprefix(channel).lstrip(" ")
    return "final", text
