"""Completions drawn under a grammar: by chance alone, and by the engine from a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.grammar import Grammar, Matcher
from gptoss_mlx.sequence import Request
from gptoss_mlx.tokenizer import START, STOP_TOKENS, Tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

__all__ = ["Walk", "allowed", "answer_of", "follow", "generate", "stroll"]

Ids = NDArray[np.int64]


@dataclass
class Walk:
    """A completion, whether it came to its end, and the seconds that each mask took."""

    ids: list[int] = field(default_factory=list[int])
    is_finished: bool = False
    seconds: list[float] = field(default_factory=list[float])


def allowed(matcher: Matcher) -> Ids:
    """The ids that a matcher's mask has, ascending."""
    mask = matcher.mask()
    assert mask is not None
    return _ids_of(mask)


def _ids_of(mask: NDArray[np.uint32]) -> Ids:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def follow(grammar: Grammar, ids: Sequence[int]) -> Matcher:
    """A matcher that has gone through these ids, each of which its mask must have."""
    matcher = grammar.matcher()
    for n, i in enumerate(ids):
        mask = matcher.mask()
        assert mask is not None
        assert mask[i // 32] >> i % 32 & 1, f"id {i} at {n} is forbidden"
        matcher.advance(i)
    return matcher


def stroll(grammar: Grammar, tokenizer: Tokenizer, seed: int, limit: int = 2000) -> Walk:
    """Draw uniformly from what is allowed, with a liking for tokens that end something."""
    rng = np.random.default_rng(seed)
    matcher, walk = grammar.matcher(), Walk()
    closing = np.array([i for text in ('"', "}", "]") for i in tokenizer.encode(text)])
    while not matcher.is_finished and len(walk.ids) < limit:
        ids = allowed(matcher)
        ends = ids[ids >= NUM_ORDINARY] if len(ids) > 100 else ids
        if not len(ends) and rng.random() < 0.3:
            ends = closing[np.isin(closing, ids, kind="table")]
        walk.ids.append(int(rng.choice(ends if len(ends) and rng.random() < 0.5 else ids)))
        matcher.advance(walk.ids[-1])
    walk.is_finished = matcher.is_finished
    return walk


class TimedMatcher:
    """A matcher that notes the seconds that each of its masks takes."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.seconds: list[float] = []

    def mask(self) -> NDArray[np.uint32] | None:
        """The matcher's."""
        started = time.perf_counter()
        mask = self.matcher.mask()
        self.seconds.append(time.perf_counter() - started)
        return mask

    def forced(self) -> list[int]:
        """The matcher's."""
        return self.matcher.forced()

    def advance(self, token: int) -> None:
        """The matcher goes on."""
        self.matcher.advance(token)


def generate(
    engine: Engine, prompt: Sequence[int], grammar: Grammar, seed: int, limit: int = 1500
) -> Walk:
    """Draw from a model at temperature 1 among what is allowed, until the end or `limit` tokens."""
    timed = TimedMatcher(grammar.matcher())
    params = SamplingParams(seed=seed, max_tokens=limit)
    request = Request(tuple(prompt), params, STOP_TOKENS, frozenset({START}), constraint=timed)
    ids = list(engine.submit(request))
    return Walk(ids, timed.matcher.is_finished, timed.seconds)


def answer_of(walk: Walk, tokenizer: Tokenizer) -> str:
    """The text of a completion's last message."""
    text = tokenizer.decode(walk.ids[:-1])
    return text.rpartition("<|message|>")[2]
