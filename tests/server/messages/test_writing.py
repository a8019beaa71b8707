"""Whatever a model says, and wherever it is cut off: streams keep to what all streams keep to."""

from __future__ import annotations

import os
import random

import pytest
from harmony.test_fuzz import header_words, random_completion, text_tokens

from gptoss_mlx.chat import FinishReason, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.sequence import GenerationStats
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.reading import read
from gptoss_mlx.server.messages.schema import MessagesRequest
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_stream
from .scenes import CODE, SCENES, THINKING, TOOL, USER, WEB, JsonObject, make_writer, talk
from .simulated import simulate

FUZZ_COUNT = int(os.environ.get("GPTOSS_MLX_FUZZ", "500"))
REASONS: tuple[FinishReason, ...] = ("stop", "stop", "length", "interrupted")
ALL_TOOLS: JsonObject = {"tools": [TOOL, WEB, CODE]}


def test_hand_made_events(tokenizer: Tokenizer) -> None:
    """Each event becomes at once what it means."""
    request = MessagesRequest.model_validate({"messages": [USER], **THINKING, "tools": [TOOL]})
    writer = make_writer(read(request), Memory(), tokenizer, 5)
    thought = Message("assistant", "Hm.", "analysis")
    call = Message("assistant", '{"a": 1}', "commentary", "functions.f", ids=(1, 2))
    names: list[list[str | None]] = []
    for event in (
        Delta("analysis", None, "Hm."),
        thought,
        Delta("commentary", "functions.f", '{"a"'),
        Delta("commentary", "functions.f", ": 1}"),
        call,
        Turn((thought, call), "tool_calls", GenerationStats(5, 2, 9)),
    ):
        names.append([name for name, _ in writer.push(0, event)])
    start, delta, stop = (f"content_block_{name}" for name in ("start", "delta", "stop"))
    assert names == [[start, delta], [delta, stop], [start, delta], [delta], [stop], []]
    writer.end()
    message = writer.result()
    assert message["content"][1]["input"] == {"a": 1}
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["input_tokens"] == 3
    assert message["usage"]["cache_read_input_tokens"] == 2
    assert writer.tokens == (5, 9)


def test_what_says_that_it_lives(tokenizer: Tokenizer) -> None:
    """A ping; and where nothing was said at all, an error."""
    request = MessagesRequest.model_validate({"messages": [USER]})
    writer = make_writer(read(request), Memory(), tokenizer, 5)
    assert writer.heartbeat() == [("ping", {"type": "ping"})]
    ((name, data),) = writer.end()
    assert name == data["type"] == "error"
    assert data["error"]["type"] == "api_error"
    ((_, data),) = writer.fail(Problem(429, "busy"))
    assert data["error"] == {"type": "rate_limit_error", "message": "busy"}


@pytest.mark.parametrize(
    ("limit", "reason"), [(12, "max_tokens"), (100, "model_context_window_exceeded")]
)
def test_which_limit_it_was(tokenizer: Tokenizer, limit: int, reason: str) -> None:
    """The client's, or that of the context."""
    ids = tokenizer.encode_with_special(SCENES["text"].completions[0])[:12]
    writer, _ = simulate(tokenizer, {"max_tokens": limit}, [(ids, "length")])
    assert writer.result()["stop_reason"] == reason


def test_names_of_tools_are_the_clients(tokenizer: Tokenizer) -> None:
    """The model was shown another name."""
    tool = {**TOOL, "name": "my tool"}
    call = "<|channel|>commentary to=functions.my_tool <|constrain|>json<|message|>{}<|call|>"
    played = talk(tokenizer, {"tools": [tool]}, call)
    assert played.content == [
        {"type": "tool_use", "id": "toolu_101", "name": "my tool", "input": {}}
    ]


def test_random_completions(tokenizer: Tokenizer) -> None:
    """Whatever a model says in two turns, the events are in order and add up."""
    rng = random.Random(20261122)
    words = [*header_words(tokenizer), tokenizer.encode(" to=browser.search")]
    texts = text_tokens(tokenizer)
    for number in range(FUZZ_COUNT):
        turns: list[tuple[list[int], FinishReason]] = [
            (random_completion(rng, words, texts), rng.choice(REASONS)) for _ in range(2)
        ]
        request = ALL_TOOLS | (THINKING if number % 2 else {})
        writer, wires = simulate(tokenizer, request, turns)
        check_stream(wires, writer.result(), has_shapes=False)


@pytest.mark.parametrize("name", SCENES)
def test_cut_at_every_token(tokenizer: Tokenizer, name: str) -> None:
    """Wherever a stream ends, its blocks are a beginning of what they would have been."""
    scene = SCENES[name]
    ids = tokenizer.encode_with_special(scene.completions[0])
    whole = simulate(tokenizer, scene.request, [(ids, "stop")])[0].result()["content"]
    for length in range(len(ids)):
        writer, wires = simulate(tokenizer, scene.request, [(ids[:length], "length")])
        cut = writer.result()
        check_stream(wires, cut, has_shapes=False)
        assert cut["stop_reason"] in ("max_tokens", "model_context_window_exceeded")
        types = [block["type"] for block in cut["content"]]
        assert types == [block["type"] for block in whole[: len(types)]]
