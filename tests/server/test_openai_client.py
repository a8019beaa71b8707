"""openai-python against a real server, unchanged: what its users do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from gptoss_mlx.engine import Engine
from gptoss_mlx.model import Model
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer

from .conftest import live

FRANCE: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "City name"}},
            "required": ["location"],
        },
    },
}


class Capital(BaseModel):
    """What a parsed answer is."""

    city: Literal["Paris", "Rome"]
    is_in_europe: bool


@pytest.fixture(scope="module")
def demo(demo_model: Model, tokenizer: Tokenizer) -> Iterator[OpenAI]:
    """A client of the demo, which needs a key."""
    with Engine(demo_model) as engine:
        host = ModelHost(lambda: OpenModel(engine, tokenizer))
        host.open()
        with (
            live(make_app(Settings("demo", api_keys=("secret",)), host)) as url,
            OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client,
        ):
            yield client


def test_a_chat(demo: OpenAI) -> None:
    """The answer, the reasoning beside it, and what it took."""
    completion = demo.chat.completions.create(model="demo", messages=FRANCE, temperature=0)
    (choice,) = completion.choices
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert choice.message.model_extra is not None
    assert "France" in choice.message.model_extra["reasoning"]
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details is not None
    assert 0 < (usage.completion_tokens_details.reasoning_tokens or 0) < usage.completion_tokens


def test_streaming(demo: OpenAI) -> None:
    """The chunks concatenate to what the answer in one piece is."""
    whole = demo.chat.completions.create(model="demo", messages=FRANCE, temperature=0)
    stream = demo.chat.completions.create(
        model="demo",
        messages=FRANCE,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens  # the same prompt a second time


@pytest.mark.parametrize("choice", ["auto", "required", "named"])
def test_a_tool_is_called_and_answered(demo: OpenAI, choice: Any) -> None:
    """The call parses, and its result leads to an answer."""
    if choice == "named":
        choice = {"type": "function", "function": {"name": "get_weather"}}
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the weather in Paris?"}
    ]
    first = demo.chat.completions.create(
        model="demo", messages=messages, tools=[WEATHER], tool_choice=choice, temperature=0
    )
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    result = json.dumps({"temperature": 21, "condition": "sunny"})
    messages += [
        message.model_dump(exclude_none=True),  # type: ignore[list-item]  # pyright: ignore
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    second = demo.chat.completions.create(
        model="demo", messages=messages, tools=[WEATHER], temperature=0
    )
    assert second.choices[0].finish_reason == "stop"
    assert "21" in (second.choices[0].message.content or "")


def test_no_tool_is_called_where_none_may_be(demo: OpenAI) -> None:
    """tool_choice none leaves an answer."""
    completion = demo.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_tokens=60,
    )
    assert completion.choices[0].message.tool_calls is None


def test_a_tool_is_forced_where_none_would_be_called(demo: OpenAI) -> None:
    """A question about nothing of the kind is a call nevertheless, with arguments that fit."""
    completion = demo.chat.completions.create(
        model="demo", messages=FRANCE, tools=[WEATHER], tool_choice="required", max_tokens=300
    )
    assert completion.choices[0].finish_reason == "tool_calls"
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert list(json.loads(call.function.arguments)) == ["location"]


def test_streamed_tool_calls(demo: OpenAI) -> None:
    """The client's own accumulation of a stream ends in the call."""
    with demo.chat.completions.stream(
        model="demo",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        temperature=0,
    ) as stream:
        completion = stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    assert call.id.startswith("call_")


def test_parse(demo: OpenAI) -> None:
    """A pydantic model as the schema comes back as an object."""
    completion = demo.chat.completions.parse(
        model="demo", messages=FRANCE, response_format=Capital, temperature=0, max_tokens=100
    )
    assert isinstance(completion.choices[0].message.parsed, Capital)


def test_logprobs(demo: OpenAI) -> None:
    """One entry for each token of the answer, whose texts are the answer."""
    completion = demo.chat.completions.create(
        model="demo", messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3
    )
    (choice,) = completion.choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].logprob >= token.logprob for token in tokens)


def test_several_choices(demo: OpenAI) -> None:
    """Each is an answer of its own; the prompt counts once."""
    one = demo.chat.completions.create(model="demo", messages=FRANCE, max_tokens=1)
    three = demo.chat.completions.create(model="demo", messages=FRANCE, seed=1, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in three.choices)
    assert one.usage is not None
    assert three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens


def test_stop_and_limits(demo: OpenAI) -> None:
    """A stop text is not in the answer, though it is in the reasoning; a limit is told."""
    stopped = demo.chat.completions.create(
        model="demo", messages=FRANCE, temperature=0, stop=["Paris"]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content
    assert "Paris" not in stopped.choices[0].message.content
    limited = demo.chat.completions.create(
        model="demo", messages=FRANCE, temperature=0, max_completion_tokens=5
    )
    assert limited.choices[0].finish_reason == "length"
    assert limited.usage is not None
    assert limited.usage.completion_tokens == 5


def test_effort_changes_the_prompt(demo: OpenAI) -> None:
    """Each effort is another prompt; `none` is the lowest there is."""
    prompts = {
        effort: demo.chat.completions.create(
            model="demo", messages=FRANCE, reasoning_effort=effort, max_tokens=1
        ).usage
        for effort in ("low", "none")
    }
    assert prompts["low"] is not None
    assert prompts["none"] is not None
    cached = prompts["none"].prompt_tokens_details
    assert cached is not None
    assert cached.cached_tokens == prompts["low"].prompt_tokens - 1


def test_completions(demo: OpenAI) -> None:
    """Raw text, streamed or not, with what was asked repeated."""
    prompt = "<|start|>user<|message|>What is 2 + 2?<|end|><|start|>assistant"
    whole = demo.completions.create(model="demo", prompt=prompt, temperature=0, max_tokens=60)
    assert "4" in whole.choices[0].text
    stream = demo.completions.create(
        model="demo", prompt=prompt, temperature=0, max_tokens=60, echo=True, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == prompt + whole.choices[0].text


def test_models(demo: OpenAI) -> None:
    """The one there is."""
    assert [model.id for model in demo.models.list()] == ["demo"]
    assert demo.models.retrieve("demo").owned_by == "gptoss-mlx"


def test_errors_are_the_clients_exceptions(demo: OpenAI) -> None:
    """Each status is the exception that its users catch."""
    with pytest.raises(openai.NotFoundError):
        demo.models.retrieve("other")
    with pytest.raises(openai.AuthenticationError, match="not the server's API key"):
        demo.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(model="demo", messages=FRANCE, temperature=-1)
    assert caught.value.param == "temperature"
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 150_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(model="demo", messages=long)
    assert caught.value.code == "context_length_exceeded"


def test_many_at_once(demo: OpenAI) -> None:
    """Answers of requests that run together are each their own."""
    cities = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}

    async def ask(client: openai.AsyncOpenAI, country: str) -> str | None:
        completion = await client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"What is the capital of {country}?"}],
            temperature=0,
        )
        return completion.choices[0].message.content

    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=demo.base_url, api_key="secret", max_retries=0
        ) as client:
            return await asyncio.gather(*(ask(client, country) for country in cities))

    answers = asyncio.run(main())
    assert all(city in (text or "") for city, text in zip(cities.values(), answers, strict=True))
