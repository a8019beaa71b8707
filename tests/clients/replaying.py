"""A server whose model replays a script, for clients that know nothing of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from helpers import ReplayModel
from server.conftest import live

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer

__all__ = [
    "ANSWER",
    "KEY",
    "THINK",
    "Replaying",
    "answer",
    "call",
    "preamble",
    "replaying",
    "thought",
]

KEY = "a key of mine"
THINK = "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant"
ANSWER = '<|channel|>final<|message|>It rains in "São Paulo" 🫠.<|return|>'


@dataclass(frozen=True)
class Replaying:
    """A server under way."""

    url: str  # without /v1
    model: ReplayModel
    scripts: tuple[list[int], ...]

    def goes_on(self, turn: int) -> bool:
        """Whether a turn's prompt begins with the one before it, and what was sampled there."""
        prompts = list(self.model.prompts.values())
        so_far = prompts[turn - 1] + self.scripts[turn - 1]
        return prompts[turn][: len(so_far)] == so_far


def thought(text: str) -> str:
    """A chain of thought, as the model writes it."""
    return f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant"


def preamble(text: str) -> str:
    """What it says before a call."""
    return f"<|channel|>commentary<|message|>{text}<|end|><|start|>assistant"


def answer(text: str) -> str:
    """The end of a turn."""
    return f"<|channel|>final<|message|>{text}<|return|>"


def call(name: str, arguments: str) -> str:
    """A call, as the model writes it."""
    header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    return f"{header}{arguments}<|call|>"


@contextmanager
def replaying(tokenizer: Tokenizer, *scripts: str) -> Generator[Replaying]:
    """A server that answers with these, one after the other."""
    ids = tuple(tokenizer.encode_with_special(script) for script in scripts)
    model = ReplayModel(*ids)
    with Engine(model) as engine:
        host = ModelHost(lambda: OpenModel(engine, tokenizer))
        host.open()
        with live(make_app(Settings("gpt-oss-20b", api_keys=(KEY,)), host)) as url:
            yield Replaying(url, model, ids)
