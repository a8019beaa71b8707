"""By which of its facts an item is known again when a client sends it back; see `Recall`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["all_facts_of", "facts_of"]

# What a client sends back of an item, and what of it must be as it was. Items of builtin tools hold
# too little of what happened: they go by their ids.
_SAID: dict[str, tuple[str, ...]] = {
    "reasoning": ("content",),
    "message": ("content",),
    "function_call": ("call_id", "namespace", "name", "arguments"),
    "custom_tool_call": ("call_id", "namespace", "name", "input"),
    "web_search_call": ("id",),
    "code_interpreter_call": ("id",),
}


def facts_of(item: Mapping[str, Any]) -> list[object]:
    """What it says, with its id, and without, since some clients lose ids."""
    kind = cast("str", item.get("type"))
    fields = _SAID.get(kind)
    if fields is None or (fields == ("id",) and not item.get("id")):
        return []
    said = [kind, *(_said(item.get(field), field) for field in fields)]
    return [[*said, item.get("id")], said]


def all_facts_of(item: Mapping[str, Any]) -> list[object]:
    """The same of an item that is given out; of reasoning some clients keep no more than its id."""
    if item.get("type") != "reasoning":
        return facts_of(item)
    return [*facts_of(item), facts_of({**item, "content": []})[0]]


def _said(value: object, field: str) -> object:
    """The texts of parts; a content that is one text is one part."""
    if field == "content" and not isinstance(value, list):
        return [value] if value else []
    if not isinstance(value, list):
        return value
    return [cast("dict[str, Any]", part).get("text") for part in cast("list[object]", value)]
