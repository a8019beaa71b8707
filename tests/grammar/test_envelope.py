"""Which messages a completion may consist of, and that the parser reads them as they were meant."""

from __future__ import annotations

import pytest

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar import Grammar, GrammarSpec, Tool, choice, compile_grammar, json_schema
from gptoss_mlx.harmony import Message, parse
from gptoss_mlx.tokenizer import CALL, CONSTRAIN, END, RETURN, STOP_TOKENS, Tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

from .schemas import strict
from .walks import allowed, follow, stroll

ARGUMENTS = json_schema(strict({"city": {"type": "string", "maxLength": 20}}))
WEATHER = Tool("functions.get_weather", ARGUMENTS)
TIME = Tool("functions.get_time", ARGUMENTS)
PYTHON = Tool("python")
TOOLS = (WEATHER, TIME, PYTHON)
NUMBER = json_schema({"type": "integer", "minimum": 0, "maximum": 99})

REASONING = "<|channel|>analysis<|message|>Hm: {\n\n😀 }.<|end|><|start|>assistant"
EMPTY_REASONING = "<|channel|>analysis<|message|><|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>7<|return|>"
CALLING = '<|message|>{"city": "Rome"}<|call|>'
CALL_WEATHER = f"<|channel|>commentary to=functions.get_weather <|constrain|>json{CALLING}"
CALL_TIME = f"<|channel|>commentary to=functions.get_time <|constrain|>json{CALLING}"
CALL_PYTHON = "<|channel|>analysis to=python code<|message|>print('{')\n<|call|>"


def grammar_of(tokenizer: Tokenizer, tool_choice: str = "auto", **more: bool) -> Grammar:
    """A grammar with three tools and a number as the answer."""
    return compile_grammar(GrammarSpec(NUMBER, TOOLS, tool_choice, **more), tokenizer)


def passes(tokenizer: Tokenizer, grammar: Grammar, text: str) -> bool:
    """Whether the grammar allows a whole completion."""
    try:
        return follow(grammar, tokenizer.encode_with_special(text)).is_finished
    except AssertionError:
        return False


@pytest.mark.parametrize("before", ["", REASONING, PREAMBLE, REASONING + PREAMBLE + REASONING])
@pytest.mark.parametrize(
    ("tool_choice", "last"),
    [
        ("auto", {FINAL, CALL_WEATHER, CALL_TIME, CALL_PYTHON}),
        ("none", {FINAL}),
        ("required", {CALL_WEATHER, CALL_TIME, CALL_PYTHON}),
        ("functions.get_time", {CALL_TIME}),
        ("python", {CALL_PYTHON}),
    ],
)
def test_tool_choice_decides_the_last_message(
    tokenizer: Tokenizer, tool_choice: str, last: set[str], before: str
) -> None:
    """None never calls, required always does, and a name means that tool only."""
    grammar = grammar_of(tokenizer, tool_choice)
    ends = (FINAL, CALL_WEATHER, CALL_TIME, CALL_PYTHON)
    may_stand = tool_choice != "none" or PREAMBLE not in before
    expected = last if may_stand else set[str]()
    assert {end for end in ends if passes(tokenizer, grammar, before + end)} == expected


@pytest.mark.parametrize("tool_choice", ["auto", "none", "required", TIME.recipient])
def test_chance_obeys_tool_choice(tokenizer: Tokenizer, tool_choice: str) -> None:
    """Whatever is drawn: the last message is an answer or a call as demanded, and read as such."""
    grammar = grammar_of(tokenizer, tool_choice)
    for seed in range(6):
        walk = stroll(grammar, tokenizer, seed)
        assert walk.is_finished
        *asides, last = parse(walk.ids, tokenizer)
        assert all(aside.is_reasoning or aside.channel == "commentary" for aside in asides)
        assert not any(aside.is_tool_call for aside in asides)
        assert last.ids is not None, "the parser found it malformed"
        if last.is_tool_call:
            assert tool_choice in ("auto", "required", last.recipient)
            assert walk.ids[-1] == CALL
        else:
            assert tool_choice in ("auto", "none")
            assert last.is_final
            assert walk.ids[-1] == RETURN


@pytest.mark.parametrize(
    "content_type", [" <|constrain|>json", "<|constrain|>json", " json", " code", ""]
)
@pytest.mark.parametrize("channel", ["commentary", "analysis"])
@pytest.mark.parametrize("in_role", [True, False])
def test_headers_as_the_model_writes_them(
    tokenizer: Tokenizer, channel: str, content_type: str, in_role: bool
) -> None:
    """The recipient in either place, on either channel, with any content type: the same call."""
    to = " to=functions.get_weather"
    header = f"{to}<|channel|>{channel}" if in_role else f"<|channel|>{channel}{to}"
    text = REASONING + header + content_type + CALLING
    assert passes(tokenizer, grammar_of(tokenizer, "required"), text)
    reasoning, call = parse(tokenizer.encode_with_special(text), tokenizer)
    assert reasoning == Message("assistant", "Hm: {\n\n😀 }.", "analysis")
    assert (call.channel, call.recipient) == (channel, "functions.get_weather")
    assert call.content == '{"city": "Rome"}'
    assert (call.content_type or "") == content_type.strip()


def test_a_json_answer_may_say_so(tokenizer: Tokenizer) -> None:
    """`final <|constrain|>json` is allowed for JSON, and for nothing else."""
    text = "<|channel|>final <|constrain|>json<|message|>7<|return|>"
    assert passes(tokenizer, grammar_of(tokenizer), text)
    (message,) = parse(tokenizer.encode_with_special(text), tokenizer)
    assert (message.is_final, message.content) == (True, "7")
    other = compile_grammar(GrammarSpec(choice(["7"])), tokenizer)
    assert not passes(tokenizer, other, text)
    assert passes(tokenizer, other, FINAL)


def test_preambles_can_be_forbidden(tokenizer: Tokenizer) -> None:
    """Without them, commentary is for calls only."""
    silent = grammar_of(tokenizer, preambles=False)
    assert not passes(tokenizer, silent, PREAMBLE + CALL_TIME)
    assert passes(tokenizer, silent, REASONING + CALL_TIME)


@pytest.mark.parametrize("last", [FINAL, CALL_WEATHER])
def test_reasoning_can_be_demanded(tokenizer: Tokenizer, last: str) -> None:
    """Some comes first then, before a preamble too; and no more messages than ever."""
    thoughtful = grammar_of(tokenizer, must_reason=True)
    for before in ("", PREAMBLE, PREAMBLE + REASONING, EMPTY_REASONING):
        assert not passes(tokenizer, thoughtful, before + last)
    for before in (REASONING, REASONING + PREAMBLE, REASONING + EMPTY_REASONING, 8 * REASONING):
        assert passes(tokenizer, thoughtful, before + last)
    assert not passes(tokenizer, thoughtful, 9 * REASONING + last)


def test_free_text_has_no_markers(tokenizer: Tokenizer) -> None:
    """Within reasoning all text is allowed, and of the markers only the one that ends it."""
    matcher = follow(grammar_of(tokenizer), tokenizer.encode_with_special(REASONING)[:5])
    ids = allowed(matcher)
    assert ids[ids >= NUM_ORDINARY].tolist() == [END]
    assert len(ids) > NUM_ORDINARY - 500  # but for bytes that no UTF-8 begins with


def test_text_may_look_like_markers(tokenizer: Tokenizer) -> None:
    """`<|end|>` spelled in letters is text."""
    spelled = tokenizer.encode("<|end|><|call|>")
    ids = tokenizer.encode_with_special("<|channel|>analysis<|message|>")
    matcher = follow(grammar_of(tokenizer), [*ids, *spelled, END])
    assert not matcher.is_finished


def test_free_text_may_be_long(tokenizer: Tokenizer) -> None:
    """Reasoning has no limit of its own."""
    matcher = follow(grammar_of(tokenizer), tokenizer.encode_with_special(REASONING)[:5])
    for i in tokenizer.encode("All work and no play {[<\n") * 2000:
        matcher.advance(i)
    assert END in allowed(matcher)


@pytest.mark.parametrize(("text", "stop"), [(FINAL, RETURN), (CALL_WEATHER, CALL)])
def test_stops_come_at_the_end_only(tokenizer: Tokenizer, text: str, stop: int) -> None:
    """The right one is allowed where the content is complete; no other, and nowhere else."""
    matcher = grammar_of(tokenizer).matcher()
    ids = tokenizer.encode_with_special(REASONING + text)
    for n, i in enumerate(ids):
        expected = {stop} if n == len(ids) - 1 else set[int]()
        assert {*STOP_TOKENS} & set(allowed(matcher).tolist()) == expected
        matcher.advance(i)
    assert matcher.is_finished


def test_messages_before_the_last_are_counted(tokenizer: Tokenizer) -> None:
    """A model that talks to itself must answer or call at last."""
    grammar = grammar_of(tokenizer)
    assert passes(tokenizer, grammar, 8 * REASONING + FINAL)
    assert not passes(tokenizer, grammar, 9 * REASONING + FINAL)


def test_constrain_is_no_free_text(tokenizer: Tokenizer) -> None:
    """The marker of a content type stands in headers only."""
    ids = tokenizer.encode_with_special("<|channel|>final<|message|>")
    assert CONSTRAIN not in allowed(follow(grammar_of(tokenizer), ids))
    header = tokenizer.encode_with_special("<|channel|>final")
    assert CONSTRAIN in allowed(follow(grammar_of(tokenizer), header))


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "f<|channel|>x"])
def test_names_that_no_header_can_hold(name: str) -> None:
    """A recipient is one word."""
    with pytest.raises(GrammarError, match="cannot be called"):
        Tool(name)


def test_choices_that_cannot_be_met() -> None:
    """A tool that is not there, or is there twice, is refused."""
    with pytest.raises(GrammarError, match="no tools"):
        GrammarSpec(tool_choice="required")
    with pytest.raises(GrammarError, match="none of the tools"):
        GrammarSpec(tools=TOOLS, tool_choice="functions.nope")
    with pytest.raises(GrammarError, match="two tools"):
        GrammarSpec(tools=(PYTHON, PYTHON))
