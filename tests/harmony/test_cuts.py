"""Every kind of message, its bytes cut into tokens anywhere: what is found is always the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import pytest

from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.tokenizer import Tokenizer

from .completions import checked_parse, parse_events

MARKER = re.compile(r"(<\|[a-z]+\|>)")
THINK = "<|channel|>analysis<|message|>Hm, São?<|end|><|start|>assistant"
CONTENT = '{"city": "São 🫠"}'
TYPES = [" <|constrain|>json", "<|constrain|>json", " json", " code", ""]


@pytest.fixture(scope="module")
def byte_ids(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The tokens that are single bytes."""
    singles = ((tokenizer.decode_bytes([i]), i) for i in range(256))
    found = {text: i for text, i in singles if len(text) == 1}
    assert len(found) == 256
    return found


def encode(text: bytes, tokenizer: Tokenizer, byte_ids: dict[bytes, int]) -> list[int]:
    """Ids of any bytes."""
    try:
        return tokenizer.encode(text.decode())
    except UnicodeDecodeError:
        return [byte_ids[text[i : i + 1]] for i in range(len(text))]


def cuts(completion: str, tokenizer: Tokenizer, byte_ids: dict[bytes, int]) -> Iterator[list[int]]:
    """The ids of a completion, with a text of it cut in two, for every byte of every text."""
    parts = MARKER.split(completion)
    ids = [tokenizer.encode_with_special(part) for part in parts]
    for n, part in enumerate(parts):
        text = part.encode() if not MARKER.fullmatch(part) else b""
        for k in range(1, len(text)):
            two = [encode(half, tokenizer, byte_ids) for half in (text[:k], text[k:])]
            yield list(chain.from_iterable([*ids[:n], *two, *ids[n + 1 :]]))


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("position", ["role", "channel", "none"])
@pytest.mark.parametrize("channel", ["analysis", "commentary", "final"])
@pytest.mark.parametrize("stop", ["<|call|>", "<|return|>", ""])
def test_cut_at_every_byte(
    tokenizer: Tokenizer,
    byte_ids: dict[bytes, int],
    channel: str,
    position: str,
    content_type: str,
    stop: str,
) -> None:
    """Streamed or whole, a message is the same wherever the tokens of its text begin."""
    to = " to=functions.f"
    author, section = (to if position == place else "" for place in ("role", "channel"))
    header = f"{author}<|channel|>{channel}{section}{content_type}"
    completion = f"{THINK}{header}<|message|>{CONTENT}{stop}"
    recipient = None if position == "none" else "functions.f"
    for ids in cuts(completion, tokenizer, byte_ids):
        thought, message = checked_parse(ids, tokenizer)
        assert (thought.content, thought.channel) == ("Hm, São?", "analysis")
        assert (message.content, message.channel, message.recipient) == (
            CONTENT,
            channel,
            recipient,
        )


def test_ended_after_every_byte(tokenizer: Tokenizer, byte_ids: dict[bytes, int]) -> None:
    """A call that was cut off has the arguments that came, half a character as one."""
    header = tokenizer.encode_with_special("<|channel|>commentary to=functions.f<|message|>")
    text = CONTENT.encode()
    for k in range(len(text) + 1):
        ids = [*header, *encode(text[:k], tokenizer, byte_ids)]
        events = parse_events(ids, tokenizer)
        (call,) = (event for event in events if isinstance(event, Message))
        assert call.content == text[:k].decode(errors="replace")
        assert call.is_tool_call
        streamed = "".join(event.text for event in events if isinstance(event, Delta))
        assert streamed == call.content
