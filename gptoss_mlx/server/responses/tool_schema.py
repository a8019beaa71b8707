"""The tools that `POST /v1/responses` accepts; those of unknown types pass, and are ignored.

It knows the shapes only: which of them a server has is the matter of tools.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

__all__ = [
    "CodeInterpreterTool",
    "CustomTool",
    "FunctionTool",
    "NamespaceTool",
    "OtherTool",
    "Shape",
    "Tool",
    "WebSearchTool",
]


class Shape(BaseModel):
    """What clients send beyond this is ignored."""

    model_config = ConfigDict(extra="ignore")


class FunctionTool(Shape):
    """A function of the client's."""

    type: Literal["function"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="enforce the schema, or refuse it")


class CustomTool(Shape):
    """A tool of the client's that takes a text."""

    type: Literal["custom"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    description: str | None = None
    format: dict[str, Any] | None = None


class WebSearchTool(Shape):
    """The browser tool, where the server was started with it."""

    type: str
    search_context_size: Literal["low", "medium", "high"] | None = None


class CodeInterpreterTool(Shape):
    """The python tool, where the server was started with it."""

    type: Literal["code_interpreter"]
    container: str | dict[str, Any] | None = None


class OtherTool(Shape):
    """A tool that this server does not have; it is ignored."""

    type: Any = None


def _type_of(value: object) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get("type")
    return getattr(value, "type", None)


def _tag_of_tool(value: object) -> str | None:
    kind = _type_of(value)
    if not isinstance(kind, str):
        return "other" if isinstance(value, (Mapping, BaseModel)) else None
    if kind.startswith("web_search"):
        return "web_search"
    return kind if kind in ("function", "custom", "namespace", "code_interpreter") else "other"


_InNamespace = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(lambda v: t if (t := _tag_of_tool(v)) in ("function", "custom") else "other"),
]


class NamespaceTool(Shape):
    """Tools under a common name, as Codex groups them."""

    type: Literal["namespace"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    description: str | None = None
    tools: list[_InNamespace] = []


Tool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[NamespaceTool, Tag("namespace")]
    | Annotated[WebSearchTool, Tag("web_search")]
    | Annotated[CodeInterpreterTool, Tag("code_interpreter")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(_tag_of_tool),
]
