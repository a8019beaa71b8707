"""The parser, against what a model may emit: headers, what fits no format, cut characters."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gptoss_mlx.harmony import Delta, Message, StreamParser, parse, parse_header
from gptoss_mlx.tokenizer import CHANNEL, CONSTRAIN, MESSAGE, RETURN, START, VOCAB_SIZE, Tokenizer

from .completions import STOPS, completion, parse_events

TYPES = {" <|constrain|>json": "<|constrain|>json", " json": "json", " code": "code", "": None}


@pytest.mark.parametrize("stop", ["<|call|>", ""], ids=["call token", "end of stream"])
@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("position", ["role", "channel", "none"])
@pytest.mark.parametrize("channel", ["analysis", "commentary", "final"])
def test_the_recipient_decides(
    tokenizer: Tokenizer, channel: str, position: str, content_type: str, stop: str
) -> None:
    """One call for each message with a recipient, wherever it stands; none without."""
    to = " to=functions.f"
    author, section = (to if position == place else "" for place in ("role", "channel"))
    header = f"{author}<|channel|>{channel}{section}{content_type}"
    (message,) = completion(tokenizer, f'{header}<|message|>{{"a": 1}}{stop}')
    assert message.is_tool_call == (position != "none")
    assert message.recipient == ("functions.f" if position != "none" else None)
    assert message.channel == channel
    assert message.content_type == TYPES[content_type]
    assert message.content == '{"a": 1}'
    assert message.ids is not None


@pytest.mark.parametrize("content_type", TYPES)
def test_a_call_without_a_channel(tokenizer: Tokenizer, content_type: str) -> None:
    """A recipient makes a call even where the channel section is missing."""
    (message,) = completion(tokenizer, f" to=functions.f{content_type}<|message|>{{}}<|call|>")
    assert (message.recipient, message.channel) == ("functions.f", None)
    assert message.content_type == TYPES[content_type]


@dataclass(frozen=True)
class Case:
    """A completion and the (channel, recipient, content) of what it holds."""

    completion: str
    messages: tuple[tuple[str | None, str | None, str], ...]


THINK, FINAL = ("analysis", None, "hm"), ("final", None, "Hi")
MALFORMED = {
    "nothing": Case("", ()),
    "only a header": Case("<|channel|>final", ()),
    "empty content": Case("<|channel|>final<|message|><|return|>", (("final", None, ""),)),
    "no start": Case(
        "<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>Hi", (THINK, FINAL)
    ),
    "no end before start": Case(
        "<|channel|>analysis<|message|>hm<|start|>assistant<|channel|>final<|message|>Hi",
        (THINK, FINAL),
    ),
    "no end before channel": Case(
        "<|channel|>analysis<|message|>hm<|channel|>final<|message|>Hi", (THINK, FINAL)
    ),
    "no message": Case("<|channel|>final Hi<|return|>", (FINAL,)),
    "no message, then a message": Case(
        "<|channel|>analysis hm<|start|>assistant<|channel|>final<|message|>Hi", (THINK, FINAL)
    ),
    "no channel": Case("<|message|>Hi<|return|>", (FINAL,)),
    "bare text": Case("Hi<|return|>", (FINAL,)),
    "bare text that begins like a channel": Case(
        "final answers are rare<|return|>", (("final", None, "final answers are rare"),)
    ),
    "bare text that spells markers": Case("a <|b|> c", (("final", None, "a <|b|> c"),)),
    "bare text after an answer": Case(
        "<|channel|>final<|message|>Hi<|end|>more<|return|>", (FINAL, ("final", None, "more"))
    ),
    "stop after stop": Case("<|channel|>final<|message|>Hi<|return|><|end|><|call|>", (FINAL,)),
    "start after start": Case("<|start|><|start|>assistant<|channel|>final<|message|>Hi", (FINAL,)),
    "message after message": Case("<|channel|>final<|message|><|message|>Hi", (FINAL,)),
    "endoftext": Case("<|channel|>final<|message|>Hi<|endoftext|>", (FINAL,)),
    "glued channel": Case("final<|message|>Hi<|return|>", (FINAL,)),
    "glued channel, no start": Case(
        "<|channel|>analysis<|message|>hm<|end|>assistantfinal<|message|>Hi", (THINK, FINAL)
    ),
    "glued channel after start": Case(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistantfinal<|message|>Hi",
        (THINK, FINAL),
    ),
    "marker in content": Case("<|channel|>final<|message|>H<|constrain|>i<|return|>", (FINAL,)),
    "reserved id in content": Case(
        "<|channel|>final<|message|>H<|reserved_200013|>i<|return|>", (FINAL,)
    ),
    "unknown channel": Case("<|channel|>thoughts<|message|>Hi<|return|>", (FINAL,)),
    "recipient with a space": Case(
        "<|channel|>commentary to=functions.Web Search <|constrain|>json<|message|>{}<|call|>",
        (("commentary", "functions.Web Search", "{}"),),
    ),
    "recipient with a space, no constrain": Case(
        "<|channel|>commentary to=functions.Web Search json<|message|>{}<|call|>",
        (("commentary", "functions.Web Search", "{}"),),
    ),
    "recipient after constrain": Case(
        "<|channel|>commentary<|constrain|>json to=functions.f<|message|>{}<|call|>",
        (("commentary", "functions.f", "{}"),),
    ),
    "no space before constrain": Case(
        "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
        (("commentary", "functions.f", "{}"),),
    ),
    "addressed to the user": Case("<|channel|>final to=user<|message|>Hi", (FINAL,)),
    "addressed to itself": Case("<|channel|>analysis to=assistant<|message|>hm", (THINK,)),
    "two calls": Case(
        "<|channel|>commentary to=functions.f<|message|>1<|call|>"
        "<|start|>assistant<|channel|>commentary to=functions.g<|message|>2<|call|>",
        (("commentary", "functions.f", "1"), ("commentary", "functions.g", "2")),
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_completions(tokenizer: Tokenizer, name: str) -> None:
    """What does not fit the format is kept as content, and nothing else is changed."""
    found = completion(tokenizer, MALFORMED[name].completion)
    assert tuple((m.channel, m.recipient, m.content) for m in found) == MALFORMED[name].messages
    assert all(m.role == "assistant" for m in found)


@pytest.mark.parametrize(
    ("header", "role", "name"),
    [
        ("user", "user", None),
        ("system", "system", None),
        ("developer", "developer", None),
        ("functions.f to=assistant<|channel|>commentary", "tool", "functions.f"),
        ("python to=assistant<|channel|>analysis", "tool", "python"),
    ],
)
def test_hallucinated_messages(
    tokenizer: Tokenizer, header: str, role: str, name: str | None
) -> None:
    """A message that the model writes in another's name is not shown, and the next one is."""
    text = f"<|channel|>final<|message|>Hi<|end|><|start|>{header}<|message|>x<|end|>"
    last = "<|start|>assistant<|channel|>final<|message|>Bye<|return|>"
    first, foreign, final = completion(tokenizer, text + last)
    assert (foreign.role, foreign.name, foreign.content) == (role, name, "x")
    assert (first.is_shown, foreign.is_shown, final.is_shown) == (True, False, True)
    assert not foreign.is_tool_call


def test_headers_without_end_become_content(tokenizer: Tokenizer) -> None:
    """Text whose <|message|> never comes is streamed once it is too long for a header."""
    text = " ".join(["word"] * 500)
    parser = StreamParser(tokenizer)
    events = [event for i in tokenizer.encode(text) for event in parser.push(i)]
    assert len(events) > 300
    parser.close()
    assert [(m.channel, m.content, m.ids) for m in parser.messages] == [("final", text, None)]


@pytest.mark.parametrize("stray", [-1, VOCAB_SIZE, 1 << 40])
def test_ids_outside_the_vocabulary_are_dropped(tokenizer: Tokenizer, stray: int) -> None:
    """An id that no token has changes nothing, in headers and in content."""
    ids = tokenizer.encode_with_special("<|channel|>final<|message|>Hi there<|return|>")
    spoiled = [j for i in ids for j in (stray, i)]
    assert parse_events(spoiled, tokenizer) == parse_events(ids, tokenizer)


def test_characters_split_over_tokens(tokenizer: Tokenizer) -> None:
    """A character of several tokens is one delta, whole, when its last byte has come."""
    pieces = tokenizer.encode("🫠")
    assert len(pieces) == 3
    ids = [CHANNEL, *tokenizer.encode("final"), MESSAGE, *pieces, RETURN]
    deltas = [event for event in parse_events(ids, tokenizer) if isinstance(event, Delta)]
    assert deltas == [Delta("final", None, "🫠")]


@pytest.mark.parametrize("marker", [*STOPS, START, CHANNEL, None])
def test_characters_cut_by_a_marker(tokenizer: Tokenizer, marker: int | None) -> None:
    """Half a character becomes U+FFFD, and its bytes do not reach the next message."""
    half, rest = tokenizer.encode("🫠")[:1], tokenizer.encode("🫠")[1:]
    ids = [CHANNEL, *tokenizer.encode("analysis"), MESSAGE, *half]
    if marker is not None:
        ids += [marker, CHANNEL, *tokenizer.encode("final"), MESSAGE, *rest, RETURN]
    first, *others = parse(ids, tokenizer)
    assert first.content == "\ufffd"
    assert all(m.content == "\ufffd" * 2 for m in others)
    assert len(others) == (marker is not None)


def test_stray_markers_keep_a_character_together(tokenizer: Tokenizer) -> None:
    """A marker that does not belong in content leaves the bytes around it as they are."""
    first, *rest = tokenizer.encode("🫠")
    ids = [CHANNEL, *tokenizer.encode("final"), MESSAGE, first, CONSTRAIN, *rest]
    assert [m.content for m in parse(ids, tokenizer)] == ["🫠"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("assistant", Message("assistant", "", "final")),
        ("assistant<|channel|>analysis", Message("assistant", "", "analysis")),
        ("", Message("assistant", "", "final")),
        ("user", Message("user", "")),
        ("tool", Message("tool", "", name="tool")),
        (
            "functions.f to=assistant<|channel|>commentary",
            Message("tool", "", "commentary", recipient="assistant", name="functions.f"),
        ),
        (
            "assistant to=python<|channel|>analysis code",
            Message("assistant", "", "analysis", recipient="python", content_type="code"),
        ),
    ],
)
def test_parse_header(header: str, expected: Message) -> None:
    """The fields of a header, as its text names them."""
    assert parse_header(header) == expected


def test_close_twice(tokenizer: Tokenizer) -> None:
    """A second close adds nothing."""
    parser = StreamParser(tokenizer)
    for i in tokenizer.encode_with_special("<|channel|>final<|message|>Hi"):
        parser.push(i)
    assert len(parser.close()) == 1
    assert parser.close() == []
    assert len(parser.messages) == 1
