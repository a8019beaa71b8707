"""What calls of functions have in common: names, schemas, checked arguments, and a preview."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.base import Preview, json_arguments

__all__ = ["NAME", "call_preview", "check_arguments", "inlined", "schema_error"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_TITLE = 80  # characters of a call that are shown in one line
_DEFINITIONS = ("$defs", "definitions")


def call_preview(name: str, content: str) -> Preview:
    """`get_weather(city="Oslo")`, and the arguments below where they are long.

    Raises:
        ToolError: the arguments are no JSON object.
    """
    arguments = json_arguments(content)
    shown = ((key, json.dumps(value, ensure_ascii=False)) for key, value in arguments.items())
    title = f"{name}({', '.join(f'{key}={value}' for key, value in shown)})"
    if len(title) <= _TITLE and title.isprintable():
        return Preview(title)
    return Preview(f"{name}(...)", json.dumps(arguments, indent=2, ensure_ascii=False), "json")


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its definitions where they are used: models are shown no `$ref`.

    What refers to itself becomes anything at all, the second time.
    """
    definitions = {
        f"#/{key}/{name}": value
        for key in _DEFINITIONS
        if isinstance(schema.get(key), Mapping)  # a schema may be anybody's
        for name, value in schema[key].items()
    }
    bare = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    return cast("dict[str, Any]", _resolved(bare, definitions, ()))


def _resolved(value: object, definitions: dict[str, Any], inside: tuple[str, ...]) -> object:
    if isinstance(value, list):
        return [_resolved(item, definitions, inside) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    node = cast("dict[str, object]", value)
    result = {
        key: _resolved(item, definitions, inside) for key, item in node.items() if key != "$ref"
    }
    name = node.get("$ref")
    if name is None:
        return result
    if not isinstance(name, str) or name in inside or name not in definitions:
        return result
    target = _resolved(definitions[name], definitions, (*inside, name))
    return {**cast("dict[str, object]", target), **result} if isinstance(target, dict) else target


def schema_error(schema: object) -> str | None:
    """What is wrong with a JSON schema of arguments, or None."""
    from jsonschema import Draft202012Validator, SchemaError

    if not isinstance(schema, dict) or cast("dict[str, Any]", schema).get("type") != "object":
        return 'it is no object with "type": "object"'
    try:
        Draft202012Validator.check_schema(cast("dict[str, Any]", schema))
    except SchemaError as error:
        return error.message
    return None


def check_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Nothing, where arguments are as their schema says.

    Raises:
        ToolError: they are not; the text names each that is wrong.
    """
    from jsonschema import Draft202012Validator

    errors = [
        f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message[:300]}"
        for error in Draft202012Validator(schema).iter_errors(arguments)
    ]
    if errors:
        raise ToolError(f"the arguments are wrong: {'; '.join(errors[:5])}")
