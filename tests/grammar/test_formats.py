"""What each format lets through, and what it refuses before anything is generated."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar import (
    Format,
    GrammarSpec,
    Tool,
    choice,
    compile_grammar,
    json_object,
    json_schema,
    lark,
    regex,
)
from gptoss_mlx.tokenizer import Tokenizer

from .walks import follow

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


def fits(tokenizer: Tokenizer, form: Format, text: str) -> bool:
    """Whether a completion can be this answer and nothing more."""
    grammar = compile_grammar(GrammarSpec(answer=form), tokenizer)
    answer = f"<|channel|>final<|message|>{text}<|return|>"
    try:
        return follow(grammar, tokenizer.encode_with_special(answer)).is_finished
    except AssertionError:
        return False


GOOD: list[tuple[Format, str]] = [
    (choice(["a", "ab", 'q"\n\\é😀']), "a"),
    (choice(["a", "ab", 'q"\n\\é😀']), "ab"),
    (choice(["a", "ab", 'q"\n\\é😀']), 'q"\n\\é😀'),
    (regex("^a+$"), "aaa"),
    (regex("ab|cd"), "cd"),
    (regex("a/b\nc"), "a/b\nc"),
    (regex(""), ""),
    (regex("(?i)yes|no"), "YES"),
    (lark('start: "a" x // <|end|>\nx: /b<+c/ "</a>"~2..3'), "ab<<c</a></a>"),
    (lark("start: A\nA: /[a-z]*/ & ~/foo/"), "fo"),
    (lark('start: %json {"type": "integer"}'), "12"),
    (json_object(), '{"a": {"b": [1, 2.5e3, null, true, "é\\n"]}}'),
    (json_schema({}), "[]"),
    (json_schema({"type": "string", "format": "no such format"}), '"x"'),
    (json_schema({"properties": {"format": {"const": "x"}}}), '{"format":"x"}'),
    (json_schema({"const": {"format": "x"}}), '{"format":"x"}'),
    (json_schema({"uniqueItems": True, "type": "array"}, strict=False), "[1,1]"),
    (json_schema({"description": "{100000}", "type": "null"}), "null"),
]
BAD: list[tuple[Format, str]] = [
    (choice(["a", "ab"]), "abc"),
    (choice(["a", "ab"]), ""),
    (regex("^a+$"), "ab"),
    (regex("ab|cd"), "abd"),
    (regex("."), "\n"),
    (lark('start: "a" x\nx: /b+/'), "a"),
    (lark("start: A\nA: /[a-z]*/ & ~/foo/"), "foo"),
    (json_object(), "[]"),
    (json_object(), '"\\ud800"'),
    (json_schema({"const": {"format": "x"}}), '{"format":"y"}'),
]


@pytest.mark.parametrize(("form", "text"), GOOD)
def test_what_fits_is_allowed(tokenizer: Tokenizer, form: Format, text: str) -> None:
    """Each token of a text that fits is allowed, and then the stop."""
    assert fits(tokenizer, form, text)


@pytest.mark.parametrize(("form", "text"), BAD)
def test_what_does_not_fit_is_forbidden(tokenizer: Tokenizer, form: Format, text: str) -> None:
    """Somewhere in a text that does not fit, a token is forbidden."""
    assert not fits(tokenizer, form, text)


@pytest.mark.parametrize("indent", [None, 1, 2, 4, "\t"])
def test_json_may_be_printed_as_usual(tokenizer: Tokenizer, indent: int | str | None) -> None:
    """Compact, spaced and indented JSON is allowed."""
    schema = {"type": "array", "items": POINT, "minItems": 2}
    text = json.dumps([{"x": 1, "y": -2}, {"x": 0, "y": 30}], indent=indent)
    assert fits(tokenizer, json_schema(schema), text)
    assert fits(tokenizer, json_schema(schema), re.sub(r"\s", "", text))


@pytest.mark.parametrize("space", ["  ", "\n\n", "\n" + 33 * " ", " \n", "\n\t" + 8 * "\t"])
def test_whitespace_is_bounded(tokenizer: Tokenizer, space: str) -> None:
    """A model cannot go on with whitespace for ever."""
    assert not fits(tokenizer, json_schema(POINT), f'{{"x":{space}1,"y":2}}')


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [('{"x":1,"y":2}', True), ('{"x":1}', False), ('{"x":1,"y":2,"z":3}', False), ("{}", False)],
)
def test_required_and_additional_properties(
    tokenizer: Tokenizer, text: str, is_valid: bool
) -> None:
    """What strict schemas say of properties holds."""
    assert fits(tokenizer, json_schema(POINT), text) == is_valid


def deep(levels: int) -> dict[str, Any]:
    """A schema of nested arrays."""
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


CIRCULAR: dict[str, Any] = {}
CIRCULAR["items"] = CIRCULAR


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([1], "must be a JSON object"),
        ("{}", "must be a JSON object"),
        ({"const": math.nan}, "not JSON"),
        ({"const": object()}, "not JSON"),
        ({"const": "\ud800"}, "half a surrogate pair"),
        (deep(100_000), "nested too deeply"),
        (CIRCULAR, "contains itself"),
        ({"enum": ["x" * 1_000_001]}, "at most 1,000,000"),
        ({"type": "string", "minLength": 10_001}, "10,000 repetitions"),
        ({"type": "string", "pattern": "^(a{1000}){11}$"}, "10,000 repetitions"),
    ],
)
def test_what_is_no_schema_is_refused(schema: object, message: str) -> None:
    """Before anything is compiled, with the reason."""
    with pytest.raises(GrammarError, match=message):
        json_schema(schema)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (json_schema({"type": "foo"}), "Invalid type: foo"),
        (json_schema({"$ref": "#/nope"}), "'/nope' does not exist"),
        (json_schema({"$ref": "http://localhost/x"}), "http://localhost/x"),
        (json_schema({"not": {"type": "null"}}), r'Unimplemented keys: \["not"\]'),
        (json_schema({"type": "integer", "minimum": 5, "maximum": 2}), "Unsatisfiable"),
        (json_schema({"enum": []}), "Unsatisfiable"),
        (json_schema({"type": "string", "pattern": "(?=a)"}), "look-around"),
        (json_schema(deep(300)), "recursion limit"),
        (regex("("), "unclosed group"),
        (regex("a)(b"), "unopened group"),
        (regex("(?-u:\\xff)"), "invalid UTF-8"),
        (regex(r"[^\s\S]"), "no text can fit"),
        (lark('start: "a"\n  | B'), "unknown name"),
        (lark('start: "a" }\nx: %lark {\nstart: "b"'), "line 1, column 12"),
        (lark('x: "a"'), "no start rule"),
        (lark(""), "no start rule"),
        (lark("start: @arguments0"), "unknown grammar"),
        (lark("start: TEXT"), "unknown name"),
        (lark('start: start "a"'), "no text can fit"),
    ],
)
def test_what_cannot_be_used_is_refused(tokenizer: Tokenizer, form: Format, message: str) -> None:
    """When it is compiled: one line with the place and the reason."""
    for place, spec in (
        ("the answer", GrammarSpec(answer=form)),
        ("the arguments of f", GrammarSpec(tools=(Tool("f", form),))),
    ):
        with pytest.raises(GrammarError, match=message) as caught:
            compile_grammar(spec, tokenizer)
        assert str(caught.value).startswith(place)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", [[], [""], ["a", ""]])
def test_a_choice_needs_texts(texts: list[str]) -> None:
    """None, or an empty one, is refused."""
    with pytest.raises(GrammarError, match="at least one"):
        choice(texts)


@pytest.mark.parametrize("pattern", ["a{1000000}", "(a{1000}){1000}", "a{10001,}"])
def test_endless_repetition_is_refused(pattern: str) -> None:
    """What would keep the parser busy for minutes never reaches it."""
    with pytest.raises(GrammarError, match="repetitions"):
        regex(pattern)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("start: <|end|>", "neither tokens"),
        ('start: "<" <[5]>', "neither tokens"),
        ('%llguidance {"allow_invalid_utf8": true}\nstart: /a/', "nor %llguidance"),
        ("start: A\nA: ~/foo/", "needs a partner"),
    ],
)
def test_lark_grammars_derive_text_only(grammar: str, message: str) -> None:
    """What could let a marker into an answer is refused."""
    with pytest.raises(GrammarError, match=message):
        lark(grammar)
