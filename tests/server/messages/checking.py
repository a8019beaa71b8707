"""What every stream of events must keep to; Anthropic's own client is the oracle of shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from anthropic import BaseModel
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, ParsedMessage, RawMessageStreamEvent

from gptoss_mlx.server.answer import Wire

__all__ = ["check_blocks", "check_message", "check_stream", "folded"]

_UNION = get_args(RawMessageStreamEvent)[0]  # of Annotated
_EVENTS: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(_UNION)
}
_TEXTS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def check_stream(wires: Sequence[Wire], final: dict[str, Any], *, has_shapes: bool = True) -> None:
    """The events are in order and add up to the final message; the shapes take longest."""
    names = [name for name, _ in wires]
    assert names == [data["type"] for _, data in wires]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert {"message_start", "message_delta", "message_stop"}.isdisjoint(names[1:-2])
    events = [data for _, data in wires]
    check_blocks(events[1:-2], final["content"])
    ending = events[-2]
    assert ending["delta"] == {key: final[key] for key in ("stop_reason", "stop_sequence")}
    assert ending["usage"] == final["usage"]
    start = events[0]["message"]
    assert {
        **start,
        **ending["delta"],
        "content": final["content"],
        "usage": final["usage"],
    } == final
    if has_shapes:
        for data in events:
            _EVENTS[data["type"]].model_validate(data, strict=True)
        check_message(final)
        assert dumped(folded(events)) == dumped(Message.model_validate(final))


def dumped(message: Message) -> dict[str, Any]:
    """What a message says; of what may be missing some is not there, and some is null."""
    return message.model_dump(exclude_none=True)


def check_message(message: dict[str, Any]) -> Message:
    """It is what Anthropic's client takes for a message, and it is JSON."""
    assert json.loads(json.dumps(message, allow_nan=False)) == message
    return Message.model_validate(message)


def folded(events: Sequence[dict[str, Any]]) -> ParsedMessage[Any]:
    """What Anthropic's client makes of the events."""
    message: ParsedMessage[Any] | None = None
    buffers: dict[int, bytes] = {}
    for data in events:
        if data["type"] in _EVENTS:
            event: Any = _EVENTS[data["type"]].model_validate(data)
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert message is not None
    return message


def check_blocks(events: Sequence[dict[str, Any]], content: Sequence[dict[str, Any]]) -> None:
    """Blocks begin in order, one at a time, grow, and end as they are given."""
    place = -1
    is_open = False
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "ping":
            continue
        if event["type"] == "content_block_start":
            assert not is_open
            place, is_open, texts = place + 1, True, {}
            check_start(event["content_block"], content[place])
        assert is_open
        assert event["index"] == place
        if event["type"] == "content_block_delta":
            key = _TEXTS[event["delta"]["type"]]
            assert event["delta"][key]
            assert "signature" not in texts, "the signature comes last"
            texts[key] = texts.get(key, "") + event["delta"][key]
        elif event["type"] == "content_block_stop":
            is_open = False
            check_end(texts, content[place])
    assert not is_open
    assert place == len(content) - 1


def check_start(begun: dict[str, Any], block: dict[str, Any]) -> None:
    """What a block is, without what is to come."""
    empty: dict[str, Any] = {"text": "", "thinking": "", "signature": "", "input": {}}
    assert begun == {**block, **{key: empty[key] for key in block if key in empty}}


def check_end(texts: dict[str, str], block: dict[str, Any]) -> None:
    """The deltas concatenate to the block."""
    if "partial_json" in texts:
        whole = texts.pop("partial_json")
        assert is_cut(whole) or json.loads(whole) == block["input"]
    assert texts == {key: block[key] for key in texts}
    said = {key for key in ("text", "thinking", "signature") if block.get(key)}
    assert set(texts) == said


def is_cut(text: str) -> bool:
    """Whether it is not the whole of a JSON text."""
    try:
        json.loads(text)
    except ValueError:
        return True
    return False
