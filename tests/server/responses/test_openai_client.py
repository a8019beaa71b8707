"""openai-python's Responses API against a real server with the demo model: what its users do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseInputParam,
    ResponseReasoningItem,
)
from pydantic import BaseModel

from gptoss_mlx.engine import Engine
from gptoss_mlx.model import Model
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import live, soon

FRANCE = "What is the capital of France?"
PARIS = "What is the weather in Paris?"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
        "additionalProperties": False,
    },
    "strict": True,
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
        settings = Settings("demo", api_keys=("secret", "other"))
        with (
            live(make_app(settings, host)) as url,
            OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client,
        ):
            yield client


def weather_call(response: Response) -> ResponseFunctionToolCall:
    """The call that a response ends with."""
    call = response.output[-1]
    assert call.type == "function_call"
    assert call.name == "get_weather"
    return call


def test_a_text(demo: OpenAI) -> None:
    """The answer, the reasoning before it, and what both took."""
    response = demo.responses.create(model="demo", input=FRANCE, temperature=0)
    assert "Paris" in response.output_text
    assert response.status == "completed"
    thought = response.output[0]
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert "France" in thought.content[0].text
    usage = response.usage
    assert usage is not None
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens < usage.output_tokens


def test_items(demo: OpenAI) -> None:
    """A conversation that the client keeps: reasoning and answer go back as they came."""
    items: ResponseInputParam = [
        {"role": "developer", "content": "You know capitals."},
        {"role": "user", "content": [{"type": "input_text", "text": FRANCE}]},
    ]
    first = demo.responses.create(
        model="demo",
        input=items,
        store=False,
        include=["reasoning.encrypted_content"],
        temperature=0,
    )
    assert isinstance(first.output[0], ResponseReasoningItem)
    assert first.output[0].encrypted_content
    items += [item.model_dump(exclude_none=True) for item in first.output]  # type: ignore  # pyright: ignore
    items.append({"role": "user", "content": "And of Japan?"})
    second = demo.responses.create(model="demo", input=items, store=False, temperature=0)
    assert second.status == "completed"
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > 0


def test_streaming(demo: OpenAI) -> None:
    """The events add up to what the answer in one piece is; the same prompt is cached."""
    whole = demo.responses.create(model="demo", input=FRANCE, temperature=0)
    events = list(demo.responses.create(model="demo", input=FRANCE, temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text
    assert last.response.usage is not None
    assert whole.usage is not None
    assert last.response.usage.output_tokens == whole.usage.output_tokens
    assert last.response.usage.input_tokens_details.cached_tokens > 0


def test_parse(demo: OpenAI) -> None:
    """A pydantic model as the schema comes back as an object, streamed too."""
    parsed = demo.responses.parse(
        model="demo", input=FRANCE, text_format=Capital, temperature=0, max_output_tokens=120
    )
    assert isinstance(parsed.output_parsed, Capital)
    with demo.responses.stream(
        model="demo", input=FRANCE, text_format=Capital, temperature=0, max_output_tokens=120
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "name": WEATHER["name"]}]
)
def test_a_tool_over_two_turns(demo: OpenAI, choice: Any) -> None:
    """The call's arguments fit, and its result leads to an answer, by the id of the first."""
    first = demo.responses.create(
        model="demo", input=PARIS, tools=[WEATHER], tool_choice=choice, temperature=0
    )
    call = weather_call(first)
    assert json.loads(call.arguments) == {"location": "Paris"}
    output = json.dumps({"temperature": 21, "condition": "sunny"})
    second = demo.responses.create(
        model="demo",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": output}],
        tools=[WEATHER],
        temperature=0,
    )
    assert "21" in second.output_text
    assert second.previous_response_id == first.id
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens


def test_a_streamed_call(demo: OpenAI) -> None:
    """The client's own accumulation of the events ends in the call."""
    with demo.responses.stream(model="demo", input=PARIS, tools=[WEATHER], temperature=0) as stream:
        names = {event.type for event in stream}
        call = weather_call(stream.get_final_response())
    assert "response.function_call_arguments.delta" in names
    assert json.loads(call.arguments) == {"location": "Paris"}
    assert call.call_id.startswith("call_")


def test_logprobs(demo: OpenAI) -> None:
    """One entry for each token of the answer, whose texts are the answer."""
    response = demo.responses.create(
        model="demo",
        input=FRANCE,
        temperature=0,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    message = response.output[-1]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    assert part.logprobs
    assert "".join(entry.token for entry in part.logprobs) == response.output_text
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in part.logprobs)


def test_a_stored_response(demo: OpenAI) -> None:
    """It is retrieved, its input listed, and deleted; nobody else can do any of it."""
    response = demo.responses.create(model="demo", input=FRANCE, temperature=0)
    assert demo.responses.retrieve(response.id) == response
    (item,) = list(demo.responses.input_items.list(response.id))
    assert item.type == "message"
    stranger = demo.with_options(api_key="other")
    for attempt in (
        lambda: stranger.responses.retrieve(response.id),
        lambda: stranger.responses.delete(response.id),
        lambda: stranger.responses.input_items.list(response.id),
        lambda: stranger.responses.create(input="?", previous_response_id=response.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    demo.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        demo.responses.retrieve(response.id)


def test_in_the_background(demo: OpenAI) -> None:
    """Polled until it is complete; another is cancelled."""
    response = demo.responses.create(model="demo", input=FRANCE, background=True, temperature=0)
    assert response.status == "queued"
    assert soon(lambda: demo.responses.retrieve(response.id).status == "completed")
    assert "Paris" in demo.responses.retrieve(response.id).output_text
    other = demo.responses.create(model="demo", input="Tell me everything.", background=True)
    assert demo.responses.cancel(other.id).status == "cancelled"
    assert demo.responses.retrieve(other.id).status == "cancelled"


def test_tokens_are_counted(demo: OpenAI) -> None:
    """As many as the response will say."""
    counted = demo.responses.input_tokens.count(input=PARIS, tools=[WEATHER]).input_tokens
    response = demo.responses.create(input=PARIS, tools=[WEATHER], max_output_tokens=1)
    assert response.usage is not None
    assert response.usage.input_tokens == counted
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_errors_are_the_clients_exceptions(demo: OpenAI) -> None:
    """Each status is the exception that its users catch, with the parameter."""
    with pytest.raises(openai.BadRequestError) as caught:
        demo.responses.create(model="demo", input=FRANCE, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        demo.responses.create(model="demo", input="word " * 150_000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        demo.with_options(api_key="wrong").responses.create(input=FRANCE)
