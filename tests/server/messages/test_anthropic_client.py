"""anthropic-python against a real server, unchanged: what its users do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from gptoss_mlx.engine import Engine
from gptoss_mlx.model import Model
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import live

MODEL = "gpt-oss-20b"
FRANCE: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
PARIS: list[MessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
    },
}
THINKING: anthropic.types.ThinkingConfigParam = {"type": "enabled", "budget_tokens": 5000}


GREEDY = {"temperature": 0}  # which the client has no argument for any more


class Capital(BaseModel):
    """What a parsed answer is."""

    city: Literal["Paris", "Rome"]


@pytest.fixture(scope="module")
def url(demo_model: Model, tokenizer: Tokenizer) -> Iterator[str]:
    """A server of the demo, which needs a key."""
    with Engine(demo_model) as engine:
        host = ModelHost(lambda: OpenModel(engine, tokenizer))
        host.open()
        with live(make_app(Settings("demo", api_keys=("secret",)), host)) as url:
            yield url


@pytest.fixture(scope="module")
def demo(url: str) -> Iterator[Anthropic]:
    """A client of it."""
    with Anthropic(base_url=url, api_key="secret", max_retries=0) as client:
        yield client


def test_a_message(demo: Anthropic) -> None:
    """The answer is the first block, as examples expect that ask for no thinking."""
    message = demo.messages.create(model=MODEL, max_tokens=300, messages=FRANCE, extra_body=GREEDY)
    (block,) = message.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert message.model == MODEL
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 5


def test_a_stream(demo: Anthropic) -> None:
    """The client's own accumulation is the message; its text is what was streamed."""
    with demo.messages.stream(
        model=MODEL, max_tokens=300, messages=FRANCE, thinking=THINKING, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    thought, answer = message.content
    assert thought.type == "thinking"
    assert "France" in thought.thinking
    assert thought.signature
    assert answer.type == "text"
    assert answer.text == text
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens


def test_a_tool_over_two_turns(demo: Anthropic) -> None:
    """The call's result leads to an answer, and the prompt is computed once."""
    first = demo.messages.create(
        model=MODEL,
        max_tokens=300,
        messages=PARIS,
        tools=[WEATHER],
        thinking=THINKING,
        extra_body=GREEDY,
    )
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("get_weather", {"location": "Paris"})
    weather = '{"temperature": 21, "condition": "sunny"}'
    messages: list[MessageParam] = [
        *PARIS,
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": weather}],
        },
    ]
    second = demo.messages.create(
        model=MODEL,
        max_tokens=300,
        messages=messages,
        tools=[WEATHER],
        thinking=THINKING,
        extra_body=GREEDY,
    )
    assert second.stop_reason == "end_turn"
    assert second.content[-1].type == "text"
    assert "21" in second.content[-1].text
    cached = second.usage.cache_read_input_tokens or 0
    assert cached > first.usage.input_tokens
    assert second.usage.input_tokens < 40


def test_a_tool_is_forced(demo: Anthropic) -> None:
    """A question about nothing of the kind is a call nevertheless, and none where none may be."""
    forced = demo.messages.create(
        model=MODEL,
        max_tokens=300,
        messages=FRANCE,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        extra_body=GREEDY,
    )
    assert [block.type for block in forced.content][-1] == "tool_use"
    none = demo.messages.create(
        model=MODEL,
        max_tokens=60,
        messages=PARIS,
        tools=[WEATHER],
        tool_choice={"type": "none"},
        extra_body=GREEDY,
    )
    assert "tool_use" not in [block.type for block in none.content]


def test_a_parsed_answer(demo: Anthropic) -> None:
    """A pydantic model as the format comes back as an object."""
    parsed = demo.messages.parse(
        model=MODEL, max_tokens=300, messages=FRANCE, output_format=Capital, extra_body=GREEDY
    )
    assert isinstance(parsed.parsed_output, Capital)


def test_limits(demo: Anthropic) -> None:
    """Tokens, and a text that ends the answer."""
    short = demo.messages.create(model=MODEL, max_tokens=3, messages=FRANCE, extra_body=GREEDY)
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 3
    stopped = demo.messages.create(
        model=MODEL, max_tokens=300, messages=FRANCE, stop_sequences=["Paris"], extra_body=GREEDY
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in str(stopped.content)


def test_a_count(demo: Anthropic) -> None:
    """That of the prompt which the message then has."""
    counted = demo.messages.count_tokens(model=MODEL, messages=FRANCE, tools=[WEATHER])
    usage = demo.messages.create(
        model=MODEL, max_tokens=1, messages=FRANCE, tools=[WEATHER], extra_body=GREEDY
    ).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_errors(demo: Anthropic, url: str) -> None:
    """Each is the exception that Anthropic's own server would lead to."""
    stranger = Anthropic(base_url=url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError, match="API key"):
        stranger.messages.create(model=MODEL, max_tokens=1, messages=FRANCE)
    with pytest.raises(anthropic.BadRequestError, match="nothing is said") as caught:
        demo.messages.create(
            model=MODEL, max_tokens=1, messages=[{"role": "user", "content": ""}], extra_body=GREEDY
        )
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        demo.messages.batches.list()
