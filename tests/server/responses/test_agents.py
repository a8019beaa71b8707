"""The Agents SDK over the Responses API, unchanged: a function that it runs, streamed and not."""

from __future__ import annotations

import asyncio

import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, Tool, function_tool
from openai import AsyncOpenAI

from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import MakeServed, live

from .scenes import CALL, FINAL, THINK

PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
WEATHER = CALL.replace("functions.f", "functions.weather").replace('"a": 1', '"city": "Oslo"')


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_function_that_an_agent_runs(
    served: MakeServed, tokenizer: Tokenizer, is_streamed: bool
) -> None:
    """Two turns; the second prompt begins with what was sampled in the first."""
    said = THINK + PREAMBLE + WEATHER
    made = served(said, FINAL, FINAL)
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """How it is there."""
        asked.append(city)
        return "wet"

    with live(made.app) as url:
        texts = asyncio.run(answers(url, weather, is_streamed))
    assert texts == ["It rains in São Paulo 🫠."] * 2
    assert asked == ["Oslo"]
    first, second, third = made.prompts
    sampled = first + tokenizer.encode_with_special(said)
    assert second[: len(sampled)] == sampled
    assert "wet<|end|>" in tokenizer.decode(second)
    assert "And tomorrow?" in tokenizer.decode(third)


async def answers(url: str, tool: Tool, is_streamed: bool) -> list[str]:
    """What the agent says in the end, and to a second question."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        model = OpenAIResponsesModel("gpt-oss", client)
        agent = Agent(name="A", instructions="Be brief.", model=model, tools=[tool])
        config = RunConfig(tracing_disabled=True)
        if not is_streamed:
            first = await Runner.run(agent, "Rain?", run_config=config)
            items = [*first.to_input_list(), {"role": "user", "content": "And tomorrow?"}]
            second = await Runner.run(agent, items, run_config=config)  # pyright: ignore
            return [first.final_output, second.final_output]
        first = Runner.run_streamed(agent, "Rain?", run_config=config)
        async for _ in first.stream_events():
            pass
        second = Runner.run_streamed(
            agent,
            "And tomorrow?",
            previous_response_id=first.last_response_id,
            run_config=config,
        )
        async for _ in second.stream_events():
            pass
        return [first.final_output, second.final_output]
