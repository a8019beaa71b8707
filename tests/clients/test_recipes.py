"""The Python recipes of docs/clients.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from server.conftest import MakeServed, live, served

__all__ = ["served"]

DOCS = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")
ANSWER = (
    "<|channel|>analysis<|message|>I see.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{}<|return|>"
)
CALL = (
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    '{"city": "Paris"}<|call|>'
)
# What the model says, and what the recipe prints of it, by the recipe's title.
REPLAYS = {
    "OpenAI SDK 1": ((ANSWER.format("It is Paris."),), "It is Paris."),
    "OpenAI SDK 2": ((ANSWER.format("Hello."), ANSWER.format("You are Alice.")), "You are Alice."),
    "OpenAI SDK 3": (
        (ANSWER.replace("{}", '{"name": "Paris", "country": "France"}'),),
        "name='Paris' country='France'",
    ),
    "Agents SDK 1": ((CALL, ANSWER.format("It is sunny in Paris.")), "It is sunny in Paris."),
    "Anthropic SDK 1": ((ANSWER.format("It is Paris."),), "It is Paris."),
    "LangChain 1": ((ANSWER.format("It is Paris."),), "It is Paris."),
}
pytestmark = pytest.mark.clients


def _recipes() -> dict[str, str]:
    """Python code by its section's title, and its number there."""
    found: dict[str, str] = {}
    for section in DOCS.split("\n## ")[1:]:
        title = section.splitlines()[0]
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL), 1):
            found[f"{title} {number}"] = code
    return found


RECIPES = _recipes()


def test_every_recipe_is_run() -> None:
    """None is left out below."""
    assert RECIPES.keys() == REPLAYS.keys()


@pytest.mark.parametrize("title", RECIPES)
def test_recipe(served: MakeServed, title: str) -> None:
    """It runs in a process of its own, and prints what the model said."""
    scripts, shown = REPLAYS[title]
    with live(served(*scripts).app) as url:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
        }
        done = subprocess.run(
            [sys.executable, "-c", RECIPES[title]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stdout.strip()) == (0, shown), done.stderr
