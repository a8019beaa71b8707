"""The input of a request as the API lists it later: items with ids, their content in parts.

What was ignored is not listed. It does not know what items mean to the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from gptoss_mlx.server.responses import schema

__all__ = ["input_items"]

_PREFIXES: dict[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "web_search_call": "ws",
    "code_interpreter_call": "ci",
    "compaction": "cmp",
}
_Find = Callable[[str], dict[str, Any] | None]


def input_items(
    request: schema.CreateRequest, make_id: Callable[[str], str], find_item: _Find
) -> tuple[dict[str, Any], ...]:
    """The items of a request; those without an id are given one."""
    given = request.input
    if isinstance(given, str):
        given = [schema.InputMessage(role="user", content=given)] if given else []
    items: list[dict[str, Any]] = []
    for item in given:
        listed = find_item(item.id) if isinstance(item, schema.ItemReference) else _listed(item)
        if listed is not None:
            items.append({**listed, "id": listed.get("id") or make_id(_PREFIXES[listed["type"]])})
    return tuple(items)


def _listed(item: schema.InputItem) -> dict[str, Any] | None:
    if isinstance(item, (schema.OtherItem, schema.AdditionalTools, schema.ItemReference)):
        return None
    shown = {"status": "completed", **item.model_dump(exclude_none=True)}
    match item:
        case schema.InputMessage():
            shown["content"] = _parts(item.content, is_output=item.role == "assistant")
        case schema.ReasoningItem():
            shown["content"] = _texts(item.content, "reasoning_text")
            shown["summary"] = _texts(item.summary, "summary_text")
        case schema.FunctionCallOutput() | schema.CustomCallOutput():
            shown["output"] = _output(item.output)
        case schema.WebSearchCall():
            return shown if item.action else None
        case schema.CodeInterpreterCall():
            logs = [o for o in item.outputs or () if o.get("type") == "logs" and "logs" in o]
            shown |= {"container_id": item.container_id or "", "outputs": logs or None}
        case _:
            pass
    return shown


def _texts(parts: Sequence[schema.Part] | None, kind: str) -> list[dict[str, Any]]:
    return [{"type": kind, "text": part.text or ""} for part in parts or ()]


def _output(output: object) -> Any:
    if isinstance(output, str):
        return output
    if isinstance(output, list):
        parts = cast("list[object]", output)
        if all(isinstance(part, schema.Part) for part in parts):
            return _parts(cast("list[schema.Part]", parts), is_output=False)
    return json.dumps(output, ensure_ascii=False)


def _parts(content: schema.Content, *, is_output: bool) -> list[dict[str, Any]]:
    if isinstance(content, str):
        content = [schema.Part(text=content)]
    return [_part(part, is_output=is_output) for part in content]


def _part(part: schema.Part, *, is_output: bool) -> dict[str, Any]:
    if part.refusal is not None:
        return {"type": "refusal", "refusal": part.refusal}
    if is_output:
        return {"type": "output_text", "text": part.text or "", "annotations": []}
    if part.type == "input_image":
        return {"type": "input_image", "detail": "auto", "image_url": part.image_url}
    if part.type == "input_file":
        return {"type": "input_file", "filename": part.filename}
    return {"type": "input_text", "text": part.text or ""}
