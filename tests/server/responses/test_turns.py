"""Conversations of several requests: what comes back is what was sampled, to the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.responses.reading import Context, History
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.tokenizer import Tokenizer

from .scenes import (
    CALL,
    CODE,
    FINAL,
    FUNCTION,
    PATCH,
    PYTHON,
    SEARCH,
    SPAWN,
    THINK,
    WEB,
    JsonObject,
    talk,
)

CONTEXT = Context(builtins=("browser", "python"))
USER = {"role": "user", "content": "Rain?"}
Items = list[dict[str, Any]]


def fresh(**changes: Any) -> Context:
    """A server that remembers nothing yet."""
    return replace(CONTEXT, **{"recall": Recall(), "seal": Seal(b"key"), **changes})


def output_of(call: dict[str, Any], text: str = "wet") -> dict[str, Any]:
    """What a client returns for a call."""
    kind = f"{call['type']}_output"
    return {"type": kind, "call_id": call["call_id"], "output": text}


def without_ids(items: Items) -> Items:
    """As clients return items that lose ids."""
    return [{key: value for key, value in item.items() if key != "id"} for item in items]


def as_it_is(items: Items) -> Items:
    """As Codex returns items."""
    return items


def only_necessary(items: Items) -> Items:
    """As clients return items that rebuild them."""
    keys = ("type", "role", "call_id", "name", "arguments", "content", "summary")
    return [{key: item[key] for key in keys if key in item} for item in items]


@pytest.mark.parametrize("returned", [as_it_is, without_ids, only_necessary])
def test_a_tool_loop_prefills_new_tokens_only(
    tokenizer: Tokenizer, returned: Callable[[Items], Items]
) -> None:
    """Each prompt begins with the one before and what was sampled after it."""
    context = fresh()
    request: JsonObject = {"tools": [FUNCTION]}
    items: Items = [USER]
    preamble = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
    odd = CALL.replace("commentary to=", "analysis to=").replace(": 1", ":1")  # as models do
    said = [THINK + preamble + odd, THINK + CALL, FINAL]
    before: list[int] = []
    for number, text in enumerate(said):
        played = talk(tokenizer, {**request, "input": items}, text, context=context)
        prompt = played.prompts[0]
        assert prompt[: len(before)] == before, number
        before = prompt + tokenizer.encode_with_special(text.replace("<|return|>", "<|end|>"))
        items += returned(played.output)
        items += [output_of(item) for item in played.output if item["type"] == "function_call"]


def test_builtin_tools_between(tokenizer: Tokenizer) -> None:
    """Searches and code that the server ran come back by their ids, with their results."""
    context = fresh()
    request: JsonObject = {"tools": [FUNCTION, WEB, CODE]}
    first = talk(tokenizer, request, THINK + SEARCH, PYTHON, THINK + CALL, context=context)
    items: Items = [USER, *first.output, output_of(first.output[-1])]
    second = talk(tokenizer, {**request, "input": items}, FINAL, context=context)
    sampled = tokenizer.encode_with_special(THINK + CALL)
    assert second.prompts[0][: len(first.prompts[-1]) + len(sampled)] == first.prompts[-1] + sampled


def test_sealed_reasoning_needs_no_memory(tokenizer: Tokenizer) -> None:
    """Another process with the same key finds the ids in `encrypted_content`."""
    request: JsonObject = {"tools": [FUNCTION], "include": ["reasoning.encrypted_content"]}
    odd = THINK.replace("analysis", "analysis code")  # nobody would render it so
    first = talk(tokenizer, request, odd + CALL, context=fresh())
    reasoning, call = first.output
    sampled = first.prompts[0] + tokenizer.encode_with_special(odd)
    contents: list[Items] = [[], reasoning["content"]]
    for content in contents:
        items: Items = [USER, {**reasoning, "content": content}, call, output_of(call)]
        second = talk(tokenizer, {**request, "input": items}, FINAL, context=fresh())
        assert second.prompts[0][: len(sampled)] == sampled
        stranger = fresh(seal=Seal(b"other"))
        third = talk(tokenizer, {**request, "input": items}, FINAL, context=stranger)
        assert third.prompts[0][: len(sampled)] != sampled


def test_what_a_client_changes_counts(tokenizer: Tokenizer) -> None:
    """An edited thought, call or answer is read as it is now."""
    context = fresh()
    request: JsonObject = {"tools": [FUNCTION], "include": ["reasoning.encrypted_content"]}
    first = talk(tokenizer, request, THINK + CALL, context=context)
    reasoning, call = first.output
    content = [{"type": "reasoning_text", "text": "Hm, Rio?"}]
    edited = {**call, "arguments": '{"a": 2}'}
    items: Items = [USER, {**reasoning, "content": content}, edited, output_of(call)]
    second = talk(tokenizer, {**request, "input": items}, FINAL, context=context)
    text = tokenizer.decode(second.prompts[0])
    assert "Hm, Rio?" in text
    assert '{"a": 2}' in text
    assert "São" not in text
    assert '{"a": 1}' not in text


def test_another_owner_has_other_memories(tokenizer: Tokenizer) -> None:
    """The same items from another key are text, and no more."""
    context = fresh(owner="me")
    request: JsonObject = {"tools": [FUNCTION]}
    odd = CALL.replace("commentary to=", "analysis to=")
    first = talk(tokenizer, request, odd, context=context)
    items: Items = [USER, *first.output, output_of(first.output[0])]
    mine = talk(tokenizer, {**request, "input": items}, FINAL, context=context)
    theirs = replace(context, owner="you")
    other = talk(tokenizer, {**request, "input": items}, FINAL, context=theirs)
    sampled = first.prompts[0] + tokenizer.encode_with_special(odd)
    assert mine.prompts[0][: len(sampled)] == sampled
    assert other.prompts[0][: len(sampled)] != sampled


def test_a_stored_history_is_the_conversation(tokenizer: Tokenizer) -> None:
    """What the writer hands to the store, after the input, is what the chat went on with."""
    request: JsonObject = {"tools": [FUNCTION, WEB]}
    hidden = "<|channel|>commentary to=nobody<|message|>?<|call|>"
    first = talk(tokenizer, request, THINK + SEARCH, hidden, THINK + CALL, context=fresh())
    assert list(first.reading.own.messages + first.writer.history.messages) == first.chat.messages
    call = first.output[-1]
    assert first.writer.history.calls[call["call_id"]].content == '{"a": 1}'
    both = (first.reading.own, first.writer.history)
    history = History(
        tuple(m for part in both for m in part.messages),
        {k: v for part in both for k, v in part.calls.items()},
    )
    answer: JsonObject = {**request, "input": [output_of(call)]}
    second = talk(tokenizer, answer, FINAL, context=fresh(), history=history)
    sampled = tokenizer.encode_with_special(THINK + CALL)
    assert second.prompts[0][: len(first.prompts[-1]) + len(sampled)] == first.prompts[-1] + sampled


def test_namespaces_and_custom_tools_come_back(tokenizer: Tokenizer) -> None:
    """A call of either is returned as it was given out, and remembered."""
    context = fresh()
    request: JsonObject = {"tools": [SPAWN, PATCH]}
    spawn = CALL.replace("functions.f", "functions.agents_spawn")
    patch = CALL.replace("functions.f", "functions.apply_patch")
    patch = patch.replace('{"a": 1}', '{"input":"+\\u0078"}')
    items: Items = [USER]
    for text in (spawn, patch):
        played = talk(tokenizer, {**request, "input": items}, text, context=context)
        items += [*played.output, output_of(played.output[0])]
    names = [(i.get("namespace"), i["name"], i.get("input")) for i in items if "name" in i]
    assert names == [("agents", "spawn", None), (None, "apply_patch", "+x")]
    last = talk(tokenizer, {**request, "input": items}, FINAL, context=context)
    text = tokenizer.decode(last.prompts[0])
    assert spawn in text
    assert patch in text
    assert text.count("to=assistant<|channel|>commentary<|message|>wet") == 2


def test_reasoning_of_finished_turns_goes(tokenizer: Tokenizer) -> None:
    """Until the next answer it stays, afterwards it is not in the prompt any more."""
    context = fresh()
    first = talk(tokenizer, {}, THINK + FINAL, context=context)
    items: Sequence[dict[str, Any]] = [USER, *first.output, USER]
    second = talk(tokenizer, {"input": items}, FINAL, context=context)
    text = tokenizer.decode(second.prompts[0])
    assert "It rains in São Paulo" in text
    assert "Hm," not in text
