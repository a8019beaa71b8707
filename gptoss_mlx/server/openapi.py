"""The server described for programs: an OpenAPI 3.1 document, made of what the APIs declare.

Each API's routes module has its `OPERATIONS`; bodies are the pydantic models that read them. It
does not know what the operations do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from gptoss_mlx.server.problems import is_anthropics

__all__ = ["Operation", "document"]

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_TEXT = {"type": "string"}
_RETRY = {
    "retry-after": {"description": "Seconds.", "required": True, "schema": {"type": "string"}}
}


@dataclass(frozen=True)
class Operation:
    """A method of a path.

    path: as the route has it. body: what is read, if anything is. returns: keys that every answer
    has. media_type: of the answer. streams: the answer may come as events. query: parameters, and
    their schemas. is_open: needs no key. statuses: of an answer that is no
    error.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    body: type[BaseModel] | None = None
    returns: tuple[str, ...] = ()
    media_type: str = "application/json"
    streams: bool = False
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    is_open: bool = False
    statuses: tuple[int, ...] = (200,)

    @property
    def public_path(self) -> str:
        """As OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)


class _Schemas(GenerateJsonSchema):
    """Unions by a tag of ours are no `oneOf`: what is unknown there is anything."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """As any other union."""
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}


def document(operations: Sequence[Operation], *, needs_key: bool) -> dict[str, Any]:
    """The document of a server with these operations."""
    models = [operation.body for operation in operations if operation.body is not None]
    refs, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF, schema_generator=_Schemas
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        body = refs[operation.body, "validation"] if operation.body is not None else None
        described = _described(operation, body)
        if needs_key and not operation.is_open:
            described["security"] = [{"bearer": []}, {"key": []}]
        paths.setdefault(operation.public_path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gptoss-mlx",
            "version": version("gptoss-mlx"),
            "description": "OpenAI's and Anthropic's APIs over a gpt-oss model on this machine.",
        },
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), **_ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _described(operation: Operation, body: JsonSchemaValue | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _TEXT}
            for name in _PARAMETER.findall(operation.path)
        ]
        + [
            {"name": name, "in": "query", "schema": dict(schema)}
            for name, schema in operation.query.items()
        ],
        "responses": _responses(operation),
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    schema = _TEXT
    if operation.media_type == "application/json":
        schema = {"type": "object", "required": list(operation.returns)}
    content: dict[str, Any] = {operation.media_type: {"schema": schema}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {}}  # a schema would be of each event
    name = "AnthropicError" if is_anthropics(operation.path) else "OpenAIError"
    error = {"application/json": {"schema": {"$ref": _REF.format(model=name)}}}
    answer = {"description": "The answer.", "content": content}
    return {
        **{str(status): answer for status in operation.statuses},
        "429": {"description": "Busy: try again.", "content": error, "headers": _RETRY},
        "4XX": {"description": "The request cannot be answered.", "content": error},
        "5XX": {"description": "The server cannot answer.", "content": error},
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": [*properties], "properties": properties}


_OR_NULL = {"type": ["string", "null"]}
_ERRORS = {
    "OpenAIError": _object(error=_object(message=_TEXT, type=_TEXT, param=_OR_NULL, code=_OR_NULL)),
    "AnthropicError": _object(type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT)),
}
