"""An agent's loop of tool calls: each prompt prefills what is new in it, and nothing is stale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from agent import Exchange, Replay, Script, exchanges, greedy, new_tokens, renumbered, replay
from checkpoints import TINY
from helpers import random_model

from gptoss_mlx.engine import Engine
from gptoss_mlx.model import Model
from gptoss_mlx.tokenizer import Tokenizer

CONFIG = replace(
    TINY,
    hidden_size=32,
    intermediate_size=32,
    num_attention_heads=2,
    num_key_value_heads=1,
    sliding_window=128,
)
SCRIPT = Script(
    turns=4,
    calls=(2, 0, 1),
    tools=2,
    user_words=45,
    reasoning_words=8,
    result_lines=7,
    answer_words=8,
)
MOST = 1.1  # tokens prefilled for each new one


@dataclass(frozen=True)
class Outcome:
    """Of one exchange: tokens new in its prompt, what was prefilled, and the model's own words."""

    exchange: Exchange
    new: int
    replay: Replay
    answer: list[int]


@pytest.fixture(scope="module")
def model() -> Model:
    """A small random model."""
    return random_model(CONFIG)


@pytest.fixture(scope="module")
def conversation(tokenizer: Tokenizer) -> list[Exchange]:
    """Some 1,500 tokens in four turns, the last answer regenerated, the last question edited."""
    return renumbered(list(exchanges(SCRIPT, tokenizer)))


@pytest.fixture(scope="module")
def outcomes(model: Model, conversation: list[Exchange]) -> list[Outcome]:
    """The conversation in one engine."""
    with Engine(model, prefill_chunk=200) as engine:
        return [
            Outcome(
                exchange,
                new_tokens(conversation[:n], exchange.prompt),
                replay(engine, exchange),
                greedy(engine, exchange.prompt, 4),
            )
            for n, exchange in enumerate(conversation)
        ]


def test_only_what_is_new_is_prefilled(outcomes: list[Outcome]) -> None:
    """At most 1.1 tokens are prefilled for each new one, whatever the request of the loop."""
    for outcome in outcomes:
        assert outcome.new <= outcome.replay.prefilled <= MOST * outcome.new, outcome.exchange.kind


def test_answers_are_those_of_a_cold_start(model: Model, outcomes: list[Outcome]) -> None:
    """The model says to a prompt of each kind what it says without a cache."""
    for outcome in [outcomes[2], outcomes[3], *outcomes[-3:]]:
        with Engine(model) as cold:
            assert greedy(cold, outcome.exchange.prompt, 4) == outcome.answer
        assert outcome.replay.first_choice == outcome.answer[0]


def test_a_cache_too_small_for_the_loop(model: Model, outcomes: list[Outcome]) -> None:
    """Where only the longest prompt fits, places are evicted, and answers are still the same."""
    position_bytes = 2 * CONFIG.key_value_size * 4  # of the one full layer, in float32
    with Engine(model, cache_bytes=2200 * position_bytes) as engine:
        for outcome in outcomes[-3:]:
            assert replay(engine, outcome.exchange).first_choice == outcome.answer[0]
            assert greedy(engine, outcome.exchange.prompt, 4) == outcome.answer
        assert engine.prefix.stats.evictions > 0
