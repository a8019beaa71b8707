"""JSON schemas as the models are shown them."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.server.schemas import format_text, written_out

INTEGER = {"type": "integer"}


def referring(count: int) -> dict[str, Any]:
    """A schema with so many references."""
    properties = {f"p{n}": {"$ref": "#/$defs/X"} for n in range(count)}
    return {"type": "object", "properties": properties, "$defs": {"X": INTEGER}}


def test_references_are_written_out() -> None:
    """Where they are few; many could multiply."""
    assert written_out(referring(2)) == {
        "type": "object",
        "properties": {"p0": INTEGER, "p1": INTEGER},
    }
    assert written_out(referring(1000)) == referring(1000)


@pytest.mark.parametrize("schema", [None, {}, {"$defs": {"X": INTEGER}}])
def test_what_has_none_stays(schema: Any) -> None:
    """As it is."""
    assert written_out(schema) == schema


@pytest.mark.parametrize("definitions", [None, 1, "x", [], [{"X": INTEGER}]])
def test_definitions_that_are_none(definitions: Any) -> None:
    """Anybody may send them."""
    schema = {"$defs": definitions, "items": {"$ref": "#/$defs/X"}}
    assert "$ref" not in str(written_out(schema))


def test_the_section_of_a_format() -> None:
    """A title, a name, what is said of it, and the schema in one line."""
    assert format_text({"type": "é"}) == '# Response Formats\n\n## response\n\n{"type":"é"}'
    assert format_text(INTEGER, "n", "A number.").endswith(
        '## n\n\n// A number.\n{"type":"integer"}'
    )
