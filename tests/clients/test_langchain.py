"""langchain-openai's ChatOpenAI, unchanged."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from gptoss_mlx.tokenizer import Tokenizer

from .replaying import ANSWER, KEY, THINK, Replaying, call, replaying

langchain_openai = pytest.importorskip("langchain_openai")
from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402

pytestmark = pytest.mark.clients
SAID = 'It rains in "São Paulo" 🫠.'


class City(BaseModel):
    """A city."""

    name: str
    is_wet: bool


@tool
def get_weather(city: str) -> str:
    """How the weather is in a city."""
    return f"wet in {city}"


@contextmanager
def chat(tokenizer: Tokenizer, *scripts: str, **options: Any) -> Generator[tuple[Any, Replaying]]:
    """A chat model, and the server behind it."""
    with replaying(tokenizer, *scripts) as server:
        model = langchain_openai.ChatOpenAI(
            model="gpt-oss-20b",
            base_url=f"{server.url}/v1",
            api_key=SecretStr(KEY),
            max_retries=0,
            **options,
        )
        yield model, server


@pytest.mark.parametrize("uses_responses", [False, True])
def test_a_prompt(tokenizer: Tokenizer, uses_responses: bool) -> None:
    """Answered, in one piece and streamed; with what it took."""
    with chat(tokenizer, *[THINK + ANSWER] * 2, use_responses_api=uses_responses) as (model, _):
        whole = model.invoke("Rain?")
        assert whole.text == SAID
        assert whole.usage_metadata["output_token_details"]["reasoning"] > 0
        chunks = list(model.stream("Rain?"))
        assert len(chunks) > 3
        assert "".join(chunk.text for chunk in chunks) == SAID


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("uses_responses", [False, True])
def test_a_tool(tokenizer: Tokenizer, is_streamed: bool, uses_responses: bool) -> None:
    """Called and answered; the second prompt goes on from what was sampled in the first."""
    calling = THINK + call("get_weather", '{"city":"São Paulo"}')
    options = {"streaming": is_streamed, "use_responses_api": uses_responses}
    with chat(tokenizer, calling, THINK + ANSWER, **options) as (model, server):
        bound = model.bind_tools([get_weather])
        asked = HumanMessage("Rain?")
        first = bound.invoke([asked])
        (made,) = first.tool_calls
        assert (made["name"], made["args"]) == ("get_weather", {"city": "São Paulo"})
        result = get_weather.invoke(made)
        assert isinstance(result, ToolMessage)
        second = bound.invoke([asked, first, result])
        assert second.text == SAID
        assert server.goes_on(1)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(tokenizer: Tokenizer, method: str) -> None:
    """A model of pydantic's comes back, by an answer or by a call."""
    fields = '{"name": "Oslo", "is_wet": true}'
    answers = {
        "json_schema": f"<|channel|>final<|message|>{fields}<|return|>",
        "function_calling": call("City", fields),
    }
    with chat(tokenizer, THINK + answers[method]) as (model, _):
        city = model.with_structured_output(City, method=method).invoke("Which city is wet?")
        assert city == City(name="Oslo", is_wet=True)
