"""What a completion may consist of, as one Lark grammar.

It begins where a prompt ends, after `<|start|>assistant`: reasoning and preambles, then an answer
or a call, and its stop token. Headers are spelled as the exact ids that the model was trained on,
so that a mask never pushes it into another spelling of the same text. It does not parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar.formats import NO_FORCING, Format
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["GrammarSpec", "Tool", "write_envelope"]

MAX_ASIDES = 8  # messages before the last: a model that talks to itself must come to an end


@dataclass(frozen=True)
class Tool:
    """Something to call: the recipient as headers have it (`functions.f`), and its arguments.

    `arguments` None leaves the content of a call free, as for `python`.
    """

    recipient: str
    arguments: Format | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\s\x00-\x1f]+", self.recipient) or "<|" in self.recipient:
            raise GrammarError(f"{self.recipient!r} cannot be called: a name has no spaces or <|")


@dataclass(frozen=True)
class GrammarSpec:
    """What a completion may consist of; what reasoning says is always free.

    `answer` None leaves the final channel free. `tool_choice` is `auto`, `none`, `required`, or
    the recipient of the one tool that must be called. `preambles` lets the model say something to
    the user before a call. `must_reason` has a chain of thought come first.

    Raises:
        GrammarError: the tool that must be called is not there, or is there twice.
    """

    answer: Format | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    preambles: bool = True
    must_reason: bool = False

    def __post_init__(self) -> None:
        names = [tool.recipient for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise GrammarError(f"there are two tools named {twice!r}: rename one")
        if self.tool_choice == "required" and not names:
            raise GrammarError("a call is required, but there are no tools")
        if self.tool_choice not in ("auto", "none", "required", *names):
            raise GrammarError(f"tool_choice {self.tool_choice!r} is none of the tools given")

    @property
    def formats(self) -> dict[str, Format | None]:
        """What is constrained, by what it is called in messages."""
        arguments = {f"the arguments of {t.recipient}": t.arguments for t in self.tools}
        return {"the answer": self.answer, **arguments}

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        if self.tool_choice in ("auto", "required"):
            return self.tools
        return tuple(tool for tool in self.tools if tool.recipient == self.tool_choice)

    @property
    def may_answer(self) -> bool:
        """Whether a completion may end without a call."""
        return self.tool_choice in ("auto", "none")


def write_envelope(spec: GrammarSpec, tokenizer: Tokenizer) -> str:
    """The Lark grammar of everything that may follow `<|start|>assistant`."""
    return "\n".join(_lines(spec, tokenizer))


def _lines(spec: GrammarSpec, tokenizer: Tokenizer) -> Iterator[str]:
    def ids(text: str) -> str:
        return "(" + " ".join(f"<[{i}]>" for i in tokenizer.encode(text)) + ")"

    analysis, commentary, final = ids("analysis"), ids("commentary"), ids("final")
    json_type = f"{ids(' ')}? <|constrain|> {ids('json')}"
    tools = spec.callable_tools
    # A preamble comes before a call: where none can come, commentary would be a call gone astray.
    asides = f"{analysis} | {commentary}" if spec.preambles and tools else analysis
    last = [f"call{i}" for i in range(len(tools))] + ["final"] * spec.may_answer
    if any(form and form.kind == "Lark grammar" for form in spec.formats.values()):
        yield NO_FORCING
    before = (
        f"thought aside{{0,{MAX_ASIDES - 1}}}" if spec.must_reason else f"aside{{0,{MAX_ASIDES}}}"
    )
    yield f"start: {before} ({' | '.join(last)})"
    end = f"<|end|> <|start|> {ids('assistant')}"
    yield f"aside: <|channel|> ({asides}) <|message|> TEXT {end}"
    yield "TEXT: /(?s:.*)/"
    if spec.must_reason:
        yield f"thought: <|channel|> {analysis} <|message|> THOUGHT {end}"
        yield "THOUGHT: /(?s:.+)/"
    if spec.may_answer:
        content_type = (
            f"({json_type})?" if spec.answer and spec.answer.kind == "JSON schema" else ""
        )
        yield f"final: <|channel|> {final} {content_type} <|message|> answer <|return|>"
        yield _content("answer", spec.answer)
    if tools:  # half of the 120b's calls come on the analysis channel, as built-in tools' do
        yield f"channel: <|channel|> ({commentary} | {analysis})"
        yield f"content_type: {json_type} | {ids(' json')} | {ids(' code')}"
    for i, tool in enumerate(tools):  # the recipient follows the channel, or the role as in history
        to = ids(f" to={tool.recipient}")
        header = f"({to} channel | channel {to}) content_type?"
        yield f"call{i}: {header} <|message|> arguments{i} <|call|>"
        yield _content(f"arguments{i}", tool.arguments)


def _content(name: str, form: Format | None) -> str:
    return f"{name}: TEXT" if form is None else form.rule(name)
