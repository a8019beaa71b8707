"""Conversations with a model that replays scripts: turns, tool calls, limits, interruption."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from itertools import islice

import mlx.core as mx
import pytest
from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Event, Options
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import ContextLengthError
from gptoss_mlx.grammar import GrammarSpec, choice, compile_grammar
from gptoss_mlx.harmony import Delta, FunctionTool, Message, Setup, render
from gptoss_mlx.tokenizer import VOCAB_SIZE, Tokenizer

THINK = "<|channel|>analysis<|message|>They greet me.<|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Hello there, friend!<|return|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
GREEDY = Options(SamplingParams(temperature=0))  # quicker than drawing one id of one
SETUP = Setup(functions=(FunctionTool("f", "Does it.", {"type": "object", "properties": {}}),))


class StoppedModel(ReplayModel):
    """Replays one script, and then the user presses Ctrl-C while it computes."""

    def next_id(self, number: int, n: int) -> int:
        """The script's next id, or the end of the user's patience."""
        if n == len(self.scripts[number]):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return super().next_id(number, n)


class UndecidedModel(ReplayModel):
    """To whom all tokens are equally likely."""

    def logits(self, x: mx.array) -> mx.array:
        """(..., 2) -> zeros (..., V)."""
        return mx.zeros((*x.shape[:-1], VOCAB_SIZE))


def chat_with(tokenizer: Tokenizer, *scripts: str, setup: Setup = SETUP) -> Chat:
    """A conversation in which the model answers with these completions."""
    model = ReplayModel(*(tokenizer.encode_with_special(script) for script in scripts))
    return Chat(Engine(model), tokenizer, setup)


def prompts(chat: Chat) -> list[list[int]]:
    """The prompt of each turn so far, as the model was given it."""
    assert isinstance(chat.engine.model, ReplayModel)
    return list(chat.engine.model.prompts.values())


def shown(events: Iterable[Event]) -> list[str]:
    """The text a user sees of a stream: deltas that are neither reasoning nor for a tool."""
    return [event.text for event in events if isinstance(event, Delta) and event.is_shown]


def contents(messages: Sequence[Message]) -> list[str]:
    """The texts of messages."""
    return [message.content for message in messages]


def test_a_turn(tokenizer: Tokenizer) -> None:
    """A turn streams its text, joins the conversation, and is described."""
    chat = chat_with(tokenizer, THINK + ANSWER)
    events = list(chat.send("Hi"))
    assert "".join(shown(events)) == "Hello there, friend!"
    assert [e for e in events if isinstance(e, Message)] == chat.messages[1:]
    assert contents(chat.messages) == ["Hi", "They greet me.", "Hello there, friend!"]
    turn = chat.last_turn
    assert turn is not None
    assert (turn.answer, turn.reasoning) == ("Hello there, friend!", "They greet me.")
    assert (turn.tool_calls, turn.finish_reason) == ((), "stop")
    assert turn.stats.completion_tokens == len(tokenizer.encode_with_special(THINK + ANSWER))
    assert turn.stats.prompt_tokens == len(render(SETUP, [Message("user", "Hi")], tokenizer))


def test_preambles_belong_to_the_answer(tokenizer: Tokenizer) -> None:
    """Commentary for nobody is for the user, in its place before the final message."""
    chat = chat_with(tokenizer, PREAMBLE + ANSWER)
    assert "".join(shown(chat.send("Hi"))) == "I look it up.Hello there, friend!"
    assert chat.last_turn is not None
    assert chat.last_turn.answer == "I look it up.\n\nHello there, friend!"


@pytest.mark.parametrize(
    ("script", "max_tokens", "reason"),
    [
        (THINK + ANSWER, None, "stop"),
        ("<|channel|>final<|message|>Hi<|endoftext|>", None, "stop"),
        ("Hi<|return|>", None, "stop"),
        ("<|return|>", None, "stop"),
        (THINK + CALL, None, "tool_calls"),
        (CALL.replace("<|call|>", "<|return|>"), None, "tool_calls"),
        (PREAMBLE + CALL, None, "tool_calls"),
        ("<|channel|>analysis to=functions.f code<|message|>1<|call|>", None, "tool_calls"),
        (THINK + ANSWER, 12, "length"),
        (CALL, 12, "length"),
        (ANSWER, 0, "length"),
    ],
)
def test_finish_reasons(
    tokenizer: Tokenizer, script: str, max_tokens: int | None, reason: str
) -> None:
    """Why a turn ended: an answer, a call whatever its stop token, or the limit."""
    chat = chat_with(tokenizer, script)
    list(chat.send("Hi", Options(SamplingParams(max_tokens=max_tokens))))
    assert chat.last_turn is not None
    assert chat.last_turn.finish_reason == reason
    assert reason == "length" or bool(chat.last_turn.tool_calls) == (reason == "tool_calls")


def test_several_turns(tokenizer: Tokenizer) -> None:
    """Each prompt is the conversation so far, without the reasoning of finished turns."""
    chat = chat_with(tokenizer, *[THINK + ANSWER] * 3)
    expected: list[list[int]] = []
    for text in ("One", "Two", "Three"):
        history = [m for m in chat.messages if m.channel != "analysis"]
        expected.append(render(SETUP, [*history, Message("user", text)], tokenizer))
        list(chat.send(text))
    assert prompts(chat) == expected
    assert len(chat.messages) == 9


def test_a_tool_loop(tokenizer: Tokenizer) -> None:
    """After a call and its result the next prompt goes on from the very ids of the call."""
    chat = chat_with(tokenizer, THINK + PREAMBLE + CALL, THINK + ANSWER)
    list(chat.send("Hi"))
    assert chat.last_turn is not None
    (call,) = chat.last_turn.tool_calls
    assert (call.recipient, call.content) == ("functions.f", '{"a": 1}')
    chat.add_tool_result(call, '{"b": 2}')
    assert "".join(shown(chat.reply())) == "Hello there, friend!"
    sampled = tokenizer.encode_with_special(THINK + PREAMBLE + CALL)
    result = "<|start|>functions.f to=assistant<|channel|>commentary<|message|>"
    result += '{"b": 2}<|end|><|start|>assistant'
    prompt = render(SETUP, [Message("user", "Hi")], tokenizer)
    expected = [*prompt, *sampled, *tokenizer.encode_with_special(result)]
    assert prompts(chat)[1] == expected


def test_a_call_on_analysis_has_its_result_there(tokenizer: Tokenizer) -> None:
    """A result goes to the channel of its call, so that both are pruned together."""
    chat = chat_with(tokenizer, "<|channel|>analysis to=python code<|message|>1<|call|>")
    list(chat.reply())
    chat.add_tool_result(chat.messages[-1], "1")
    result = chat.messages[-1]
    assert (result.role, result.name, result.channel) == ("tool", "python", "analysis")


@pytest.mark.parametrize("script", [THINK + PREAMBLE + ANSWER, THINK + PREAMBLE + CALL])
def test_closing_early_keeps_what_was_seen(tokenizer: Tokenizer, script: str) -> None:
    """Closed after any number of events, a turn leaves the text that the user saw, no more."""
    length = len(list(chat_with(tokenizer, script).send("Hi", GREEDY)))
    for count in range(1, length):
        chat = chat_with(tokenizer, script, ANSWER)
        stream = chat.send("Hi", GREEDY)
        seen = shown(islice(stream, count))
        stream.close()
        assert "".join(contents(chat.messages[1:])) == "".join(seen), count
        assert all(m.is_shown for m in chat.messages[1:])
        assert chat.last_turn is not None
        assert chat.last_turn.finish_reason == "interrupted"
        assert "".join(shown(chat.send("Again", GREEDY))) == "Hello there, friend!"
        assert chat.last_turn.finish_reason == "stop"


@pytest.mark.parametrize("script", [THINK + PREAMBLE + ANSWER, THINK + PREAMBLE + CALL])
def test_ctrl_c_keeps_what_was_seen(tokenizer: Tokenizer, script: str) -> None:
    """Interrupted while any id is computed, in headers too, a turn leaves the text seen so far."""
    ids = tokenizer.encode_with_special(script)
    for count in range(1, len(ids)):
        chat = Chat(Engine(StoppedModel(ids[:count])), tokenizer)
        events: list[Event] = []
        with pytest.raises(KeyboardInterrupt):
            events.extend(chat.send("Hi", GREEDY))
        assert "".join(contents(chat.messages[1:])) == "".join(shown(events)), count
        assert chat.last_turn is not None
        assert chat.last_turn.finish_reason == "interrupted"


@pytest.mark.parametrize("script", [THINK + PREAMBLE + ANSWER, THINK + PREAMBLE + CALL])
def test_a_limit_keeps_what_was_shown(tokenizer: Tokenizer, script: str) -> None:
    """Cut off at any length, a turn leaves its shown text, and half a call is never kept."""
    for count in range(1, len(tokenizer.encode_with_special(script))):
        chat = chat_with(tokenizer, script, ANSWER)
        seen = shown(chat.send("Hi", Options(SamplingParams(0, max_tokens=count))))
        assert "".join(contents(chat.messages[1:])) == "".join(seen), count
        assert "I look it up.Hello there, friend!".startswith("".join(seen)), count
        assert not any(m.is_tool_call for m in chat.messages)
        assert "".join(shown(chat.send("Again", GREEDY))) == "Hello there, friend!"


@pytest.mark.parametrize(
    "script",
    [
        THINK + PREAMBLE + ANSWER,
        PREAMBLE + CALL,
        "Hello",
        "<|channel|>final<|message|>A<|end|><|start|>user<|message|>B<|end|><|start|>assistant"
        "<|channel|>final<|message|>C<|return|>",
        "<|channel|>final<|message|>A<|end|><|start|>python to=assistant<|message|>B<|return|>",
    ],
    ids=["answer", "call", "bare", "hallucinated user", "hallucinated tool"],
)
def test_deltas_show_the_answer_and_nothing_else(tokenizer: Tokenizer, script: str) -> None:
    """What streams to the user is `answer`, also when the model speaks in others' names."""
    chat = chat_with(tokenizer, script)
    seen = "".join(shown(chat.send("Hi")))
    assert chat.last_turn is not None
    assert seen == chat.last_turn.answer.replace("\n\n", "")


def test_a_message_that_is_too_long_can_be_taken_back(tokenizer: Tokenizer) -> None:
    """A message that does not fit is refused and does not stay to spoil the next one."""
    model = ReplayModel(tokenizer.encode_with_special(ANSWER), max_context_length=256)
    chat = Chat(Engine(model), tokenizer)
    with pytest.raises(ContextLengthError):
        chat.send("word " * 300)
    assert chat.messages == []
    assert "".join(shown(chat.send("Hi"))) == "Hello there, friend!"


def test_prefills_can_be_watched(tokenizer: Tokenizer) -> None:
    """What watches the prefill of a turn hears of its prompt: what was cached, then all of it."""
    chat = chat_with(tokenizer, CALL, ANSWER)
    seen: list[tuple[int, int]] = []

    def on_prefill(done: int, total: int) -> None:
        seen.append((done, total))

    list(chat.send("Hi", Options(on_prefill=on_prefill)))
    chat.add_tool_result(chat.messages[-1], "1")
    list(chat.reply(Options(on_prefill=on_prefill)))
    first, second = map(len, prompts(chat))
    assert chat.last_turn is not None
    cached = chat.last_turn.stats.cached_tokens
    assert cached == first + len(tokenizer.encode_with_special(CALL)) - 1
    assert seen == [(0, first), (first, first), (cached, second), (second, second)]


def test_messages_may_be_changed_between_turns(tokenizer: Tokenizer) -> None:
    """The next prompt is what `messages` hold then."""
    chat = chat_with(tokenizer, ANSWER, ANSWER)
    list(chat.send("One"))
    del chat.messages[:]
    list(chat.send("Two"))
    assert prompts(chat)[1] == render(SETUP, [Message("user", "Two")], tokenizer)


def test_the_default_setup(tokenizer: Tokenizer) -> None:
    """Without a setup the effort is medium and there is no developer message."""
    chat = Chat(Engine(ReplayModel(tokenizer.encode_with_special(ANSWER))), tokenizer)
    list(chat.send("Hi"))
    assert prompts(chat) == [render(Setup(), [Message("user", "Hi")], tokenizer)]


def test_stop_strings(tokenizer: Tokenizer) -> None:
    """The answer ends before one, and the turn is complete; reasoning that has it goes on."""
    chat = chat_with(tokenizer, THINK.replace("They", "there, friend: they") + ANSWER, ANSWER)
    events = list(chat.send("Hi", Options(stop=["nothing", ", friend"])))
    assert "".join(shown(events)) == "Hello there"
    turn = chat.last_turn
    assert turn is not None
    assert (turn.answer, turn.finish_reason) == ("Hello there", "stop")
    assert "there, friend" in turn.reasoning
    assert contents(chat.messages)[-1] == "Hello there"
    assert "".join(shown(chat.send("Again"))) == "Hello there, friend!"


def test_a_constrained_turn(tokenizer: Tokenizer) -> None:
    """A model that could say anything answers with what the grammar knows."""
    chat = Chat(Engine(UndecidedModel([])), tokenizer)
    grammar = compile_grammar(GrammarSpec(choice(["yes", "no"])), tokenizer)
    list(chat.send("Well?", Options(SamplingParams(0), constrain=grammar.matcher)))
    assert chat.last_turn is not None
    assert chat.last_turn.answer in ("yes", "no")
    assert chat.last_turn.finish_reason == "stop"
