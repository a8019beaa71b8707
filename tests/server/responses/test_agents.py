"""The Agents SDK over the Responses API, unchanged: a function that it runs, streamed and not."""

from __future__ import annotations

import asyncio

import httpx2 as httpx
import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, Tool, function_tool
from helpers import ReplayModel
from openai import AsyncOpenAI

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.responses.routes import routes
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox

from .scenes import CALL, FINAL, THINK

PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
WEATHER = CALL.replace("functions.f", "functions.weather").replace('"a": 1', '"city": "Oslo"')


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_function_that_an_agent_runs(tokenizer: Tokenizer, is_streamed: bool) -> None:
    """Two turns; the second prompt begins with what was sampled in the first."""
    said = THINK + PREAMBLE + WEATHER
    model = ReplayModel(*map(tokenizer.encode_with_special, (said, FINAL)))
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """How it is there."""
        asked.append(city)
        return "wet"

    with Engine(model) as engine:
        host = ModelHost(lambda: OpenModel(engine, tokenizer))
        host.open()
        settings = Settings("gpt-oss")
        app = make_app(settings, host)
        app.router.routes[:0] = routes(Context(settings, host, lambda _: Toolbox()))
        transport = httpx.ASGITransport(app=app)
        assert asyncio.run(answer(transport, weather, is_streamed)) == "It rains in São Paulo 🫠."
    assert asked == ["Oslo"]
    sampled = model.prompts[0] + tokenizer.encode_with_special(said)
    assert model.prompts[1][: len(sampled)] == sampled


async def answer(transport: httpx.ASGITransport, tool: Tool, is_streamed: bool) -> str:
    """What the agent says in the end."""
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key="none", http_client=http, max_retries=0
        )
        model = OpenAIResponsesModel("gpt-oss", client)
        agent = Agent(name="A", instructions="Be brief.", model=model, tools=[tool])
        config = RunConfig(tracing_disabled=True)
        if not is_streamed:
            return (await Runner.run(agent, "Rain?", run_config=config)).final_output
        result = Runner.run_streamed(agent, "Rain?", run_config=config)
        async for _ in result.stream_events():
            pass
        return result.final_output
