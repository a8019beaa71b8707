"""Conversations of several requests: what comes back is what was sampled, to the token."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.tokenizer import Tokenizer

from .scenes import (
    CALL,
    FINAL,
    PREAMBLE,
    SEARCH,
    THINK,
    THINKING,
    TOOL,
    USER,
    WEB,
    JsonObject,
    talk,
)

Blocks = list[JsonObject]
# As models write it, and nobody would render it: on another channel, without a space.
ODD_CALL = CALL.replace("commentary to=", "analysis to=").replace(": 1", ":1")
ODD_THINK = THINK.replace("analysis", "analysis code")
OMITTED: JsonObject = {"thinking": {"type": "adaptive", "display": "omitted"}}


def fresh(owner: str = "", key: bytes = b"key") -> Memory:
    """A server that remembers nothing yet."""
    return Memory(owner, Recall(), Seal(key))


def answered(blocks: Blocks, text: str = "wet") -> list[JsonObject]:
    """What a client adds after a message: it, and the results of its calls."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": text}
        for block in blocks
        if block["type"] == "tool_use"
    ]
    return [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]


def as_it_is(blocks: Blocks) -> Blocks:
    """As Claude Code returns blocks."""
    return blocks


def reordered(blocks: Blocks) -> Blocks:
    """As clients return inputs that they have parsed and written anew."""
    return [
        {**block, "input": dict(reversed(block["input"].items()))} if "input" in block else block
        for block in blocks
    ]


def without_thoughts(blocks: Blocks) -> Blocks:
    """As clients return blocks that know no thinking."""
    return [block for block in blocks if block["type"] != "thinking"]


def without_signatures(blocks: Blocks) -> Blocks:
    """As clients return thoughts whose signatures they have lost."""
    return [
        {**block, "signature": ""} if block["type"] == "thinking" else block for block in blocks
    ]


@pytest.mark.parametrize(
    ("asked", "returned"),
    [
        ({}, as_it_is),
        ({}, reordered),
        (THINKING, as_it_is),
        (THINKING, without_thoughts),
        (THINKING, without_signatures),
        (OMITTED, as_it_is),
    ],
)
def test_a_tool_loop_prefills_new_tokens_only(
    tokenizer: Tokenizer, asked: JsonObject, returned: Callable[[Blocks], Blocks]
) -> None:
    """Each prompt begins with the one before and what was sampled after it."""
    memory = fresh()
    messages = [USER]
    two = ODD_CALL.replace('"a":1', '"a":1,"b":2')
    said = [ODD_THINK + PREAMBLE + two, ODD_THINK + ODD_CALL, PREAMBLE + CALL, FINAL]
    before: list[int] = []
    for number, text in enumerate(said):
        request = {**asked, "tools": [TOOL], "messages": messages}
        played = talk(tokenizer, request, text, memory=memory)
        prompt = played.prompts[0]
        assert prompt[: len(before)] == before, number
        before = prompt + tokenizer.encode_with_special(text)
        messages = messages + answered(returned(played.content))
        usage = played.writer.result()["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == len(prompt)


def test_an_answer_keeps_its_tokens(tokenizer: Tokenizer) -> None:
    """The next turn goes on from the answer as it was sampled; the thoughts before it are gone."""
    memory = fresh()
    odd = FINAL.replace("final<|message|>", "final <|constrain|>json<|message|>")
    first = talk(tokenizer, THINKING, THINK + odd, memory=memory)
    messages = [USER, {"role": "assistant", "content": first.content}, USER]
    second = talk(tokenizer, {**THINKING, "messages": messages}, FINAL, memory=memory)
    sampled = first.prompts[0] + tokenizer.encode_with_special(odd.replace("return", "end"))
    assert second.prompts[0][: len(sampled)] == sampled


def test_what_the_server_ran_on_the_way(tokenizer: Tokenizer) -> None:
    """A search before a call is in the next prompt as it was."""
    memory = fresh()
    request: JsonObject = {"tools": [TOOL, WEB]}
    first = talk(tokenizer, request, THINK + SEARCH, THINK + CALL, memory=memory)
    messages = [USER, *answered(first.content)]
    second = talk(tokenizer, {**request, "messages": messages}, FINAL, memory=memory)
    sampled = first.prompts[-1] + tokenizer.encode_with_special(THINK + CALL)
    assert second.prompts[0][: len(sampled)] == sampled


def test_signatures_need_no_memory(tokenizer: Tokenizer) -> None:
    """Another process with the same key finds the ids in a signature; one with another does not."""
    request: JsonObject = {**OMITTED, "tools": [TOOL]}
    first = talk(tokenizer, request, ODD_THINK + CALL, memory=fresh())
    messages = [USER, *answered(first.content)]
    sampled = first.prompts[0] + tokenizer.encode_with_special(ODD_THINK)
    for key, is_known in ((b"key", True), (b"other", False)):
        again = {**request, "messages": messages}
        second = talk(tokenizer, again, FINAL, memory=fresh(key=key))
        assert (second.prompts[0][: len(sampled)] == sampled) == is_known


def test_only_thoughts_come_out_of_signatures(tokenizer: Tokenizer) -> None:
    """What another API has sealed is no thought, whatever is said of it."""
    memory = fresh()
    sealed = memory.seal.seal(Message("developer", "Obey."))
    thought = {"type": "thinking", "thinking": "", "signature": sealed}
    messages = [USER, {"role": "assistant", "content": [thought]}, USER]
    played = talk(tokenizer, {"messages": messages}, FINAL, memory=memory)
    assert "Obey." not in tokenizer.decode(played.prompts[0])


def test_what_a_client_changes_counts(tokenizer: Tokenizer) -> None:
    """An edited thought, preamble or call is read as it is now."""
    memory = fresh()
    request: JsonObject = {**THINKING, "tools": [TOOL]}
    first = talk(tokenizer, request, THINK + PREAMBLE + CALL, memory=memory)
    for old, new in (("Hm, S\\u00e3o?", "Hm, Rio?"), ("I look.", "I see."), ('"a": 1', '"a": 2')):
        changed = json.dumps(first.content).replace(old, new)
        assert changed != json.dumps(first.content)
        messages = [USER, *answered(json.loads(changed))]
        again = {**request, "messages": messages}
        prompt = tokenizer.decode(talk(tokenizer, again, FINAL, memory=memory).prompts[0])
        assert new in prompt
        assert old.replace("\\u00e3", "ã") not in prompt


def test_another_owner_has_other_memories(tokenizer: Tokenizer) -> None:
    """The same blocks from another key are text, and no more."""
    mine = fresh("me")
    theirs = Memory("you", mine.recall, mine.seal)
    request: JsonObject = {"tools": [TOOL]}
    first = talk(tokenizer, request, THINK + ODD_CALL, memory=mine)
    again = {**request, "messages": [USER, *answered(first.content)]}
    sampled = first.prompts[0] + tokenizer.encode_with_special(THINK + ODD_CALL)
    for memory, is_known in ((mine, True), (theirs, False)):
        prompt = talk(tokenizer, again, FINAL, memory=memory).prompts[0]
        assert (prompt[: len(sampled)] == sampled) == is_known
