"""Tests of gptoss_mlx.server.responses.listing."""

from __future__ import annotations

from typing import Any

from openai.types.responses import ResponseItemList

from gptoss_mlx.server.responses.listing import input_items
from gptoss_mlx.server.responses.schema import CreateRequest


def test_input_as_it_is_listed() -> None:
    """OpenAI's types take every item; those without an id have one, ignored ones are not there."""
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:x"},
        {"type": "input_file", "filename": "f.txt", "file_data": "x"},
    ]
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "developer", "content": parts},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": "Ho"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": parts[:1]},
        {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
        {"type": "custom_tool_call", "call_id": "d", "name": "p", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "y"},
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "web_search_call"},
        {"type": "code_interpreter_call", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]},
        {"type": "item_reference", "id": "msg_9"},
        {"type": "item_reference", "id": "gone"},
        {"type": "additional_tools", "tools": []},
        {"type": "news"},
    ]
    kept: dict[str, dict[str, Any]] = {
        "msg_9": {"id": "msg_9", "type": "message", "role": "user", "content": []}
    }
    request = CreateRequest.model_validate({"input": given})
    items = input_items(request, lambda prefix: f"{prefix}_new", kept.get)
    page = {"object": "list", "data": items, "first_id": "a", "last_id": "b", "has_more": False}
    assert len(ResponseItemList.model_validate(page).data) == len(items) == 13
    ids = ["msg_new", "msg_new", "msg_1", "msg_new", "rs_new"]
    assert [item["id"] for item in items][:5] == ids
    assert items[7]["output"] == '{"a": 1}'
    text = input_items(CreateRequest(input="Hi"), lambda prefix: prefix, kept.get)
    assert text[0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert input_items(CreateRequest(input=""), lambda prefix: prefix, kept.get) == ()
