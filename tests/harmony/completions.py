"""Completions parsed with their promises checked."""

from __future__ import annotations

from collections.abc import Sequence

from gptoss_mlx.harmony import Delta, Message, StreamParser
from gptoss_mlx.tokenizer import CALL, END, ENDOFTEXT, RETURN, Tokenizer

__all__ = ["STOPS", "checked_parse", "completion", "parse_events"]

STOPS = (END, RETURN, CALL, ENDOFTEXT)


def parse_events(ids: Sequence[int], tokenizer: Tokenizer) -> list[Delta | Message]:
    """All events of a completion, those of its end included."""
    parser = StreamParser(tokenizer)
    return [event for i in ids for event in parser.push(i)] + parser.close()


def completion(tokenizer: Tokenizer, text: str) -> list[Message]:
    """The messages of a completion written with markers."""
    return checked_parse(tokenizer.encode_with_special(text), tokenizer)


def checked_parse(ids: Sequence[int], tokenizer: Tokenizer) -> list[Message]:
    """The messages of a completion, once it is sure that their deltas concatenate to them."""
    messages: list[Message] = []
    deltas: list[Delta] = []
    for event in parse_events(ids, tokenizer):
        if isinstance(event, Delta):
            deltas.append(event)
            continue
        assert "".join(delta.text for delta in deltas) == event.content, ids
        assert {d.is_shown for d in deltas} <= {event.is_shown}, ids
        headers = {(d.role, d.channel, d.recipient) for d in deltas}
        assert headers <= {(event.role, event.channel, event.recipient)}, ids
        messages.append(event)
        deltas = []
    assert not deltas, ids
    return messages
