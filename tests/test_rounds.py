"""Turns with tools between them: what runs, what the model reads, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Dropped, Event, Options, Turn
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import ContextLengthError, ToolError
from gptoss_mlx.harmony import FunctionTool, Message, Setup, render
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Preview, Tool, Toolbox

ANSWER = "<|channel|>final<|message|>Done.<|return|>"
SETUP = Setup(functions=(FunctionTool("theirs"),))
GREEDY = SamplingParams(temperature=0)


def call(recipient: str, content: str = "1", channel: str = "commentary") -> str:
    """A completion that calls."""
    return f"<|channel|>{channel} to={recipient}<|message|>{content}<|call|>"


class Counter(Tool):
    """Adds up what it is sent; some inputs make it fail."""

    name = "counter"
    functions = (FunctionTool("add"),)

    def __init__(self) -> None:
        self.total = 0

    @property
    def recipients(self) -> Sequence[str]:
        """One."""
        return ("functions.add",)

    def preview(self, recipient: str, content: str) -> Preview:
        """What is added to what."""
        assert recipient == "functions.add"
        if content == "unreadable":
            raise ToolError("send a number")
        return Preview(f"{self.total} + {content}")

    def run(self, recipient: str, content: str) -> str:
        """Add."""
        assert recipient == "functions.add"
        if content == "stop":
            raise KeyboardInterrupt
        self.total += int(content)
        return str(self.total)


def chat_with(tokenizer: Tokenizer, *scripts: str, **settings: Any) -> Chat:
    """A conversation with the counter, in which the model answers with these completions."""
    model = ReplayModel(*(tokenizer.encode_with_special(script) for script in scripts))
    return Chat(Engine(model), tokenizer, SETUP, toolbox=Toolbox([Counter()]), **settings)


def results(chat: Chat) -> list[str]:
    """What tools have said."""
    return [m.content for m in chat.messages if m.role == "tool"]


def test_calls_are_run_until_an_answer(tokenizer: Tokenizer) -> None:
    """Two calls and an answer: each result reaches the model, and each turn is described."""
    chat = chat_with(tokenizer, call("functions.add", "2"), call("functions.add", "3"), ANSWER)
    events = list(chat.send("Hi", Options(GREEDY)))
    assert results(chat) == ["2", "5"]
    assert [e.finish_reason for e in events if isinstance(e, Turn)] == ["tool_calls"] * 2 + ["stop"]
    assert [e for e in events if isinstance(e, Message)] == chat.messages[1:]
    assert isinstance(chat.engine.model, ReplayModel)
    prompts = list(chat.engine.model.prompts.values())
    setup = chat.toolbox.extend(SETUP)
    assert prompts[2] == render(setup, chat.messages[:-1], tokenizer)
    assert [f.name for f in setup.functions] == ["theirs", "add"]


def test_the_callers_functions_are_the_callers(tokenizer: Tokenizer) -> None:
    """A call of the setup's function ends the stream; answered, the conversation goes on."""
    chat = chat_with(tokenizer, call("functions.theirs"), ANSWER)
    list(chat.send("Hi", Options(GREEDY)))
    assert results(chat) == []
    assert chat.last_turn is not None
    chat.add_tool_result(chat.last_turn.tool_calls[0], "42")
    list(chat.send(options=Options(GREEDY)))
    assert chat.last_turn.answer == "Done."


def test_of_two_calls_in_one_turn_each_has_its_answerer(tokenizer: Tokenizer) -> None:
    """Ours is run, and the caller is left with theirs."""
    both = call("functions.add").replace("<|call|>", "<|end|>") + "<|start|>assistant"
    chat = chat_with(tokenizer, both + call("functions.theirs"))
    list(chat.send("Hi", Options(GREEDY)))
    assert results(chat) == ["1"]


@pytest.mark.parametrize("name", ["add", "functions.add", "functions.functions.add", " add"])
def test_other_spellings_of_a_name(tokenizer: Tokenizer, name: str) -> None:
    """The namespace may be missing, or too much."""
    chat = chat_with(tokenizer, call(name), ANSWER)
    list(chat.send("Hi", Options(GREEDY)))
    assert results(chat) == ["1"]


@pytest.mark.parametrize(
    ("recipient", "content", "said"),
    [
        (
            "functions.nothing",
            "1",
            "there is no tool 'functions.nothing'. There are: functions.add",
        ),
        ("functions.add", "x", "ValueError: invalid literal for int() with base 10: 'x'"),
    ],
)
def test_what_goes_wrong_is_for_the_model(
    tokenizer: Tokenizer, recipient: str, content: str, said: str
) -> None:
    """An unknown name and a tool that raises are results like others."""
    chat = chat_with(tokenizer, call(recipient, content), ANSWER)
    list(chat.send("Hi", Options(GREEDY)))
    assert results(chat) == [f"[ERROR] {said}"]
    assert chat.messages[-1].content == "Done."


def test_a_limit_on_rounds(tokenizer: Tokenizer) -> None:
    """The last call that is allowed says so; one more is answered, but not replied to."""
    chat = chat_with(tokenizer, *[call("functions.add")] * 4, max_rounds=2)
    events = list(chat.send("Hi", Options(GREEDY)))
    assert sum(isinstance(event, Turn) for event in events) == 3
    first, second, third = results(chat)
    assert (first, third) == ("1", "3")
    assert second.endswith("[ERROR] no more calls are possible: answer with what you know now")


def test_approval(tokenizer: Tokenizer) -> None:
    """Who approves sees what would be done; a refusal is told, what cannot run is not asked."""
    asked: list[str] = []

    def approve(message: Message, preview: Preview) -> str | None:
        asked.append(f"{message.recipient}: {preview.title}")
        return "not now" if preview.title.endswith("7") else None

    scripts = [call("functions.add", content) for content in ("5", "7", "unreadable")]
    chat = chat_with(tokenizer, *scripts, call("functions.gone"), ANSWER)
    list(chat.send("Hi", Options(GREEDY, approve=approve)))
    assert asked == ["functions.add: 0 + 5", "functions.add: 5 + 7"]
    assert results(chat)[:3] == ["5", "[ERROR] not now", "[ERROR] send a number"]
    assert results(chat)[3].startswith("[ERROR] there is no tool")


def stopped_by_ctrl_c(chat: Chat) -> None:
    """The user presses Ctrl-C while a tool runs."""
    with pytest.raises(KeyboardInterrupt):
        list(chat.send("Hi", Options(GREEDY)))


def stopped_by_closing(chat: Chat) -> None:
    """The consumer goes away when it has seen a call."""
    stream: Generator[Event] = chat.send("Hi", Options(GREEDY))
    assert any(isinstance(event, Turn) for event in stream)
    stream.close()


@pytest.mark.parametrize("stop", [stopped_by_ctrl_c, stopped_by_closing])
def test_every_call_has_a_result(tokenizer: Tokenizer, stop: Callable[[Chat], None]) -> None:
    """However a tool loop is left, no call stands in the conversation without an answer."""
    two = call("functions.add", "stop").replace("<|call|>", "<|end|>") + "<|start|>assistant"
    chat = chat_with(tokenizer, two + call("functions.add", "1"), ANSWER)
    stop(chat)
    assert results(chat) == ["[ERROR] the user stopped this call"] * 2
    list(chat.send("Again", Options(GREEDY)))
    assert chat.messages[-1].content == "Done."


def test_the_oldest_turns_are_dropped(tokenizer: Tokenizer) -> None:
    """In a full context turns leave the prompt, with notice, but not the conversation."""
    chat = chat_with(tokenizer, *[ANSWER] * 8, drops_oldest=True)
    chat.engine.context = 400
    notices: list[int] = []
    for number in range(6):
        for event in chat.send(f"{number} " + "word " * 60, Options(SamplingParams(0))):
            if isinstance(event, Dropped):
                notices.append(event.turns)
        assert len(chat.prompt()) <= 400
    assert len(chat.messages) == 12
    assert sum(notices) >= 2
    text = tokenizer.decode(chat.prompt())
    dropped = sum(notices)
    assert [f"{n} word" in text for n in range(6)] == [n >= dropped for n in range(6)]


def test_without_dropping_a_full_context_is_an_error(tokenizer: Tokenizer) -> None:
    """It is refused, and the conversation is as it was."""
    chat = chat_with(tokenizer, ANSWER, ANSWER)
    chat.engine.context = 300
    list(chat.send("word " * 100, Options(GREEDY)))
    before = list(chat.messages)
    with pytest.raises(ContextLengthError):
        chat.send("word " * 200, Options(GREEDY))
    assert chat.messages == before


def test_a_message_that_never_fits_changes_nothing(tokenizer: Tokenizer) -> None:
    """Dropping all others does not help it: it is refused, and they are seen again."""
    chat = chat_with(tokenizer, ANSWER, ANSWER, drops_oldest=True)
    chat.engine.context = 300
    list(chat.send("first " * 20, Options(GREEDY)))
    with pytest.raises(ContextLengthError):
        chat.send("word " * 400, Options(GREEDY))
    list(chat.send("second", Options(GREEDY)))
    assert "first first" in tokenizer.decode(chat.prompt())


@pytest.mark.parametrize("more", [0, 1, 3])
def test_a_limit_holds_for_all_turns(tokenizer: Tokenizer, more: int) -> None:
    """What a call took is not there for the answer; where nothing is left, that is the end."""
    first = call("functions.add", "2")
    limit = len(tokenizer.encode_with_special(first)) + more
    chat = chat_with(tokenizer, first, ANSWER)
    events = list(chat.send("Hi", Options(SamplingParams(0, max_tokens=limit))))
    turns = [event for event in events if isinstance(event, Turn)]
    assert [turn.finish_reason for turn in turns] == ["tool_calls", "length"]
    assert sum(turn.stats.completion_tokens for turn in turns) == limit
    assert results(chat) == ["2"]


def test_a_turn_says_what_stopped_it(tokenizer: Tokenizer) -> None:
    """The text, where several could have; nothing, where the model came to its end."""
    chat = chat_with(tokenizer, ANSWER, ANSWER)
    for stop, stopped in ((("x", "one"), "one"), (("x",), None)):
        list(chat.send("Hi", Options(GREEDY, stop=stop)))
        assert chat.last_turn is not None
        assert (chat.last_turn.finish_reason, chat.last_turn.stopped) == ("stop", stopped)
