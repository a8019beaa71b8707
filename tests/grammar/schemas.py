"""A hundred JSON schemas: half written to be nasty, half generated. All outputs are bounded.

Bounded, because the demo model knows nothing of schemas: it would never end a string by itself.
"""

from __future__ import annotations

import random
from typing import Any

__all__ = ["SCHEMAS", "arguments_schema"]

Schema = dict[str, Any]
SHORT: Schema = {"type": "string", "maxLength": 12}
SMALL: Schema = {"type": "integer", "minimum": -50, "maximum": 50}
NOTHING: Schema = {"type": "null"}


def strict(properties: dict[str, Schema], **more: object) -> Schema:
    """An object as OpenAI's strict mode wants it: everything required, nothing else allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def array(items: Schema, least: int = 0, most: int = 3) -> Schema:
    """A short array."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def any_of(*schemas: Schema) -> Schema:
    """One of several."""
    return {"anyOf": list(schemas)}


def of_type(*types: str, **more: object) -> Schema:
    """Of one type, or of one of several."""
    return {"type": types[0] if len(types) == 1 else list(types), **more}


def matching(pattern: str) -> Schema:
    """A string with a pattern."""
    return of_type("string", pattern=pattern)


_COLOUR: Schema = {"enum": ["red", "grün", "青", "🔴", 'quo"te', "back\\slash", "a/b", "line\nend"]}
_SHAPE = any_of(
    strict({"kind": {"const": "circle"}, "radius": SMALL}),
    strict({"kind": {"const": "box"}, "width": SMALL, "height": SMALL}),
    strict({"kind": {"const": "label"}, "text": SHORT, "font": any_of(SHORT, NOTHING)}),
)
_TREE = strict(
    {"root": {"$ref": "#/$defs/node"}},
    **{
        "$defs": {
            "node": strict({"value": SMALL, "left": {"$ref": "#/$defs/leaf"}}),
            "leaf": any_of(NOTHING, strict({"value": SMALL})),
        }
    },
)

WRITTEN: tuple[Schema, ...] = (
    # scalars and data
    SHORT,
    SMALL,
    of_type("boolean"),
    NOTHING,
    {"const": "only this"},
    {"const": {"deep": [1, {"é": None}], "t": True}},
    {"enum": [1, "1", True, None, 2.5, [1], {"a": 1}]},
    _COLOUR,
    of_type("number", minimum=0, maximum=1, multipleOf=0.25),
    of_type("integer", exclusiveMinimum=0, exclusiveMaximum=3),
    of_type("integer", multipleOf=7, minimum=-70, maximum=70),
    of_type("string", "null", maxLength=5),
    of_type("integer", "boolean", minimum=0, maximum=9),
    of_type("string", minLength=3, maxLength=3),
    of_type("string", maxLength=0),
    # patterns and formats
    matching("^[A-Z]{2}-\\d{4}$"),
    matching("^(yes|no|maybe)$"),
    matching("^[а-я]{1,6}$"),
    matching('^"[^"]{0,5}"$'),
    matching("^\\\\{1,3}$"),
    of_type("string", pattern="^a*b?$", maxLength=8),
    of_type("string", format="date"),
    of_type("string", format="uuid"),
    of_type("string", format="ipv4"),
    of_type("string", format="colour-of-the-day", maxLength=6),
    # arrays
    array(SMALL),
    array(SHORT, 2, 2),
    array(array(of_type("boolean"), 1, 2), 1, 2),
    array(_COLOUR, 1, 4),
    of_type("array", maxItems=0),
    of_type("array", prefixItems=[SHORT, SMALL], items=False, minItems=2),
    array(any_of(SMALL, NOTHING, SHORT)),
    # objects
    strict({}),
    strict({"a": SHORT}),
    strict({"naïve": SMALL, "日本語": SHORT, "🙂": of_type("boolean"), "with space": NOTHING}),
    strict({'quo"te': SMALL, "back\\slash": SMALL, "new\nline": SMALL, "": SMALL}),
    {**strict({"a": SMALL, "b": SHORT, "c": NOTHING}), "required": ["b"]},
    of_type("object", patternProperties={"^[a-zé]{1,4}$": SHORT}, additionalProperties=False,
            minProperties=1, maxProperties=1),
    of_type("object", patternProperties={"^x_[a-z]{1,3}$": SMALL}, additionalProperties=False,
            maxProperties=1),
    strict({"a": strict({"b": strict({"c": strict({"d": strict({"e": SMALL})})})})}),
    strict({"format": SHORT, "title": SMALL, "default": NOTHING, "type": {"const": "x"}}),
    # choices and references
    _SHAPE,
    array(_SHAPE, 1, 2),
    _TREE,
    strict({"a": {"$ref": "#/definitions/b"}}, definitions={"b": any_of(SHORT, SMALL)}),
    strict({"a": any_of(strict({"b": any_of(strict({"c": SMALL}), NOTHING)}), NOTHING)}),
    {"oneOf": [SMALL, SHORT]},
    {"allOf": [of_type("object", properties={"a": SMALL}), {"required": ["a"]}],
     "additionalProperties": False, "properties": {"a": True}},
    # annotations, which change nothing
    {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": "c", "title": "A title",
     "description": 'Says "{100000}" and \\', "examples": [{"a": 1}], "deprecated": True,
     **strict({"a": {**SMALL, "default": 1, "description": "d", "readOnly": True, "x-order": 2}})},
    {"$id": "https://example.com/s.json", **strict({"a": {"$ref": "#/$defs/a"}}),
     "$defs": {"a": {"enum": ["x", "y"], "nullable": True}}},
)  # fmt: skip


def generated(seed: int) -> Schema:
    """A random object of nested properties."""
    return _object(random.Random(seed), depth=3)


def arguments_schema(n: int) -> Schema:
    """Parameters of a tool: the n-th object among the schemas."""
    objects = [schema for schema in SCHEMAS if schema.get("type") == "object"]
    return objects[n % len(objects)]


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(["id", "name", "straße", "数", "is_ok", "x-y", "tags", "π", "🙂", "a b"], 3)
    schema = strict({name: _schema(rng, depth - 1) for name in names[: rng.randint(1, 3)]})
    if rng.random() < 0.3:
        schema["required"] = schema["required"][:1]
    return schema


def _schema(rng: random.Random, depth: int) -> Schema:
    kinds = [_scalar, _scalar, _enum] + [_object, _array, _any_of] * (depth > 0)
    return rng.choice(kinds)(rng, depth)


def _scalar(rng: random.Random, _: int) -> Schema:
    lowest = rng.randint(-100, 100)
    return rng.choice(
        [
            of_type("string", maxLength=rng.randint(1, 15)),
            of_type("integer", minimum=lowest, maximum=lowest + rng.randint(0, 999)),
            of_type("boolean"),
            of_type("string", "null", maxLength=rng.randint(1, 5)),
            matching(rng.choice(["^[a-z]{2,6}$", "^\\d{3}-\\d{2}$", "^#[0-9a-f]{6}$"])),
        ]
    )


def _enum(rng: random.Random, _: int) -> Schema:
    return {"enum": rng.sample(["low", "mittel", "高", "ü", 1, -2.5, None, True, "a b"], 4)}


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randint(0, 2)
    return array(_schema(rng, depth - 1), least, least + rng.randint(0, 2))


def _any_of(rng: random.Random, depth: int) -> Schema:
    return any_of(*(_schema(rng, depth - 1) for _ in range(rng.randint(2, 3))))


SCHEMAS: tuple[Schema, ...] = (*WRITTEN, *(generated(seed) for seed in range(100 - len(WRITTEN))))
