"""What was sampled comes back for what the client leaves as it was, and for nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import TypeAdapter

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.chat_completions.history import read_messages
from gptoss_mlx.server.chat_completions.memory import Memory
from gptoss_mlx.server.chat_completions.schema import ChatMessage
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.recall import Recall

MESSAGES = TypeAdapter(list[ChatMessage])
NAMES = ToolNames(["f", "my tool"])
FUNCTIONS = {"f", "my_tool"}
THOUGHT = Message("assistant", "They ask.", "analysis", ids=(1, 2))
PREAMBLE = Message("assistant", "I look.", "commentary", ids=(3, 4))
FIRST = Message("assistant", '{"a": 1}', "analysis", "functions.f", "json", ids=(5, 6))
AGAIN = Message("assistant", "And now?", "analysis", ids=(7, 8))
SECOND = Message("assistant", "{}", "commentary", "functions.my_tool", ids=(9, 10))
OURS = Message("assistant", "1 + 1", "analysis", "python", ids=(11, 12))
RESULT = Message("tool", "2", "analysis", "assistant", name="python")
ANSWER = Message("assistant", "Yes.", "final", ids=(13, 14))
SAMPLED = (THOUGHT, PREAMBLE, FIRST, AGAIN, SECOND)
GIVEN: dict[str, Any] = {
    "role": "assistant",
    "content": "I look.",
    "reasoning": "They ask.\n\nAnd now?",
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "my tool", "arguments": "{}"}},
    ],
}


def remembering(*sampled: Message, given: dict[str, Any] = GIVEN, owner: str = "me") -> Memory:
    """A memory of one reply."""
    memory = Memory(Recall(), owner)
    memory.keep(given, sampled or SAMPLED, FUNCTIONS)
    return memory


def read(memory: Memory, *messages: dict[str, Any], names: ToolNames = NAMES) -> list[Message]:
    """What messages become."""
    return read_messages(MESSAGES.validate_python(messages), names, memory)


def with_ids(messages: list[Message]) -> list[Message]:
    """Those that are what was sampled."""
    return [message for message in messages if message.ids is not None]


def arguments(text: object) -> dict[str, Any]:
    """A message whose first call has other arguments."""
    given = copy.deepcopy(GIVEN)
    given["tool_calls"][0]["function"]["arguments"] = text
    return given


ONE, TWO = GIVEN["tool_calls"]
THE_SAME: dict[str, dict[str, Any]] = {
    "nothing": GIVEN,
    "no reasoning": {**GIVEN, "reasoning": None},
    "other name": {**GIVEN, "reasoning": None, "reasoning_content": GIVEN["reasoning"]},
    "parts": {**GIVEN, "content": [{"type": "text", "text": "I look."}]},
    "other spaces": arguments('{"a":1}'),
    "no text": arguments({"a": 1}),
}
CHANGED: dict[str, tuple[dict[str, Any], list[Message]]] = {
    "text": ({"content": "I see."}, [THOUGHT, FIRST, AGAIN, SECOND]),
    "no text": ({"content": None}, [THOUGHT, FIRST, AGAIN, SECOND]),
    "reasoning": ({"reasoning": "Hm."}, [PREAMBLE, FIRST, SECOND]),
    "arguments": (arguments('{"a": 2}'), [AGAIN, SECOND]),
    "first call": ({"tool_calls": [TWO]}, [AGAIN, SECOND]),
    "second call": ({"tool_calls": [ONE]}, [THOUGHT, FIRST]),
    "id": ({"tool_calls": [ONE, {**TWO, "id": "x"}]}, [THOUGHT, FIRST]),
    "order": ({"tool_calls": [TWO, ONE]}, [AGAIN, SECOND, THOUGHT, FIRST]),
}


@pytest.mark.parametrize("given", THE_SAME.values(), ids=THE_SAME)
def test_what_says_the_same_is_what_was_sampled(given: dict[str, Any]) -> None:
    """All of it, in its order, with its ids; reasoning also where the client has not kept it."""
    messages = read(remembering(), given)
    assert messages == list(SAMPLED)
    assert [m.ids for m in messages] == [m.ids for m in SAMPLED]


@pytest.mark.parametrize(("change", "sampled"), CHANGED.values(), ids=CHANGED)
def test_what_was_changed_is_what_the_client_says(
    change: dict[str, Any], sampled: list[Message]
) -> None:
    """The rest is as it was sampled; nothing that was deleted comes back."""
    given: dict[str, Any] = {**GIVEN, "reasoning": None, **change}
    given["reasoning"] = None if given["reasoning"] == GIVEN["reasoning"] else given["reasoning"]
    messages = read(remembering(), given)
    assert with_ids(messages) == sampled
    texts = [message.content for message in messages if message.is_shown]
    assert texts == ([given["content"]] if given["content"] else [])
    calls = [message.content for message in messages if message.is_tool_call]
    made = given["tool_calls"]
    assert calls == [call["function"]["arguments"] for call in made]
    if given["reasoning"]:
        assert [m.content for m in messages if m.is_reasoning] == [given["reasoning"]]


def test_results_go_to_the_calls_as_they_were_made() -> None:
    """On the channel of the call, to whatever it was addressed."""
    results = [{"role": "tool", "tool_call_id": i, "content": i} for i in "12"]
    *_, first, second = read(remembering(), GIVEN, *results)
    assert first == Message("tool", "1", "analysis", "assistant", name="functions.f")
    assert second == Message("tool", "2", "commentary", "assistant", name="functions.my_tool")


def test_tools_of_the_server_come_back_with_the_call_that_followed() -> None:
    """What they were called with, and what they gave; also what was run beside the call."""
    given = {**GIVEN, "content": None, "tool_calls": GIVEN["tool_calls"][:1]}
    for sampled in ([THOUGHT, OURS, RESULT, FIRST], [OURS, FIRST, RESULT]):
        memory = remembering(*sampled, given=given)
        assert read(memory, {**given, "reasoning": None}) == sampled


def test_an_answer_goes_by_its_text() -> None:
    """Its reasoning is over; preambles are part of it."""
    given = {"role": "assistant", "content": "I look.\n\nYes.", "reasoning": "They ask."}
    memory = remembering(THOUGHT, PREAMBLE, ANSWER, given=given)
    assert with_ids(read(memory, given)) == [PREAMBLE, ANSWER]
    assert with_ids(read(memory, {**given, "content": "Yes."})) == []


def test_another_client_finds_nothing() -> None:
    """Though it sends the very message."""
    memory = remembering()
    assert not with_ids(read(Memory(memory.recall, "you"), GIVEN))


def test_names_that_have_become_anothers() -> None:
    """A call is not read as one of the function that has its name now."""
    names = ToolNames(["my_tool", "my tool"])
    call = Message("assistant", "{}", "commentary", "functions.my_tool_2", ids=(1,))
    memory = Memory()
    given = {**GIVEN, "content": None, "tool_calls": GIVEN["tool_calls"][1:], "reasoning": None}
    memory.keep(given, [call], {"my_tool", "my_tool_2"})
    assert read(memory, given, names=names)[0].ids == (1,)
    (alone,) = read(memory, given, names=ToolNames(["my tool"]))
    assert (alone.recipient, alone.ids) == ("functions.my_tool", None)


@pytest.mark.parametrize("text", ["", "no JSON", "[" * 100_000, '{"a": NaN}', "9" * 10_000])
def test_arguments_that_are_no_json(text: str) -> None:
    """They are known again by their text."""
    given = arguments(text)
    assert with_ids(read(remembering(given=given), given)) == list(SAMPLED)
