"""Simon Willison's `llm` on the command line, unchanged, as its documentation sets it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_mlx.tokenizer import Tokenizer

from .replaying import ANSWER, KEY, THINK, call, replaying

pytest.importorskip("llm")
pytestmark = pytest.mark.clients
SAID = 'It rains in "São Paulo" 🫠.'
MODEL = """
- model_id: local
  model_name: gpt-oss-20b
  api_base: "{url}/v1"
  api_key_name: gptoss
  supports_tools: true
  supports_schema: true
"""
WEATHER = """
def weather(city: str) -> str:
    "How the weather is in a city."
    return f"wet in {city}"
"""
Llm = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Llm:
    """Runs the command against a server; returns what it prints."""
    env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "PYTHONUTF8": "1"}
    (tmp_path / "keys.json").write_text(json.dumps({"gptoss": KEY}))

    def llm(url: str, *arguments: str) -> str:
        (tmp_path / "extra-openai-models.yaml").write_text(MODEL.format(url=url))
        command = [sys.executable, "-m", "llm", "prompt", "-m", "local", *arguments]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return llm


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_a_prompt(tokenizer: Tokenizer, run: Llm, options: list[str]) -> None:
    """Answered, and gone on with."""
    with replaying(tokenizer, THINK + ANSWER, THINK + ANSWER) as server:
        assert run(server.url, *options, "Rain?") == SAID
        assert run(server.url, *options, "-c", "And now?") == SAID
        _, second = server.model.prompts.values()
        assert "Rain?" in tokenizer.decode(second)


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_a_tool(tokenizer: Tokenizer, run: Llm, options: list[str]) -> None:
    """Called and answered; the second prompt goes on from what was sampled in the first."""
    calling = THINK + call("weather", '{"city":"São Paulo"}')
    with replaying(tokenizer, calling, THINK + ANSWER) as server:
        assert run(server.url, *options, "--functions", WEATHER, "Rain?") == SAID
        assert server.goes_on(1)
        assert "wet in São Paulo" in tokenizer.decode(list(server.model.prompts.values())[1])


def test_a_schema(tokenizer: Tokenizer, run: Llm) -> None:
    """The answer is as the schema says."""
    answer = '<|channel|>final<|message|>{"name": "Oslo", "age": 900}<|return|>'
    with replaying(tokenizer, THINK + answer) as server:
        said = run(server.url, "--schema", "name, age int", "A city")
        assert json.loads(said) == {"name": "Oslo", "age": 900}
