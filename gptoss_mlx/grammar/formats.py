"""What a text must look like. A format is its own text, so that equal ones share a grammar.

It knows llguidance's Lark syntax, but not where in a completion a format stands. Whether it can be
used shows when it is compiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, cast

from llguidance import regex_to_lark

from gptoss_mlx.errors import GrammarError

__all__ = ["Format", "choice", "json_object", "json_schema", "lark", "regex"]

MAX_CHARACTERS = 1_000_000  # of a format's text
MAX_REPETITION = 10_000  # llguidance spells out what is forced: a{1000000} takes it half a minute
MAX_PROPERTIES = 1_000  # of one object: the time that llguidance takes grows with their square
# At most one of these wherever JSON allows whitespace: a space, or a line with its indentation.
# That is how models print JSON; unbounded, a model can emit whitespace for ever.
JSON_WHITESPACE = r"\x20|\n(?:\x20{0,32}|\t{0,8})"
STRING_FORMATS = frozenset(
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"]
)
# A Lark grammar may have no end, as a: "x" a; following what it forces would take as long.
NO_FORCING = '%llguidance {"no_forcing": true}'
_ANNOTATIONS = frozenset({"$comment", "default", "description", "example", "examples", "title"})
_DATA_KEYWORDS = frozenset({"const", "enum", "required"})
_MAP_KEYWORDS = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_AT_LEAST = re.compile(r"(?:\{|~)(\d+)(?=[,.}\s]|$)")  # a{3}, a{3,5}, a~3
_MINIMUM = re.compile(r'"min(?:Items|Length|Properties)": (\d+)')
_BARE_NOT = re.compile(r"^(?!.*&).*~(?!\s*\d)", re.MULTILINE)  # a~3 repeats, ~a negates
# Strings, comments and regular expressions of a Lark grammar.
_LARK_TEXTS = re.compile(r'"(?:\\.|[^"\\\n])*"|//.*|#.*|/(?:\\.|[^/\\\n])+/')


@dataclass(frozen=True)
class Format:
    """What a text must look like; made by `json_schema`, `json_object`, `regex`, `choice`, `lark`.

    Raises:
        GrammarError: the text is too long, or no Unicode text at all.
    """

    kind: Literal["JSON schema", "regular expression", "choice", "Lark grammar"]
    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_CHARACTERS:
            raise GrammarError(
                f"the {self.kind} has {len(self.text):,} characters: "
                f"at most {MAX_CHARACTERS:,} are accepted"
            )
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise GrammarError(f"the {self.kind} holds half a surrogate pair") from None
        if self.kind != "choice" and _repetition(self.text) > MAX_REPETITION:
            raise GrammarError(
                f"the {self.kind} demands more than {MAX_REPETITION:,} repetitions: demand fewer"
            )

    def rule(self, name: str) -> str:
        """The definition of a Lark rule of this name."""
        match self.kind:
            case "JSON schema":
                return f"{name}: %json {self.text}"
            case "regular expression":  # never empty, which would be a comment
                return f"{name}: /(?:{regex_to_lark(self.text, '')})/"
            case "choice":  # as one terminal, so that "a" | "ab" is no ambiguity
                return f"{name}: {name.upper()}_TEXT\n{name.upper()}_TEXT: {self.text}"
            case "Lark grammar":
                return f"{name}: %lark {{\n{self.text}\n}}"

    def alone(self) -> str:
        """A Lark grammar of this format and nothing else.

        A text must be valid alone: put together, a stray bracket of one could close another's.
        """
        if self.kind == "regular expression" and self.text:
            return f"start: /{regex_to_lark(self.text, '')}/"
        if self.kind != "Lark grammar":
            return self.rule("start")
        return f"{self.text}\n{NO_FORCING}"


def json_schema(schema: object, *, strict: bool = True) -> Format:
    """JSON that validates against a schema; properties come in the schema's order.

    Args:
        schema: a JSON schema, as a dict. Keywords that only annotate are ignored, and so are
            unknown string formats.
        strict: refuse what cannot be enforced (`not`, `if`, `uniqueItems`, an overlapping `oneOf`);
            if False, ignore it, and read `oneOf` as `anyOf`.

    Raises:
        GrammarError: it is not a JSON object, or is too large.
    """
    if not isinstance(schema, Mapping):
        raise GrammarError("a JSON schema must be a JSON object")
    options = {"whitespace_pattern": JSON_WHITESPACE, "lenient": not strict}
    try:
        reduced = cast("dict[str, object]", _reduced(cast("object", schema)))
        text = json.dumps({**reduced, "x-guidance": options}, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise GrammarError("the JSON schema is nested too deeply, or contains itself") from None
    except (TypeError, ValueError) as error:
        raise GrammarError(f"the JSON schema is not JSON: {error}") from None
    return Format("JSON schema", text)


def json_object() -> Format:
    """Any JSON object."""
    return json_schema({"type": "object"})


def regex(pattern: str) -> Format:
    """Text that a regular expression matches from beginning to end; Rust's syntax."""
    return Format("regular expression", pattern)


def choice(texts: Sequence[str]) -> Format:
    """One of several texts.

    Raises:
        GrammarError: there is none, or one of them is empty.
    """
    if not texts or not all(texts):
        raise GrammarError("a choice needs at least one text, and none of them may be empty")
    return Format("choice", " | ".join(json.dumps(text, ensure_ascii=False) for text in texts))


def lark(grammar: str) -> Format:
    """Text that llguidance's variant of a Lark grammar derives from its rule `start`.

    Raises:
        GrammarError: it could derive more than text.
    """
    outside = _LARK_TEXTS.sub("", grammar)
    if "<" in outside or "%llguidance" in outside:
        raise GrammarError("a Lark grammar may name neither tokens (<|end|>) nor %llguidance")
    if _BARE_NOT.search(outside):  # it would match what is not UTF-8, and so the markers
        raise GrammarError("~ in a Lark grammar needs a partner: write /(?s:.*)/ & ~/.../")
    return Format("Lark grammar", grammar)


def _repetition(text: str) -> int:
    """How often a text demands something again, taking what stands in one string as nested."""
    nested = (_AT_LEAST.findall(part) for part in re.split(r'["\n]', text))
    counts = [prod(max(1, int(n)) for n in counts) for counts in nested]
    return max(counts + [int(n) for n in _MINIMUM.findall(text)])


def _reduced(schema: object) -> object:
    """A schema without annotations and unknown string formats; data in it stays as it is."""
    if isinstance(schema, list):
        return [_reduced(item) for item in cast("list[object]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _below(key, value)
        for key, value in cast("Mapping[str, object]", schema).items()
        if key not in _ANNOTATIONS and (key != "format" or value in STRING_FORMATS)
    }


def _below(key: str, value: object) -> object:
    if key in _DATA_KEYWORDS:
        return value
    if key in _MAP_KEYWORDS and isinstance(value, Mapping):
        schemas = cast("Mapping[str, object]", value).items()
        if key == "properties" and len(schemas) > MAX_PROPERTIES:
            raise GrammarError(
                f"an object of the JSON schema has {len(schemas):,} properties: "
                f"at most {MAX_PROPERTIES:,} are accepted"
            )
        return {name: _reduced(schema) for name, schema in schemas}
    return _reduced(value)
