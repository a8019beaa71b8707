"""JSON schemas as the models are shown them. It does not know who sent them, nor enforces them."""

from __future__ import annotations

import json
from typing import Any

from gptoss_mlx.tools.calls import inlined

__all__ = ["format_text", "written_out"]

_MAX_REFERENCES = 32  # of a schema whose definitions are written out: they could multiply


def written_out(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """A schema without references, where that cannot make it huge: models are shown none."""
    if schema is None or not 0 < json.dumps(schema).count('"$ref"') <= _MAX_REFERENCES:
        return schema
    return inlined(schema)


def format_text(schema: dict[str, Any], name: str = "response", comment: str | None = None) -> str:
    """The section of the developer message that tells a model what its answer must look like."""
    lead = f"// {comment}\n" if comment else ""
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return f"# Response Formats\n\n## {name}\n\n{lead}{text}"
