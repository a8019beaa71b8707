"""What every stream of events must keep to; OpenAI's own types are the oracle of shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

from gptoss_mlx.server.responses.writing import Numbered

__all__ = ["EVENTS", "check_response", "check_stream"]

_UNION = get_args(ResponseStreamEvent)[0]  # of Annotated
EVENTS: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(_UNION)
}
_FINAL = ("response.completed", "response.incomplete", "response.failed")
_TEXTS = {  # deltas: (the event that has the whole, its key)
    "response.output_text.delta": ("response.output_text.done", "text"),
    "response.reasoning_text.delta": ("response.reasoning_text.done", "text"),
    "response.reasoning_summary_text.delta": ("response.reasoning_summary_text.done", "text"),
    "response.function_call_arguments.delta": (
        "response.function_call_arguments.done",
        "arguments",
    ),
    "response.custom_tool_call_input.delta": ("response.custom_tool_call_input.done", "input"),
    "response.code_interpreter_call_code.delta": (
        "response.code_interpreter_call_code.done",
        "code",
    ),
}
_DONE = dict(_TEXTS.values())


def check_response(response: dict[str, Any]) -> Response:
    """It is what OpenAI's client takes for a response, and it is JSON."""
    assert json.loads(json.dumps(response, allow_nan=False)) == response
    return Response.model_validate(response)


def check_stream(
    wires: Sequence[Numbered], final: dict[str, Any], *, has_shapes: bool = True
) -> None:
    """The events are in order and add up to the final response; the shapes take longest."""
    assert [name for name, _ in wires[:2]] == ["response.created", "response.in_progress"]
    assert [data["sequence_number"] for _, data in wires] == list(range(len(wires)))
    assert [name for name, _ in wires if name in _FINAL] == [wires[-1][0]]
    assert wires[-1][1]["response"] == final
    for name, data in wires:
        assert data["type"] == name
        if has_shapes:
            check_event(data)
    check_items([data for _, data in wires], final)
    if has_shapes:
        check_response(final)


def check_event(data: dict[str, Any]) -> None:
    """OpenAI's types take the event, and every item that a response shows has ended."""
    EVENTS[data["type"]].model_validate(data)
    if "response" in data:
        assert {item["status"] for item in data["response"]["output"]} <= {
            "completed",
            "incomplete",
            "failed",
        }


def check_items(events: Sequence[dict[str, Any]], final: dict[str, Any]) -> None:
    """Items are added in order, change between being added and being done, and end as given."""
    added: list[str] = []
    done: dict[str, dict[str, Any]] = {}
    texts: dict[tuple[str, str], str] = {}
    for event in events:
        kind: str = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(added)
            assert event["item"]["id"] not in added
            assert event["item"]["status"] == "in_progress"
            added.append(event["item"]["id"])
        elif kind == "response.output_item.done":
            assert added[event["output_index"]] == event["item"]["id"]
            assert event["item"]["id"] not in done
            done[event["item"]["id"]] = event["item"]
        elif "item_id" in event:
            assert added[event["output_index"]] == event["item_id"]
            assert event["item_id"] not in done
            if kind in _TEXTS:
                key = (event["item_id"], _TEXTS[kind][0])
                texts[key] = texts.get(key, "") + event["delta"]
                assert event["delta"]
            elif kind in _DONE:
                assert texts.pop((event["item_id"], kind), "") == event[_DONE[kind]]
    assert not texts, "deltas without an end"
    assert [done[identity] for identity in added] == final["output"]
    for item in final["output"]:
        check_item([event for event in events if event.get("item_id") == item["id"]], item)


def check_item(events: Sequence[dict[str, Any]], item: dict[str, Any]) -> None:
    """What the events of one item say adds up to it."""
    parts = [e for e in events if e["type"] == "response.content_part.done"]
    opened = [e for e in events if e["type"] == "response.content_part.added"]
    assert [e["content_index"] for e in parts] == [e["content_index"] for e in opened]
    match item["type"]:
        case "message":
            assert [e["part"] for e in parts] == item["content"]
            check_text(events, item["content"][0])
        case "reasoning":
            assert [e["part"] for e in parts] == item["content"]
            assert all(part["text"] == item["content"][0]["text"] for part in item["summary"])
        case "function_call":
            assert _whole(events, "function_call_arguments") == item["arguments"]
        case "custom_tool_call":
            assert _whole(events, "custom_tool_call_input") == item["input"]
        case "code_interpreter_call":
            assert _whole(events, "code_interpreter_call_code") == item["code"]
        case kind:
            assert kind == "web_search_call"


def check_text(events: Sequence[dict[str, Any]], part: dict[str, Any]) -> None:
    """Deltas, log-probabilities and annotations are the part's."""
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(e["delta"] for e in deltas) == part["text"]
    assert [entry for e in deltas for entry in e["logprobs"]] == part["logprobs"]
    annotations = [e for e in events if e["type"] == "response.output_text.annotation.added"]
    assert [e["annotation"] for e in annotations] == part["annotations"]
    assert [e["annotation_index"] for e in annotations] == list(range(len(annotations)))
    for annotation in part["annotations"]:
        cited = part["text"][annotation["start_index"] : annotation["end_index"]]
        assert annotation["url"] in cited


def _whole(events: Sequence[dict[str, Any]], name: str) -> str:
    return "".join(e["delta"] for e in events if e["type"] == f"response.{name}.delta")
